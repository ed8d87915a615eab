#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What nbdinfo, nbd-client and qemu-img are told of an export, and that a file's holes are told as
# they are.
# Timeout: 120

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, nbdinfo, need, run, same  # noqa: E402

need("usbdsrvd", "nbdinfo", "nbd-client", "qemu-img")
MIB = 1 << 20


def capabilities(uri):
    export = nbdinfo(uri)["exports"][0]
    return {key: value for key, value in export.items() if key.startswith(("can_", "is_"))}


def test_nbdinfo_sees_every_capability_of_mem():
    with Daemon("-dev-type=mem", "-store-size=64MiB") as daemon:
        info = nbdinfo(daemon.uri())
        same(info["protocol"], "newstyle-fixed", "protocol")
        same(info["structured"], True, "structured replies")
        export = info["exports"][0]
        same(export["export-size"], 64 * MIB, "size")
        same(export["contexts"], ["base:allocation"], "contexts")
        same(export["block_size_minimum"], 1, "minimum block size")
        same(export["block_size_preferred"], 4096, "preferred block size")
        same(export["block_size_maximum"], 32 * MIB, "maximum payload")
        same(capabilities(daemon.uri()),
             {"is_rotational": False, "is_read_only": False, "can_cache": True, "can_df": True,
              "can_fast_zero": True, "can_flush": True, "can_fua": True, "can_multi_conn": True,
              "can_trim": True, "can_zero": True}, "capabilities")


def test_nbdinfo_sees_that_a_read_only_export_changes_nothing():
    with Daemon("-dev-type=mem", "-store-size=1MiB", "-read-only") as daemon:
        seen = capabilities(daemon.uri())
        same(seen["is_read_only"], True, "read only")
        for name in ("can_trim", "can_zero", "can_fast_zero"):
            same(seen[name], False, name)
        for name in ("can_flush", "can_multi_conn", "can_cache", "can_df"):
            same(seen[name], True, name)


def test_clients_list_the_export_by_its_name():
    with Daemon("-dev-type=mem", "-store-size=1MiB", "-export=tcp:127.0.0.1:0") as daemon:
        names = [e["export-name"] for e in nbdinfo("--list", daemon.uri())["exports"]]
        same(names, ["vol"], "names seen by nbdinfo")
        same(nbdinfo(daemon.uri("vol"))["exports"][0]["export-size"], MIB, "size by name")
        port = re.search(r"nbd://127\.0\.0\.1:(\d+)/", daemon.log()).group(1)
        assert "vol" in run("nbd-client", "-l", "127.0.0.1", port)


def test_an_unknown_export_is_refused_with_its_name():
    with Daemon("-dev-type=mem", "-store-size=1MiB") as daemon:
        done = subprocess.run(["nbdinfo", daemon.uri("nobody")], capture_output=True, text=True,
                              check=False)
        assert done.returncode != 0
        assert "nobody" in done.stderr, done.stderr
        nbdinfo(daemon.uri())


def test_the_uri_in_the_log_can_be_pasted():
    with Daemon("-dev-type=mem", "-store-size=1MiB", "-export=tcp:127.0.0.1:0") as daemon:
        uris = set(re.findall(r"nbd(?:\+unix)?://[^\s\"']+", daemon.log()))
        same(len(uris), 2, f"URIs in the log {uris}")
        for uri in uris:
            same(run("nbdinfo", "--size", uri).strip(), str(MIB), uri)


def holes_of(path):
    """The file's runs as [offset, length, is_hole], from the filesystem itself."""
    runs = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            try:
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                data = size
            if data > at:
                runs.append([at, data - at, True])
            if data < size:
                hole = os.lseek(file.fileno(), data, os.SEEK_HOLE)
                runs.append([data, hole - data, False])
                data = hole
            at = data
    return runs


def map_of(uri):
    """The same as nbdinfo --map tells it; neighbours of one kind are joined."""
    runs = []
    for extent in nbdinfo("--map", uri):
        is_hole = extent["type"] == 3
        assert is_hole or extent["type"] == 0, extent
        if runs and runs[-1][2] == is_hole:
            runs[-1][1] += extent["length"]
        else:
            runs.append([extent["offset"], extent["length"], is_hole])
    return runs


def test_nbdinfo_map_agrees_with_the_holes_of_the_file():
    with open("vol.bin", "wb") as file:
        file.truncate(256 * MIB)
        for offset, length in ((3 * MIB, 2 * MIB), (10000 * 4096, 4096), (100 * MIB, 12345),
                               (256 * MIB - 4096, 4096)):
            file.seek(offset)
            file.write(os.urandom(length))
        for block in range(4000):  # more runs than one reply carries
            file.seek(120 * MIB + block * 8192)
            file.write(b"x")
    before = holes_of("vol.bin")
    assert len(before) > 4000, f"this filesystem has no holes: {len(before)} runs"
    with Daemon("-dev-type=file", "-store-dir=.") as daemon:
        same(map_of(daemon.uri()), before, "map at first")
        run("qemu-io", "-f", "raw", daemon.uri(), "-c", "discard 4M 512k",
            "-c", "write -P 7 50M 64k", "-c", "write -z -u 100M 64k", "-c", "flush")
        after = holes_of("vol.bin")
        assert after != before
        same(map_of(daemon.uri()), after, "map after discard, write and zeroing")
        qemu = run("qemu-img", "map", "-f", "raw", "--output=json", daemon.uri())
        assert '"data": false' in qemu and '"data": true' in qemu


main(globals())
