#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Which volume usbdsrvd opens or makes: device types, -create, -store-size, the lock, -read-only,
# -block-size, -file-direct and -layer, each seen from outside.
# Timeout: 120

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, nbdinfo, need, run, same  # noqa: E402

need("usbdsrvd", "nbdinfo", "nbdcopy", "qemu-io")
MIB = 1 << 20


def refused(*words, says=(), status=1):
    done = subprocess.run(["usbdsrvd", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, check=False)
    same(done.returncode, status, f"exit status of {words}: {done.stderr}")
    for part in says:
        assert part in done.stderr, f"{words}: {part!r} is not in {done.stderr!r}"


def size_of(daemon):
    return nbdinfo(daemon.uri())["exports"][0]["export-size"]


def qemu_io(daemon, *commands, ok=True):
    """What qemu-io printed for its commands on the daemon's export."""
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(["qemu-io", "-f", "raw", *words, daemon.uri()], capture_output=True,
                          stdin=subprocess.DEVNULL, text=True, timeout=60, check=False)
    same(done.returncode == 0, ok, f"{commands}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def test_a_file_is_made_sparse_and_kept():
    with Daemon("-dev-type=file", "-store-size=1TiB") as daemon:
        same(size_of(daemon), 1 << 40, "size")
        same(os.stat("vol.bin").st_mode & 0o777, 0o600, "mode")
        assert os.stat("vol.bin").st_blocks * 512 < MIB
        assert "made " in daemon.log() and "vol.bin" in daemon.log()
        qemu_io(daemon, "write -P 7 64k 4k", "flush")
    with Daemon("-dev-type=disk") as daemon:
        same(size_of(daemon), 1 << 40, "size kept without -store-size")
        assert "made " not in daemon.log()
        qemu_io(daemon, "read -P 7 64k 4k", "read -P 0 0 64k")


def test_a_different_size_is_refused_and_both_are_named():
    with Daemon("-dev-type=file", "-store-size=2MiB"):
        pass
    refused("-dev-type=file", "-store-name=vol", "-store-size=3MiB", "-export=none",
            says=[str(2 * MIB), str(3 * MIB)])
    with Daemon("-dev-type=file", "-store-size=2MiB"):
        pass


def test_a_new_size_is_rounded_up_to_blocks():
    with Daemon("-dev-type=file", "-store-size=1000001", name="a") as daemon:
        same(size_of(daemon), 1_003_520, "4096-byte blocks")
    with Daemon("-dev-type=file", "-store-size=1000001", "-block-size=512", name="b") as daemon:
        same(size_of(daemon), 1_000_448, "512-byte blocks")
    with Daemon("-store-size=1000001", "-block-size=512", name="c") as daemon:
        same(size_of(daemon), 1_000_448, "memory, 512-byte blocks")


def test_create_says_whether_a_volume_is_made():
    common = ("-dev-type=file", "-store-name=vol", "-store-size=1MiB", "-export=none")
    refused(*common, "-create=never", says=["vol.bin"])
    assert not os.path.exists("vol.bin")
    with Daemon("-dev-type=file", "-store-size=1MiB", "-create=only"):
        pass
    refused(*common, "-create=only", says=["vol.bin"])
    with Daemon("-dev-type=file", "-create=never"):
        pass
    refused("-create=never", "-export=none", says=["-create=never", "mem"])


def test_store_dir_is_where_the_file_is():
    os.mkdir("d")
    with Daemon("-dev-type=file", "-store-dir=d", "-store-size=1MiB"):
        assert os.path.exists("d/vol.bin")


def test_a_second_daemon_is_refused_and_told_whose_it_is():
    with Daemon("-dev-type=file", "-store-size=1MiB") as daemon:
        refused("-dev-type=file", "-store-name=vol", "-export=none",
                says=["vol.bin", "in use", str(daemon.process.pid)])
        qemu_io(daemon, "read 0 4k")


def test_read_only_refuses_writes_and_changes_nothing():
    with Daemon("-dev-type=file", "-store-size=1MiB"):
        pass
    before = os.stat("vol.bin").st_mtime_ns
    with Daemon("-dev-type=file", "-read-only") as daemon:
        same(nbdinfo(daemon.uri())["exports"][0]["is_read_only"], True, "is_read_only")
        assert "read-only" in daemon.log()
        qemu_io(daemon, "write 0 4k", ok=False)
    same(os.stat("vol.bin").st_mtime_ns, before, "mtime")
    refused("-dev-type=file", "-store-name=none", "-read-only", "-export=none", says=["none.bin"])


def test_block_size_is_said_and_shapes_an_existing_file():
    with open("vol.bin", "wb") as file:
        file.truncate(10_000)
    with Daemon("-dev-type=file") as daemon:
        same(size_of(daemon), 8192, "an odd tail is not shown")
        assert "warning" in daemon.log() and "blocks of 4096" in daemon.log()
    with Daemon("-dev-type=file", "-block-size=512") as daemon:
        same(size_of(daemon), 9728, "with smaller blocks less of it is lost")
        assert "blocks of 512" in daemon.log()
        same(nbdinfo(daemon.uri())["exports"][0]["block_size_minimum"], 1, "clients' minimum")


def test_direct_io_is_used_where_asked():
    with Daemon("-dev-type=file", "-store-size=1MiB"):
        pass
    probe = subprocess.run(
        ["dd", "if=vol.bin", "of=/dev/null", "iflag=direct", "bs=4096", "count=1"],
        capture_output=True, check=False)
    if probe.returncode != 0:
        refused("-dev-type=file", "-store-name=vol", "-file-direct", "-export=none",
                says=["O_DIRECT"])
        return
    with Daemon("-dev-type=file", "-file-direct") as daemon:
        assert "direct" in daemon.log()
        flags = []
        for number in os.listdir(f"/proc/{daemon.process.pid}/fd"):
            target = os.readlink(f"/proc/{daemon.process.pid}/fd/{number}")
            if target.endswith("vol.bin"):
                with open(f"/proc/{daemon.process.pid}/fdinfo/{number}", encoding="utf-8") as info:
                    flags += [int(line.split()[1], 8) for line in info if line.startswith("flags")]
        assert flags and all(flag & os.O_DIRECT for flag in flags), flags
        qemu_io(daemon, "write -P 3 1 4096", "read -P 3 1 4096")


def test_memory_does_not_outlive_the_daemon():
    with Daemon("-store-size=1MiB") as daemon:
        qemu_io(daemon, "write -P 9 0 4k", "read -P 9 0 4k")
    with Daemon("-store-size=1MiB") as daemon:
        qemu_io(daemon, "read -P 0 0 4k")


def test_layers_lie_over_the_device():
    with Daemon("-store-size=1MiB", "-layer=readonly") as daemon:
        same(nbdinfo(daemon.uri())["exports"][0]["is_read_only"], True, "readonly layer")
    with Daemon("-store-size=1MiB", "-layer=fault:op=write,error=ENOSPC", "-layer=stats") as daemon:
        assert "No space left" in qemu_io(daemon, "write 0 4k", ok=False)
        qemu_io(daemon, "read 0 4k")
        assert "layers fault:op=write,error=ENOSPC, stats" in daemon.log()


def test_a_copy_comes_back_as_it_was():
    with open("in", "wb") as file:
        file.write(os.urandom(MIB))
    with Daemon("-dev-type=file", "-store-size=1MiB") as daemon:
        run("nbdcopy", "--flush", "in", daemon.uri())
    with open("in", "rb") as one, open("vol.bin", "rb") as other:
        assert one.read() == other.read()


main(globals())
