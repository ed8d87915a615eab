#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd and the kernel's nbd driver, in a virtual machine: which device is taken, what the flags
# of a kernel device do, and how it is let go: released, held, hurried, disconnected by others.
# Outside, this script starts the machine with itself inside.
# Timeout: 300
# Labels: vm

import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, run, same, skip, wait_for  # noqa: E402

INSIDE = "USBD_TEST_INSIDE_VM"
MIB = 1 << 20


def start_machine():
    """Runs this script in the machine and ends as it did."""
    need("usbdsrvd", "qemu-system-x86_64", "nbd-client", "mkfs.ext4")
    program = os.path.join(os.environ["USBD_SOURCE_DIR"], "scripts", "vm")
    words = [program, os.path.abspath(__file__), *sys.argv[1:]]
    status = subprocess.run(words, env={**os.environ, INSIDE: "1"}, check=False).returncode
    if status == 125:
        skip("machine: no virtual machine could be started (see above)")
    sys.exit(status)


class Node:
    """A usbdsrvd that serves a kernel device, ready when made."""

    def __init__(self, *words):
        with open("log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(["usbdsrvd", "-pidfile=pid", *words],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(60, f"usbdsrvd is ready: {words}", self._ready)
        self.path = re.search(r'processing requests for "(/dev/nbd\d+)"', self.log()).group(1)
        self.sysfs = f"/sys/block/{os.path.basename(self.path)}"

    def _ready(self):
        assert self.process.poll() is None, f"usbdsrvd ended at once:\n{self.log()}"
        return os.path.exists("pid")

    def log(self):
        with open("log", encoding="utf-8") as file:
            return file.read()

    def sysfs_value(self, name):
        with open(f"{self.sysfs}/{name}", encoding="utf-8") as file:
            return file.read().strip()

    def sockets(self):
        folder = f"/proc/{self.process.pid}/fd"
        return sum(os.readlink(f"{folder}/{fd}").startswith("socket:") for fd in os.listdir(folder))

    def connected(self):
        return os.path.exists(f"{self.sysfs}/pid")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds=60):
        status = self.process.wait(timeout=seconds)
        assert self.log().splitlines()[-1].endswith("terminated normally"), self.log()
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(self.log())
        if self.process.poll() is None:
            self.terminate()
            same(self.ended(), 0, f"exit status; log:\n{self.log()}")


def refused(*words, says=()):
    done = subprocess.run(["usbdsrvd", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60, check=False)
    same(done.returncode, 1, f"exit status of {words}: {done.stderr}")
    for part in says:
        assert part in done.stderr, f"{words}: {part!r} is not in {done.stderr!r}"


def mounted(node):
    """Makes a file system on the device and mounts it at "mnt"."""
    run("mkfs.ext4", "-q", "-F", node.path)
    os.makedirs("mnt", exist_ok=True)
    run("mount", node.path, "mnt")


def test_0_the_module_is_loaded_with_as_many_devices_as_asked():
    assert not os.path.exists("/sys/module/nbd"), "the module is loaded already"
    with Node("-nbd-max-devs=7", "-store-size=16MiB") as node:
        same(node.path, "/dev/nbd0", "the first free device")
        with open("/sys/module/nbd/parameters/nbds_max", encoding="utf-8") as file:
            same(int(file.read()), 7, "nbds_max")
        for part in ("as the first free kernel device (auto)", "mkfs.ext4 /dev/nbd0"):
            assert part in node.log(), node.log()
        node.terminate()
        same(node.ended(), 0, "exit status")
        assert not node.connected() and os.path.exists(node.path)


def test_a_named_device_is_taken_or_refused():
    with Node("-store-size=16MiB", "/dev/nbd5") as node:
        same(node.path, "/dev/nbd5", "device")
        refused("/dev/nbd5", "-export=nbd", says=["/dev/nbd5", "in use"])
        assert node.connected()
        run("dd", f"if={node.path}", "of=/dev/null", "bs=1M", "count=16", "iflag=direct")


def test_sizes_and_timeouts_reach_the_kernel():
    with Node("-store-size=16MiB", "-block-size=512", "-nbd-timeout=7s", "-read-only") as node:
        same(int(node.sysfs_value("size")) * 512, 16 * MIB, "size")
        same(node.sysfs_value("queue/logical_block_size"), "512", "logical block size")
        same(node.sysfs_value("queue/io_timeout"), "7000", "timeout")
        same(node.sysfs_value("ro"), "1", "read only")
    with Node("-store-size=16MiB") as node:
        same(node.sysfs_value("queue/logical_block_size"), "4096", "logical block size")
        same(node.sysfs_value("queue/io_timeout"), "60000", "timeout")
        same(node.sysfs_value("ro"), "0", "read only")


def test_connections_are_as_many_as_asked():
    counts = []
    for number in (1, 2, 4):
        with Node("-store-size=16MiB", f"-connections={number}") as node:
            counts.append(node.sockets())
    same(counts[2] - counts[1], 2 * (counts[1] - counts[0]), f"growth of {counts}")
    assert counts[1] > counts[0], counts


def test_a_device_and_a_socket_serve_the_same_volume():
    with Node("-store-size=16MiB", "-export=nbd", "-export=unix:s") as node:
        with open(node.path, "r+b") as device:
            device.write(b"x" * 4096)
            device.flush()
            os.fsync(device.fileno())
        run("nbdcopy", "nbd+unix:///?socket=s", "copy")
        with open("copy", "rb") as copy:
            same(copy.read(4096), b"x" * 4096, "what was written to the device")


def test_the_old_driver_serves_too():
    with Node("-store-size=64MiB", "-export=nbd", "-nbd-driver=ioctl") as node:
        assert "by ioctl" in node.log()
        mounted(node)
        run("umount", "mnt")
    assert not node.connected()


def test_a_held_device_is_synced_and_waited_for():
    with Node("-store-size=64MiB", "-stop-timeout=60s") as node:
        mounted(node)
        with open("mnt/file", "wb") as file:
            file.write(os.urandom(MIB))
        node.terminate()
        wait_for(30, "the log names the holder", lambda: "mounted on" in node.log())
        time.sleep(1)
        same(node.process.poll(), None, "waits")
        with open("mnt/more", "wb") as file:  # served until the end
            file.write(b"more")
            os.fsync(file.fileno())
        run("umount", "mnt")
        same(node.ended(), 0, "exit status")
        assert not node.connected()
        assert "left waiting" not in node.log()


def test_a_device_held_too_long_is_left_waiting():
    with Node("-dev-type=file", "-store-size=64MiB", "-stop-timeout=1s",
              "-nbd-dead-timeout=1s") as node:
        mounted(node)
        node.terminate()
        same(node.ended(), 0, "exit status")
        log = node.log()
        for part in ("mounted on", "left waiting", f"nbd-client -d {node.path}"):
            assert part in log, log
        assert node.connected(), "disconnected under its file system"
        assert os.path.ismount("mnt")
        subprocess.run(["umount", "-l", "mnt"], check=False, capture_output=True, timeout=60)
        run("nbd-client", "-d", node.path)
        wait_for(60, "the device is free", lambda: not node.connected())


def test_a_second_signal_ends_the_wait():
    with Node("-store-size=64MiB", "-stop-timeout=10m", "-nbd-dead-timeout=1s") as node:
        mounted(node)
        node.terminate()
        wait_for(30, "it waits", lambda: "waiting up to 10m" in node.log())
        time.sleep(0.5)
        node.terminate()
        same(node.ended(30), 0, "exit status")
        assert "hurrying" in node.log() and "left waiting" in node.log()
        subprocess.run(["umount", "-l", "mnt"], check=False, capture_output=True, timeout=60)
        run("nbd-client", "-d", node.path)
        wait_for(60, "the device is free", lambda: not node.connected())


def test_a_device_that_stalls_under_a_file_system_does_not_keep_the_daemon():
    began = time.monotonic()
    with Node("-store-size=64MiB", "-stop-timeout=2s", "-close-timeout=2s",
              "-layer=delay:all=stall,after=20s,for=1h") as node:
        mounted(node)
        with open("mnt/file", "wb") as file:
            file.write(os.urandom(MIB))
        while time.monotonic() < began + 22:
            time.sleep(0.5)
        writer = subprocess.Popen(["dd", "if=/dev/zero", "of=mnt/file", "bs=64k", "count=16",
                                   "conv=notrunc,fsync"], stderr=subprocess.DEVNULL)
        time.sleep(2)
        same(writer.poll(), None, "the device does not stall: the writer")
        node.terminate()
        same(node.process.wait(timeout=40), 1, f"exit status; log:\n{node.log()}")
        log = node.log()
        for part in (f"syncing {node.path} has not ended in time", "left waiting",
                     f"nbd-client -d {node.path}", "has not stopped in time",
                     "the device has not answered"):
            assert part in log, f"{part!r} is not in the log:\n{log}"
        assert node.connected(), "disconnected under its file system"
        run("nbd-client", "-d", node.path)
        subprocess.run(["umount", "-l", "mnt"], check=False, capture_output=True, timeout=60)
        writer.wait(timeout=60)
        wait_for(60, "the device is free", lambda: not node.connected())


def test_a_device_that_someone_disconnects_ends_the_daemon():
    with Node("-store-size=16MiB") as node:
        run("nbd-client", "-d", node.path)
        same(node.ended(), 0, "exit status")
        assert "kernel device is gone" in node.log()


if INSIDE not in os.environ:
    start_machine()
os.environ["PATH"] = f"{os.environ['USBD_BIN_DIR']}:{os.environ['PATH']}:/usr/sbin:/sbin"
main(globals())
