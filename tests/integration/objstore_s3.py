#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd with an objstore volume in Ceph's S3 gateway, with default flags where they matter: made,
# stopped, opened elsewhere, killed under load, and an outage of the gateway. The gateway is at
# 127.0.0.1:9000, where -objstore-cfg looks by default, if that port is free. USBD_KILLS and
# USBD_SEED as in objstore_local.py.
# Timeout: 280
# Labels: store

import json
import os
import random
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, same, skip  # noqa: E402

need("usbdsrvd")
try:
    import nbd  # noqa: F401
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_lib import Load, Model, daemon, pattern, read_all, write_all  # noqa: E402

SERVER = os.path.join(os.environ["USBD_SOURCE_DIR"], "tests/store/servers/ceph")
KILLS = int(os.environ.get("USBD_KILLS", "10"))
SEED = int(os.environ.get("USBD_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SMALL = ("-objstore-journalsize=8MiB", "-objstore-objsize=1MiB", "-objstore-flushevery=200ms")
TOP = os.getcwd()
PORT = 0


def is_free(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def server(*words):
    done = subprocess.run([SERVER, words[0], os.path.join(TOP, "ceph"), *words[1:]],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          timeout=200, check=False)
    if done.returncode == 77:
        print(done.stdout, end="")
        sys.exit(77)
    return done.returncode


def start_server():
    """Returns the gateway's port."""
    ports = [9000] if is_free(9000) and is_free(9001) else []
    ports += [first for first in random.sample(range(20000, 32000), 20)
              if is_free(first) and is_free(first + 1)]
    for port in ports[:3]:
        if server("up", str(port)) == 0:
            return port
    raise AssertionError("the gateway does not start")


def store(*options):
    if PORT == 9000:
        return options
    config = {"access_key_id": "minioadmin", "secret_key": "minioadmin",
              "endpoint": f"http://127.0.0.1:{PORT}"}
    return (f"-objstore-cfg={json.dumps(config)}", *options)


def stopped(one, status=0):
    same(one.stop(), status, f"exit status; its log:\n{one.log()}")


def test_what_was_written_is_there_again_here_and_elsewhere():
    size = 40 << 20
    image = pattern(size, 1)
    with daemon(*store("-store-size=40MiB"), container="first-bucket") as one:
        write_all(one, image)
        stopped(one)
        assert "minioadmin" not in one.log().replace('access_key_id="minioadmin"', ""), one.log()
    with daemon(*store(), container="first-bucket") as one:
        assert read_all(one) == image, "after a restart"
        stopped(one)
    os.makedirs("other")
    shutil.copy2("d/key.aes", "other/key.aes")
    with daemon(*store(), container="first-bucket", folder="other") as one:
        assert read_all(one) == image, "in an empty directory"
        stopped(one)


def test_killed_under_load_it_keeps_what_was_flushed():
    rng = random.Random(SEED)
    blocks = 2048
    model = Model(blocks)
    options = store(f"-store-size={blocks * 4096}", *SMALL)
    lost = 0
    for _ in range(KILLS):
        with daemon(*options, container="kills") as one:
            lost += model.check(read_all(one), disk_kept=True)
            load = Load(model, one.uri(), rng)
            load.run_and_kill(one.process, rng.uniform(0.05, 1.5))
            load.close()
    with daemon(*options, container="kills") as one:
        lost += model.check(read_all(one), disk_kept=True)
        stopped(one)
    print(f"seed {SEED}: {KILLS} kills, {model.writes} writes, {model.flushes} flushes, "
          f"{lost} writes after the prefix")


def test_an_outage_delays_nothing_but_the_store():
    rng = random.Random(SEED + 1)
    blocks = 1024
    model = Model(blocks)
    options = store(f"-store-size={blocks * 4096}", "-objstore-flushevery=200ms")
    with daemon(*options, container="outage") as one:
        load = Load(model, one.uri(), rng)
        load.run(2)
        same(server("gateway-down"), 0, "the gateway ends")
        writes, flushes = model.writes, model.flushes
        load.run(8)
        assert not load.broken, f"an error reached the client:\n{one.log()}"
        done = (model.writes - writes, model.flushes - flushes)
        assert done[0] > 100 and done[1] > 5, f"it waited: {done}\n{one.log()}"
        same(server("gateway-up"), 0, "the gateway is back")
        load.run(3)
        assert not load.broken, f"an error reached the client:\n{one.log()}"
        load.close()
        image = read_all(one)
        model.check(image, disk_kept=True)
        stopped(one)
    os.makedirs("other")
    shutil.copy2("d/key.aes", "other/key.aes")
    with daemon(*options, container="outage", folder="other") as one:
        assert read_all(one) == image, "it has caught up"
        stopped(one)


if __name__ == "__main__":
    try:
        PORT = start_server()
        print(f"radosgw at 127.0.0.1:{PORT}")
        main(globals())
    finally:
        server("down")
