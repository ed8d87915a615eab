#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd as a process: the order of its messages, log formats, pid file, readiness, signals, how
# it stops, threads, open files, locked memory.
# Timeout: 120

import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, need, same, wait_for  # noqa: E402

need("usbdsrvd", "qemu-io")


def refused(*words, says=()):
    done = subprocess.run(["usbdsrvd", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, check=False)
    same(done.returncode, 1, f"exit status of {words}: {done.stderr}")
    for part in says:
        assert part in done.stderr, f"{words}: {part!r} is not in {done.stderr!r}"


def messages(daemon):
    """The log's messages without their times."""
    return [line.split(": ", 1)[1] for line in daemon.log().splitlines()]


def status_of(daemon, field):
    with open(f"/proc/{daemon.process.pid}/status", encoding="utf-8") as file:
        return re.search(rf"^{field}:\s*(.*)$", file.read(), re.MULTILINE).group(1)


class Client:
    """A client that has just entered transmission on the default export."""

    OPTION_EXPORT_NAME = 1
    READ = 0

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        same(self.receive(16), b"NBDMAGICIHAVEOPT", "greeting")
        self.receive(2)
        self.socket.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", self.OPTION_EXPORT_NAME, 0))
        self.receive(10)

    def receive(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                return data
            data += more
        return data

    def ask_read(self, cookie):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, self.READ, cookie, 0, 512))

    def answer(self):
        """(error, cookie) of the next simple reply; None: the connection is closed."""
        header = self.receive(16)
        if not header:
            return None
        magic, error, cookie = struct.unpack(">IIQ", header)
        same(magic, 0x67446698, "magic of the reply")
        if error == 0:
            self.receive(512)
        return error, cookie


def test_start_up_and_stop_say_what_happens_in_order():
    with Daemon("-store-size=1MiB") as daemon:
        same(daemon.stop(), 0, "exit status")
        said = messages(daemon)
    wanted = [r'created a volume of 1 MiB',
              r'USBD Server \(usbdsrvd\) started\.$',
              r'USBD Server \(usbdsrvd\) using config: Exporting 1 MiB volume "vol" as unix:',
              r'USBD Server \(usbdsrvd\) is processing requests for "nbd\+unix:///vol\?socket=/',
              r'connect with: nbdinfo ',
              r'USBD Server \(usbdsrvd\) is stopping$',
              r'USBD Server \(usbdsrvd\) statistics: read 0, write 0, flush 0',
              r'USBD Server \(usbdsrvd\) terminated normally$']
    same(len(said), len(wanted), f"lines of {said}")
    for line, pattern in zip(said, wanted):
        assert re.match(pattern, line), f"{line!r} is not {pattern!r}"


def test_every_log_format_holds_the_same_messages():
    with Daemon("-log-format=journal", "-dedup-memcache=1GiB", name="j") as daemon:
        daemon.stop()
        lines = daemon.log().splitlines()
        assert all(re.match(r"<[346]>", line) for line in lines), lines
        assert any(line.startswith("<4>-dedup-memcache") for line in lines), lines
        same(lines[-1], "<6>USBD Server (usbdsrvd) terminated normally", "last line")
    with Daemon("-log-format=json", name="o") as daemon:
        daemon.stop()
        parsed = [json.loads(line) for line in daemon.log().splitlines()]
        same(sorted(parsed[0]), ["level", "message", "time"], "keys")
        same(parsed[-1]["message"], "USBD Server (usbdsrvd) terminated normally", "last line")
    with Daemon("-log-format=text", name="t") as daemon:
        daemon.stop()
        for line in daemon.log().splitlines():
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} info: ", line), line


def test_errors_of_starting_take_the_log_format():
    done = subprocess.run(["usbdsrvd", "-log-format=journal", "-export=unix:missing/s"],
                          capture_output=True, text=True, timeout=30, check=False)
    same(done.returncode, 1, "exit status")
    assert "<3>USBD Server (usbdsrvd) could not be started" in done.stderr, done.stderr


def test_the_pid_file_is_there_while_requests_are_served():
    with Daemon() as daemon:
        with open("vol.pid", encoding="utf-8") as file:
            same(file.read(), f"{daemon.process.pid}\n", "pid file")
        refused("-export=none", "-pidfile=vol.pid", says=["vol.pid", str(daemon.process.pid)])
        with open("vol.pid", encoding="utf-8") as file:
            same(file.read(), f"{daemon.process.pid}\n", "pid file after the refusal")
        daemon.stop()
        assert not os.path.exists("vol.pid")
    refused("-export=none", "-pidfile=missing/x.pid", says=["-pidfile", "missing/x.pid"])


def test_a_pid_file_of_a_dead_process_is_replaced():
    with Daemon() as daemon:
        daemon.kill()
    assert os.path.exists("vol.pid")
    done = subprocess.Popen(["usbdsrvd", "-export=none", "-pidfile=vol.pid"],
                            stderr=subprocess.DEVNULL)
    try:
        def is_ours():
            with open("vol.pid", encoding="utf-8") as file:
                return file.read() == f"{done.pid}\n"
        wait_for(20, "the pid file is the new process's", is_ours)
    finally:
        done.terminate()
        same(done.wait(timeout=30), 0, "exit status")


def notified(address, shown):
    """What a service manager at `address` (its name in the environment: `shown`) is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        process = subprocess.Popen(["usbdsrvd", "-export=unix:n.sock"], stderr=subprocess.DEVNULL,
                                   env={**os.environ, "NOTIFY_SOCKET": shown})
        try:
            ready = manager.recv(4096).decode()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("n.sock")
        finally:
            process.terminate()
            same(process.wait(timeout=30), 0, "exit status")
        return process.pid, ready, manager.recv(4096).decode()


def test_the_service_manager_is_told():
    for address, shown in ((os.path.abspath("m"), os.path.abspath("m")),
                           (f"\0usbd-test-{os.getpid()}", f"@usbd-test-{os.getpid()}")):
        pid, ready, stopping = notified(address, shown)
        lines = ready.splitlines()
        assert "READY=1" in lines and f"MAINPID={pid}" in lines, ready
        assert any(line.startswith("STATUS=serving nbd+unix://") for line in lines), ready
        assert "STOPPING=1" in stopping.splitlines(), stopping


def test_signals_stop_it():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Daemon(name=f"s{number}") as daemon:
            daemon.process.send_signal(number)
            same(daemon.process.wait(timeout=30), 0, f"exit status after {number}")
            assert daemon.log().splitlines()[-1].endswith("terminated normally")


def test_sigusr1_logs_statistics_and_serving_goes_on():
    with Daemon("-store-size=1MiB") as daemon:
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 64k", "-c", "flush", daemon.uri()],
                       check=True, capture_output=True, timeout=60)
        daemon.process.send_signal(signal.SIGUSR1)
        wait_for(20, "statistics", lambda: "statistics: " in daemon.log())
        line = re.search(r"statistics: (.*)", daemon.log()).group(1)
        assert re.search(r"write [1-9]\d* \(65536 bytes\)|write [1-9]\d* \(64 KiB\)", line), line
        assert re.search(r"flush [1-9]", line) and "errors 0" in line, line
        Client(daemon.socket)


def test_a_log_that_nobody_reads_does_not_end_it():
    reading, writing = os.pipe()
    process = subprocess.Popen(["usbdsrvd", "-export=unix:p.sock", "-pidfile=p.pid"],
                               stderr=writing)
    os.close(writing)
    wait_for(20, "readiness", lambda: os.path.exists("p.pid"))
    os.close(reading)
    process.send_signal(signal.SIGUSR1)
    Client(os.path.abspath("p.sock"))
    process.terminate()
    same(process.wait(timeout=30), 0, "exit status")


def test_requests_in_flight_are_answered_before_it_ends():
    with Daemon("-store-size=1MiB", "-layer=delay:read=1s") as daemon:
        client = Client(daemon.socket)
        client.ask_read(7)
        wait_for(20, "the request is in flight", lambda: in_flight(daemon))
        daemon.process.send_signal(signal.SIGTERM)
        same(client.answer(), (0, 7), "the answer")
        same(client.answer(), None, "after it")
        same(daemon.process.wait(timeout=30), 0, "exit status")


def in_flight(daemon):
    daemon.process.send_signal(signal.SIGUSR1)
    time.sleep(0.05)
    return daemon.log().splitlines()[-1].endswith("in flight 1")


def test_a_second_signal_hurries_and_a_third_ends_it():
    with Daemon("-store-size=1MiB", "-layer=delay:read=60s") as daemon:
        client = Client(daemon.socket)
        client.ask_read(1)
        wait_for(20, "the request is in flight", lambda: in_flight(daemon))
        for said in ("is stopping", "is hurrying", "ended at once"):
            time.sleep(0.2)
            same(daemon.process.poll(), None, "still running")
            daemon.process.send_signal(signal.SIGTERM)
            wait_for(20, said, lambda text=said: text in daemon.log())
        same(daemon.process.wait(timeout=5), 1, "exit status")


def test_a_second_signal_ends_the_wait_for_a_client_that_does_not_read():
    with Daemon("-store-size=1MiB") as daemon:
        client = Client(daemon.socket)
        for cookie in range(100_000):  # more than the server takes on
            if not select.select([], [client.socket], [], 0.5)[1]:
                break
            client.ask_read(cookie)
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(20, "it is stopping", lambda: "is stopping" in daemon.log())
        time.sleep(0.3)
        same(daemon.process.poll(), None, "still running")
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        same(daemon.process.wait(timeout=30), 0, "exit status")
        assert time.monotonic() - began < 5, "the client had its 10 seconds all the same"
        assert "is hurrying" in daemon.log() and "closing 1 NBD connections" in daemon.log()


def test_a_device_that_does_not_come_back_does_not_keep_it():
    for how in ("-stop-timeout=1s", "-stop-timeout=10m"):
        with Daemon("-store-size=1MiB", "-layer=delay:read=10m", how, "-close-timeout=1s",
                    name=how[-2:]) as daemon:
            client = Client(daemon.socket)
            client.ask_read(1)
            wait_for(20, "the request is in flight", lambda one=daemon: in_flight(one))
            daemon.process.send_signal(signal.SIGTERM)
            if how == "-stop-timeout=10m":
                time.sleep(0.3)
                daemon.process.send_signal(signal.SIGTERM)
            same(daemon.process.wait(timeout=20), 1, "exit status")
            said = daemon.log()
            assert "has not stopped in time" in said, said
            assert "the device has not answered 1 requests" in said, said
            assert not os.path.exists(f"{daemon.name}.pid"), "its pid file stays"
            assert not os.path.exists(daemon.socket), "its socket stays"


def test_two_signals_at_once_are_one():
    with Daemon("-store-size=1MiB", "-layer=delay:read=1s") as daemon:
        client = Client(daemon.socket)
        client.ask_read(1)
        wait_for(20, "the request is in flight", lambda: in_flight(daemon))
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGINT)
        same(client.answer(), (0, 1), "the answer")
        same(daemon.process.wait(timeout=30), 0, "exit status")
        assert "hurrying" not in daemon.log()


def test_threads_are_as_many_as_asked():
    with Daemon("-threads=3") as daemon:
        names = []
        for task in os.listdir(f"/proc/{daemon.process.pid}/task"):
            with open(f"/proc/{daemon.process.pid}/task/{task}/comm", encoding="utf-8") as file:
                names.append(file.read().strip())
        same(sorted(name for name in names if name.startswith("usbd-loop")),
             ["usbd-loop-0", "usbd-loop-1", "usbd-loop-2"], "loop threads")


def test_the_limit_of_open_files_is_raised():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with Daemon() as daemon:
            with open(f"/proc/{daemon.process.pid}/limits", encoding="utf-8") as file:
                limit = re.search(r"Max open files\s+(\d+)", file.read()).group(1)
            same(int(limit), hard, "soft limit")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_is_locked_where_asked():
    with Daemon("-store-size=1GiB", name="plain") as daemon:
        same(status_of(daemon, "VmLck"), "0 kB", "locked without the flag")
    if os.geteuid() != 0:
        print("     skipped: only root may lock memory")
        return
    with Daemon("-store-size=1GiB", "-lock-memory", name="locked") as daemon:
        assert int(status_of(daemon, "VmLck").split()[0]) > 1000
        assert int(status_of(daemon, "VmRSS").split()[0]) < 500_000, "the volume's memory is taken"


def test_nothing_stays_behind_after_kill_that_keeps_the_next_from_starting():
    with Daemon("-dev-type=file", "-store-size=1MiB") as daemon:
        daemon.kill()
    assert os.path.exists("vol.sock") and os.path.exists("vol.pid")
    os.unlink("vol.pid")  # Daemon waits for the next one's
    with Daemon("-dev-type=file"):
        pass


main(globals())
