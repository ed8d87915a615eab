#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Where usbdsrvd serves: unix and TCP sockets, several places at once, -export=auto on a machine
# without a kernel driver, stale and live sockets, who may connect, and the URIs it prints.
# Timeout: 120

import os
import re
import shutil
import socket
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, nbdinfo, need, run, same, wait_for  # noqa: E402

need("usbdsrvd", "nbdinfo")
MIB = 1 << 20


def kernel_has_nbd():
    if os.path.exists("/sys/module/nbd"):
        return True
    modprobe = shutil.which("modprobe", path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    if modprobe is None:
        return False
    return subprocess.run([modprobe, "-n", "nbd"], capture_output=True, check=False).returncode == 0


class Plain:
    """A usbdsrvd with exactly these flags, ready when made."""

    def __init__(self, *words):
        with open("plain.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(["usbdsrvd", "-pidfile=plain.pid", *words],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(30, f"usbdsrvd is ready: {words}", self._ready)

    def _ready(self):
        assert self.process.poll() is None, f"usbdsrvd ended at once:\n{self.log()}"
        return os.path.exists("plain.pid")

    def log(self):
        with open("plain.log", encoding="utf-8") as file:
            return file.read()

    def uris(self):
        return re.findall(r'is processing requests for "(nbd[^"]*)"', self.log())

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.process.terminate()
        status = self.process.wait(timeout=60)
        if kind is None:
            same(status, 0, f"exit status; log:\n{self.log()}")
        else:
            print(self.log())


def refused(*words, says=()):
    done = subprocess.run(["usbdsrvd", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, check=False)
    same(done.returncode, 1, f"exit status of {words}: {done.stderr}")
    for part in says:
        assert part in done.stderr, f"{words}: {part!r} is not in {done.stderr!r}"


def size_at(uri):
    return nbdinfo(uri)["exports"][0]["export-size"]


def test_auto_serves_a_unix_socket_where_there_is_no_driver():
    if kernel_has_nbd():
        print("     skipped: this machine has a kernel nbd driver")
        return
    os.mkdir("d")
    with Plain("-store-dir=d", "-store-name=vol", "-store-size=1MiB") as daemon:
        path = os.path.abspath("d/vol.sock")
        same(daemon.uris(), [f"nbd+unix:///vol?socket={path}"], "URIs")
        same(size_at(daemon.uris()[0]), MIB, "size")
        log = daemon.log()
        for part in ("-export=auto: no kernel nbd device", "no ublk", "unix socket instead",
                     "connect with: nbdinfo", "nbd-client -unix"):
            assert part in log, f"{part!r} is not in the log:\n{log}"
        assert re.search(r"warning: -export=auto: no kernel nbd device \(.*nbd module", log), log
    assert not os.path.exists("d/vol.sock")


def test_nbd_without_a_driver_is_an_error_with_advice():
    if kernel_has_nbd():
        print("     skipped: this machine has a kernel nbd driver")
        return
    for words in (["-export=nbd"], ["/dev/nbd5"], ["-export=nbd", "-export=unix:s"],
                  ["-export=nbd", "-nbd-driver=ioctl"], ["-export=nbd", "-nbd-driver=netlink"]):
        refused(*words, says=["could not be started", "nbd module"])
    assert not os.path.exists("s")


def test_several_places_serve_the_same_volume():
    with Plain("-store-size=1MiB", "-export=unix:a", "-export=unix:b",
               "-export=tcp:127.0.0.1:0") as daemon:
        uris = daemon.uris()
        same(len(uris), 3, "places")
        for uri in uris:
            same(size_at(uri), MIB, uri)
        with open("in", "wb") as file:
            file.write(os.urandom(MIB))
        run("nbdcopy", "in", uris[0])
        run("nbdcopy", uris[2], "out")
        with open("in", "rb") as one, open("out", "rb") as other:
            assert one.read() == other.read()


def test_uris_can_be_pasted_whatever_the_names():
    with Plain("-store-size=1MiB", "-store-name=a b&c", "-export=unix:x y%z?.sock") as daemon:
        same(size_at(daemon.uris()[0]), MIB, daemon.uris()[0])
        command = re.search(r"connect with: (nbdinfo .*); or as root", daemon.log()).group(1)
        assert "1048576" in run("sh", "-c", command)


def test_sockets_are_their_owners_only():
    old = os.umask(0)
    try:
        with Plain("-export=unix:s"):
            mode = os.stat("s").st_mode
            assert stat.S_ISSOCK(mode)
            same(mode & 0o777, 0o600, "mode")
    finally:
        os.umask(old)
    assert not os.path.exists("s"), "the socket is left behind"


def test_a_stale_socket_is_replaced():
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("s")
        dead.listen()
    assert os.path.exists("s")
    with Plain("-export=unix:s", "-store-size=1MiB") as daemon:
        same(size_at(daemon.uris()[0]), MIB, "size")


def test_a_live_socket_is_an_error_and_stays():
    with Daemon("-store-size=1MiB") as daemon:
        refused(f"-export=unix:{daemon.socket}", says=["could not be started", daemon.socket])
        same(size_at(daemon.uri()), MIB, "the first daemon's volume")
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind("foreign")
        foreign.listen()
        refused("-export=unix:foreign", says=["foreign"])
        assert os.path.exists("foreign")


def test_what_is_no_socket_is_never_replaced():
    with open("precious", "w", encoding="utf-8") as file:
        file.write("data")
    refused("-export=unix:precious", says=["precious"])
    with open("precious", encoding="utf-8") as file:
        same(file.read(), "data", "contents")
    refused("-export=unix:missing/s", says=["missing/s"])


def test_tcp_is_for_loopback_unless_told_otherwise():
    refused("-export=tcp:0.0.0.0:0", says=["-insecure-tcp"])
    with Plain("-export=tcp:0.0.0.0:0", "-insecure-tcp", "-store-size=1MiB") as daemon:
        port = re.search(r"nbd://[^:]*:(\d+)/", daemon.uris()[0]).group(1)
        same(size_at(f"nbd://127.0.0.1:{port}"), MIB, "size")
    with Plain("-export=tcp:localhost:0", "-store-size=1MiB") as daemon:
        for uri in daemon.uris():
            same(size_at(uri), MIB, uri)


def test_ipv6_loopback_is_served_and_its_uri_can_be_pasted():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        print(f"     skipped: machine: no IPv6 loopback ({error})")
        return
    with Plain("-export=tcp:[::1]:0", "-store-size=1MiB", "-store-name=six") as daemon:
        uri = daemon.uris()[0]
        port = re.fullmatch(r"nbd://\[::1\]:(\d+)/six", uri).group(1)
        same(size_at(uri), MIB, uri)
        same(run("nbdcopy", uri, "out"), "", "what a copy says")
        same(os.path.getsize("out"), MIB, "bytes copied")
        with socket.create_connection(("::1", int(port)), timeout=30) as client:
            same(client.recv(8), b"NBDMAGIC", "greeting")
        refused(f"-export=tcp:[::1]:{port}", says=[f"tcp:[::1]:{port}", "in use"])
    refused("-export=tcp:[::]:0", says=["-insecure-tcp"])
    with Plain("-export=tcp:[::]:0", "-insecure-tcp", "-store-size=1MiB") as daemon:
        port = re.search(r":(\d+)/", daemon.uris()[0]).group(1)
        same(size_at(f"nbd://[::1]:{port}"), MIB, "size")
        with socket.socket() as v4:  # the same port of IPv4 belongs to nobody
            assert v4.connect_ex(("127.0.0.1", int(port))) != 0, "[::] is served on IPv4 too"


def test_a_port_in_use_is_an_error():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(f"-export=tcp:127.0.0.1:{port}", says=[f"127.0.0.1:{port}", "in use"])


def test_none_serves_nobody():
    with Plain("-export=none") as daemon:
        same(daemon.uris(), [], "URIs")
        assert "nobody is served" in daemon.log()


def test_connections_are_limited():
    with Daemon("-max-connections=2", "-store-size=1MiB") as daemon:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        greetings = []
        for client in clients:
            client.connect(daemon.socket)
            client.settimeout(20)
            greetings.append(client.recv(8))
        for client in clients:
            client.close()
        same(greetings, [b"NBDMAGIC", b"NBDMAGIC", b""], "what each client sees first")
        wait_for(20, "a place is free again", lambda: "turned away" in daemon.log())


main(globals())
