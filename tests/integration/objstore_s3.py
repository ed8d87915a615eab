#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd with an objstore volume in Ceph's S3 gateway, with default flags where they matter: made,
# stopped, opened elsewhere, killed under load, and an outage of the gateway. The gateway is at
# 127.0.0.1:9000, where -objstore-cfg looks by default, if that port is free. USBD_KILLS and
# USBD_SEED as in objstore_kills.py.
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
from lib import main, need, same, skip, wait_for  # noqa: E402

need("usbdsrvd", "usbdctl")
try:
    import nbd  # noqa: F401
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_kill_lib import KILLS as ENDS, Rounds, count, seed  # noqa: E402
from objstore_lib import Load, Model, daemon, pattern, read_all, write_all  # noqa: E402

SERVER = os.path.join(os.environ["USBD_SOURCE_DIR"], "tests/store/servers/ceph")
KILLS = count("USBD_KILLS", 10)
SEED = seed()
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


def kills(number, mode):
    Rounds(store(), SEED + number, mode=mode, container=f"kills-{mode}").run(KILLS // 2, ENDS)


def test_killed_under_load_it_keeps_what_was_flushed():
    kills(1, "local")


def test_killed_under_load_in_remote_mode_it_keeps_what_was_flushed():
    kills(2, "remote")


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


def ctl(command, *options, status=0, folder="d"):
    done = subprocess.run(
        ["usbdctl", "volume", command, *store(), "-objstore-container=looked-at",
         f"-store-dir={folder}", "-store-name=vol", "--json", *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    same(done.returncode, status, f"exit status of {command}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if done.stdout else done.stderr


def test_usbdctl_looks_at_a_volume():
    size = 24 << 20
    os.makedirs("d")
    ctl("show", status=1)
    with daemon(*store(f"-store-size={size}"), *SMALL, container="looked-at") as one:
        write_all(one, pattern(size, 3))
        shown = ctl("show")
        same(shown["local"]["journals"][0]["held_by"], f"process {one.process.pid}", "holder")
        wait_for(30, "all is published", lambda: ctl("show")["space"]["mapped_bytes"] == size)
        same(ctl("check")["verdict"], "sound", "beside its daemon")
        stopped(one)
    shown = ctl("show")
    same((shown["size_bytes"], shown["head"]["clean"]), (size, True), "show")
    listed = ctl("list-objects")["objects"]
    same({one["state"] for one in listed}, {"in-use"}, "states")
    data = [one for one in listed if one["kind"] == "data"]
    same(shown["bucket"]["data"]["objects"], len(data), "data objects")
    same(sum(one["live_blocks"] for one in data), size // 4096, "live blocks")
    found = ctl("check")
    same((found["verdict"], found["damage"]), ("sound", []), "check")
    # From anywhere, with the key and without.
    os.makedirs("other")
    same(ctl("show", folder="other")["key"]["state"], "missing", "key")
    shutil.copy2("d/key.aes", "other/key.aes")
    same(ctl("check", folder="other")["verdict"], "sound", "check from elsewhere")
    lost = data[len(data) // 2]
    subprocess.run(["radosgw-admin", "-c", os.path.join(TOP, "ceph/ceph.conf"), "object", "rm",
                    "--bucket=looked-at", f"--object={lost['name']}"], check=True,
                   stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    found = ctl("check", status=3)
    same([one["object"] for one in found["damage"]], [lost["name"]], "findings")
    same(found["damage"][0]["damaged_bytes"], lost["live_blocks"] * 4096, "damaged bytes")
    states = {one["name"]: one["state"] for one in ctl("list-objects")["objects"]}
    same(states[lost["name"]], "missing", "state")


if __name__ == "__main__":
    try:
        PORT = start_server()
        print(f"radosgw at 127.0.0.1:{PORT}")
        main(globals())
    finally:
        server("down")
