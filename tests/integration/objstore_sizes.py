#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd with objstore volumes of odd sizes and of many objects, opened elsewhere with nothing but
# the key; what an idle volume of 1 TiB takes of memory; and, on an S3 server (s3_served.sh), how
# many requests a sequential write makes. USBD_OBJECTS (40) of 1 MiB are the volumes, USBD_GIB (0)
# is how much is written for the count.
# Timeout: 170

import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, same, skip, wait_for  # noqa: E402

need("usbdsrvd", "usbdctl")
try:
    import nbd  # noqa: F401
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_kill_lib import count  # noqa: E402
from objstore_lib import connect, daemon  # noqa: E402
from objstore_store_lib import new_store  # noqa: E402

MIB = 1 << 20
OBJECTS = count("USBD_OBJECTS", 40)


def chunks(size):
    """The volume's content, piece by piece: no two are the same, and none can be compressed."""
    for at in range(0, size, MIB):
        yield at, random.Random(at).randbytes(min(MIB, size - at))


def survives(size, served):
    store = new_store()
    common = (*store.options(), "-objstore-objsize=1MiB")
    with daemon(*common, f"-store-size={size}", "-block-size=512",
                container=store.container) as one:
        handle = connect(one)
        same(handle.get_size(), served, "size")
        for at, data in chunks(served):
            handle.pwrite(data, at)
        handle.flush()
        handle.shutdown()
        same(one.stop(), 0, one.log())
    os.makedirs("other")
    shutil.copy2("d/key.aes", "other/key.aes")
    shutil.rmtree("d")
    began = time.monotonic()
    with daemon(*common, container=store.container, folder="other") as one:
        opened = time.monotonic() - began
        handle = connect(one)
        same(handle.get_size(), served, "size elsewhere")
        for at, data in chunks(served):
            assert handle.pread(len(data), at) == data, f"from byte {at}"
        handle.shutdown()
        same(one.stop(), 0, one.log())
    print(f"{served} bytes in objects of 1 MiB, opened elsewhere in {opened:.2f} s")


def test_a_size_that_is_no_multiple_of_anything_is_served_elsewhere():
    size = OBJECTS * MIB + 271_829
    survives(size, (size + 511) // 512 * 512)


def test_a_size_of_one_byte_less_than_its_objects_is_served_elsewhere():
    survives(OBJECTS * MIB - 1, OBJECTS * MIB)


def test_a_size_of_one_sector_less_than_its_objects_is_served_elsewhere():
    survives(OBJECTS * MIB - 512, OBJECTS * MIB - 512)


def memory_of(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS"))


def test_an_idle_volume_of_one_terabyte_takes_little_memory():
    store = new_store()
    with daemon(*store.options(), "-store-size=1TiB", "-objstore-journalsize=64MiB",
                "-objstore-flushevery=200ms", container=store.container) as one:
        handle = connect(one)
        for at in range(0, 1 << 40, 1 << 34):
            handle.pwrite(random.Random(at).randbytes(MIB), at)
        handle.flush()
        time.sleep(3)
        memory = memory_of(one.process)
        print(f"idle, 1 TiB: {memory / MIB:.1f} MiB resident")
        assert memory < 100 * MIB, memory
        handle.shutdown()
        same(one.stop(), 0, one.log())


def test_a_sequential_write_makes_few_requests():
    size = count("USBD_GIB", 0) << 30
    if not size or not os.environ.get("USBD_S3_ENDPOINT"):
        return
    store = new_store()
    with daemon(*store.options(), f"-store-size={size}", container=store.container) as one:
        requests = store.proxy.requests
        handle = connect(one)
        opening = dict(requests)
        began = time.monotonic()
        for at, data in chunks(size):
            handle.pwrite(data, at)
        handle.flush()
        written = time.monotonic() - began
        handle.shutdown()
        # The last batch closes by its age.
        seen = []

        def quiet():
            seen.append(requests["PUT"])
            time.sleep(0.2)
            return len(seen) > 75 and seen[-75] == seen[-1]
        wait_for(120, "all is published", quiet)
        puts = (requests["PUT"] - opening.get("PUT", 0)) / (size >> 30)
        same(one.stop(), 0, one.log())
        print(f"{size >> 30} GiB written in {written:.0f} s: {puts:.1f} PUT requests for each GiB; "
              f"opening {opening}, with the stop {dict(requests)}")
        assert puts <= 24, puts


if __name__ == "__main__":
    main(globals())
