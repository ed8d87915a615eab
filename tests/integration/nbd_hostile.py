#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Clients that misbehave, many at a time, beside one that verifies what it writes: it must not
# notice, and the daemon's memory stays bounded. Some break the protocol; others ask for nothing
# wrong, but read no answer or stop in the middle. Malformed input comes from a printed seed.
# Timeout: 400
# Serial: yes

import os
import random
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, need, wait_for  # noqa: E402

need("usbdsrvd")
MIB = 1 << 20
MEMORY_MAX = 256 * MIB
VOLUME = 64 * MIB
# The verifying client has what is below this to itself.
OURS = 24 * MIB
# What the verifying client's requests are about as long as: the shortest is served whatever others
# hold, the longer ones need buffers that all share.
SIZES = (4096, 256 << 10, 4 * MIB)
# Of one request. Who holds up others may do so for 3 s, so that a client which only pauses is not
# closed; the rest is for other tests that share the machine.
LATENCY_MAX = 5.0
SEED = int(os.environ.get("USBD_SEED", random.randrange(1 << 32)))

OPTION = b"IHAVEOPT"
GREETING = b"NBDMAGIC" + OPTION + struct.pack(">H", 3)
READ, WRITE, FLUSH, TRIM, CACHE, ZERO, STATUS = 0, 1, 3, 4, 5, 6, 7
LENGTHS = (512, 4096, 65536, MIB, 32 * MIB)
HOLDERS = 1000


def option(number, data=b"", length=None):
    return OPTION + struct.pack(">LL", number, len(data) if length is None else length) + data


def go(name=b"", infos=()):
    return option(7, struct.pack(">L", len(name)) + name +
                  struct.pack(f">H{len(infos)}H", len(infos), *infos))


def request(command, offset, length, flags=0, cookie=1):
    return struct.pack(">LHHQQL", 0x25609513, flags, command, cookie, offset, length)


class Raw:
    """A client of bytes."""

    def __init__(self, daemon):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(daemon.socket)

    def receive(self, size):
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return bytes(data)

    def send(self, data):
        self.socket.sendall(data)

    def stuff(self, data, patience):
        """Sends `data` again and again, until nothing more has been taken for so many seconds."""
        self.socket.setblocking(False)
        last = time.monotonic()
        while time.monotonic() - last <= patience:
            try:
                if self.socket.send(data) > 0:
                    last = time.monotonic()
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                return  # closed, which is the server's right

    def enter(self, structured=False):
        """Past the handshake; with structured replies and base:allocation if asked."""
        assert self.receive(18) == GREETING
        query = b"base:allocation"
        context = struct.pack(">LLL", 0, 1, len(query)) + query
        self.send(struct.pack(">L", 3) +
                  (option(8) + option(10, context) if structured else b"") + option(1))
        # Two acknowledgements and the number of the context; the export.
        self.receive((20 + 24 + len(query) + 20 if structured else 0) + 10)
        return self

    def reply(self, cookie, size=0):
        magic, error, came = struct.unpack(">LLQ", self.receive(16))
        assert (magic, error, came) == (0x67446698, 0, cookie), (hex(magic), error, came)
        return self.receive(size)

    def close(self):
        self.socket.close()


class Verifier(threading.Thread):
    """Writes and reads back without pause; keeps the first error and the longest operations."""

    def __init__(self, daemon):
        super().__init__()
        self.client = Raw(daemon).enter()
        self.finished = threading.Event()
        self.error = None
        self.operations = 0
        self.longest = dict.fromkeys(SIZES, 0.0)

    def timed(self, size, message, cookie, reply=0):
        start = time.monotonic()
        self.client.send(message)
        data = self.client.reply(cookie, reply)
        self.longest[size] = max(self.longest[size], time.monotonic() - start)
        self.operations += 1
        return data

    def run(self):
        rng = random.Random(SEED)
        try:
            while not self.finished.is_set():
                size = SIZES[self.operations // 2 % len(SIZES)]
                offset, length = rng.randrange(OURS - size), size - rng.randrange(512)
                data = rng.randbytes(length)
                self.timed(size, request(WRITE, offset, length, cookie=7) + data, 7)
                came = self.timed(size, request(READ, offset, length, cookie=8), 8, length)
                assert came == data, "other data came back"
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def go_on(self):
        before = self.operations
        wait_for(60, "the verifying client goes on",
                 lambda: self.error or self.operations > before + 6 * len(SIZES))

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.go_on()
        self.finished.set()
        self.join()
        self.client.close()
        if kind is None:
            assert self.error is None, f"the verifying client: {self.error!r}"
            longest = ", ".join(f"{seconds * 1000:.0f} ms for {size >> 10} KiB"
                                for size, seconds in self.longest.items())
            print(f"     {self.operations} verified operations, longest {longest}")
            assert max(self.longest.values()) < LATENCY_MAX, "an operation took too long"


def peak_memory(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def beside_a_verifying_client(misbehave, device="mem"):
    """The device itself is at most all of VOLUME in memory. mem is served from its own memory; with
    file all clients share a budget of buffers, which those that misbehave must not keep. What
    `misbehave` returns is closed after the verifying client has gone on beside it."""
    with Daemon(f"-dev-type={device}", "-store-dir=.", "-store-size=64MiB") as daemon:
        with Verifier(daemon) as verifier:
            clients = misbehave(daemon) or []
            verifier.go_on()
            for client in clients:
                client.close()
        memory = peak_memory(daemon) - (VOLUME if device == "mem" else 0)
        assert memory < MEMORY_MAX, f"the daemon took {memory >> 20} MiB"
        Raw(daemon).enter().close()


def with_each_device(misbehave):
    for device in ("mem", "file"):
        os.makedirs(device)
        os.chdir(device)
        beside_a_verifying_client(lambda daemon: misbehave(daemon, device), device)
        os.chdir("..")


def with_file(misbehave):
    beside_a_verifying_client(lambda daemon: misbehave(daemon, "file"), "file")


def test_a_thousand_silent_connections():
    def misbehave(daemon):
        silent = [Raw(daemon) for _ in range(1000)]
        Raw(daemon).enter().close()
        for client in silent:
            client.close()
    beside_a_verifying_client(misbehave)


def test_a_thousand_malformed_sessions():
    rng = random.Random(SEED)

    def noise(size):
        return rng.randbytes(rng.randrange(1, size))

    def handshake():
        length = rng.choice((0, 1, 65536, 65537, MIB, 0x7fffffff, 0xffffffff))
        return rng.choice((
            noise(4096), struct.pack(">L", rng.getrandbits(32)) + noise(64),
            struct.pack(">L", 3) + option(rng.randrange(14), noise(64), length),
            struct.pack(">L", 3) + option(rng.randrange(14), noise(200)) * 50,
            struct.pack(">L", 3) + option(8) + option(10, noise(100)) + go(b"vol", (3, 1)),
            struct.pack(">L", 3) + option(3) * 2000,
            struct.pack(">L", rng.choice((0, 2))) + option(rng.randrange(12), noise(40))))

    def transmission():
        return struct.pack(">L", 3) + option(1) + b"".join(
            rng.choice((
                noise(40), request(rng.randrange(12), rng.getrandbits(64), rng.getrandbits(32)),
                request(READ, rng.randrange(1 << 27), rng.randrange(1 << 26), rng.getrandbits(6)),
                request(WRITE, VOLUME - 5, 4096) + noise(4096)))
            for _ in range(rng.randrange(1, 20)))

    def misbehave(daemon):
        for number in range(1000):
            client = Raw(daemon)
            data = transmission() if number % 2 else handshake()
            try:
                client.socket.settimeout(0.2)
                client.send(data[:rng.randrange(1, len(data) + 1)])
                if number % 3 == 0:
                    client.socket.recv(100)
            except (OSError, ConnectionError):
                pass
            client.close()
    beside_a_verifying_client(misbehave)


def do_not_read(device):
    def misbehave(daemon):
        deaf = [Raw(daemon).enter() for _ in range(32)]
        for client in deaf:
            client.socket.setblocking(False)
            try:
                for _ in range(400):
                    client.send(request(READ, 0, 32 * MIB))
            except BlockingIOError:
                pass
        time.sleep(3 * LATENCY_MAX if device == "file" else 1)
        for client in deaf:
            client.close()
    beside_a_verifying_client(misbehave, device)


def test_clients_that_do_not_read_what_they_asked_for():
    do_not_read("mem")


def test_clients_that_do_not_read_what_came_from_a_file():
    do_not_read("file")


def send_half(device):
    def misbehave(daemon):
        slow = [Raw(daemon).enter() for _ in range(64)]
        for client in slow:
            client.send(request(WRITE, 50 * MIB, 8 * MIB) + bytes(100))
        for _ in range(150 if device == "file" else 10):
            for client in slow:
                try:
                    client.send(b"x")
                except OSError:
                    pass  # closed as too slow, which is the server's right
            time.sleep(0.1)
        for client in slow:
            client.close()
    beside_a_verifying_client(misbehave, device)


def test_clients_that_send_half_a_write_and_stop():
    send_half("mem")


def test_clients_that_send_half_a_write_to_a_file_and_stop():
    send_half("file")


def test_clients_that_say_one_byte_at_a_time():
    def misbehave(daemon):
        text = struct.pack(">L", 3) + option(3) + go(b"vol", (3,))
        slow = [Raw(daemon) for _ in range(100)]
        for byte in text[:40]:
            for client in slow:
                client.send(bytes([byte]))
        for byte in text[40:]:
            slow[-1].send(bytes([byte]))
        slow[-1].send(request(READ, 0, 512, cookie=3))
        slow[-1].receive(18 + 20 + 4 + 3)  # the greeting, and the start of the list
        for client in slow:
            client.close()
    beside_a_verifying_client(misbehave)


def test_a_thousand_who_read_no_answers_of_flushes():
    def misbehave(daemon, _):
        clients = [Raw(daemon).enter() for _ in range(1000)]
        for client in clients:
            client.stuff(request(FLUSH, 0, 0) * 4096, 0.01)
        return clients
    with_each_device(misbehave)


def many_who_read_no_data(lengths):
    def misbehave(daemon, _):
        clients = [Raw(daemon).enter() for _ in range(HOLDERS)]
        for number, client in enumerate(clients):
            client.stuff(request(READ, 0, lengths[number % len(lengths)]) * 1024, 0.01)
        return clients
    return misbehave


def test_many_who_read_no_data():
    with_each_device(many_who_read_no_data(LENGTHS))


def test_many_who_read_no_large_data():
    with_file(many_who_read_no_data((32 * MIB,)))


def test_many_who_read_no_block_status():
    def misbehave(daemon, _):
        writer = Raw(daemon).enter()
        for page in range(0, 4096, 2):  # as many extents as an answer may have
            writer.send(request(WRITE, OURS + page * 4096, 4096) + b"x" * 4096)
            writer.reply(1)
        clients = [Raw(daemon).enter(structured=True) for _ in range(200)]
        for client in clients:
            client.stuff(request(STATUS, OURS, 16 * MIB) * 1024, 0.01)
        return clients + [writer]
    with_each_device(misbehave)


def many_who_stop_in_the_middle_of_a_write(lengths):
    def misbehave(daemon, _):
        clients = [Raw(daemon).enter() for _ in range(HOLDERS)]
        for number, client in enumerate(clients):
            length = lengths[number % len(lengths)]
            client.send(request(WRITE, OURS, 512) + bytes(512) +
                        request(WRITE, OURS, length) + b"x" * 100)
        time.sleep(5)  # it is the verifying client's turn
        return clients
    return misbehave


def test_many_who_stop_in_the_middle_of_a_write():
    with_each_device(many_who_stop_in_the_middle_of_a_write(LENGTHS))


def test_many_who_stop_in_the_middle_of_a_large_write():
    with_file(many_who_stop_in_the_middle_of_a_write((32 * MIB,)))


def test_many_overlapping_changes():
    def misbehave(daemon, _):
        clients = [Raw(daemon).enter() for _ in range(64)]
        for client in clients:
            client.stuff((request(WRITE, OURS + 100, 1000) + b"o" * 1000 +
                          request(TRIM, OURS, 8192) +
                          request(ZERO, OURS + 50, MIB)) * 64, 0.02)
        return clients
    with_each_device(misbehave)


def test_a_part_of_a_request_and_then_silence():
    def misbehave(daemon, _):
        clients = [Raw(daemon).enter() for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(request(WRITE, OURS, 512)[:1 + number % 28])
        return clients
    with_each_device(misbehave)


def test_connections_that_come_and_go():
    rng = random.Random(SEED)

    def misbehave(daemon, _):
        for _ in range(2000):
            client = Raw(daemon)
            if rng.random() < 0.7:
                client.send(struct.pack(">L", 3) + option(1) + request(
                    rng.choice((READ, FLUSH, CACHE, ZERO)), OURS, rng.choice((0, 512, MIB))))
            client.close()
    with_each_device(misbehave)


soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
print(f"     seed {SEED}")
main(globals())
