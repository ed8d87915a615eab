# SPDX-License-Identifier: Apache-2.0
#
# The servers under comparison: how each is started on a unix socket, how its readiness is seen, and
# how it is ended. A server is a child process and is ended by its own process id, also when we are
# killed: the kernel then ends it (PR_SET_PDEATHSIG).

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KEEPER = Path(__file__).resolve().parent / "keeper.py"
READY_MAX_SECONDS = 60
STOP_MAX_SECONDS = 15
PR_SET_PDEATHSIG = 1
NBD_GREETING = b"NBDMAGIC"


class BenchError(Exception):
    """Something that keeps a benchmark from running, in a sentence for people."""


@dataclass(frozen=True)
class Place:
    """Where one server finds its program, its socket and its data."""

    programs: Path
    directory: Path
    name: str
    size: int

    @property
    def socket(self) -> Path:
        return self.directory / f"{self.name}.sock"

    @property
    def data_file(self) -> Path:
        return self.directory / f"{self.name}.bin"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"


@dataclass(frozen=True)
class Server:
    name: str
    about: str
    # A program of ours (in the build folder) or of a Debian package.
    program: str
    package: str
    # Place -> arguments behind the program's name.
    arguments: object
    # "memory", "file" or "null": which peers it is comparable to, and whether it keeps data.
    kind: str
    export: str = ""
    # Whether the data file is made by us before the start.
    needs_file: bool = False
    # Whether it leaves its parent, and so needs keeper.py.
    daemonizes: bool = False

    def find_program(self, programs: Path) -> Path | None:
        if not self.package:
            own = programs / self.program
            return own if own.exists() else None
        found = shutil.which(self.program)
        return Path(found) if found else None

    @property
    def keeps_data(self) -> bool:
        return self.kind != "null"


def _bare(*extra):
    return lambda place: ["--unix", place.socket, "--size", place.size, *extra]


def _usbdsrvd(kind):
    return lambda place: [
        f"-dev-type={kind}",
        f"-store-dir={place.directory}",
        f"-store-name={place.name}",
        f"-store-size={place.size}",
        f"-state-dir={place.directory}",
        f"-export=unix:{place.socket}",
    ]


def _blocking(place):
    return [place.size, f"-state-dir={place.directory}", f"-export=unix:{place.socket}"]


def _nbdkit(*plugin):
    def arguments(place):
        words = [str(word).format(file=place.data_file, size=place.size) for word in plugin]
        return ["--foreground", "--unix", place.socket, *words]

    return arguments


def _qemu_nbd(place):
    return ["--persistent", "--shared=0", "--format=raw", "--cache=writeback",
            f"--socket={place.socket}", place.data_file]


def _qemu_storage_daemon(place):
    return ["--blockdev", f"driver=file,node-name=disk,filename={place.data_file}",
            "--nbd-server", f"addr.type=unix,addr.path={place.socket},max-connections=0",
            "--export", "type=nbd,id=export,node-name=disk,name=bench,writable=on"]


def _nbd_server(place):
    config = place.directory / f"{place.name}.conf"
    config.write_text(
        f"[generic]\nunixsock = {place.socket}\n"
        f"[bench]\nexportname = {place.data_file}\n")
    return ["-C", config, "-p", place.directory / f"{place.name}.pid"]


SERVERS = [
    Server("bare", "our limit: nothing but the socket", "bare_server", "", _bare(), "memory"),
    Server("bare-huge", "the limit with huge pages", "bare_server", "", _bare("--huge"), "memory"),
    Server("usbd-mem", "usbdsrvd -dev-type=mem", "usbdsrvd", "", _usbdsrvd("mem"), "memory"),
    Server("usbd-file", "usbdsrvd -dev-type=file, page cache", "usbdsrvd", "", _usbdsrvd("file"),
           "file"),
    Server("usbd-blocking", "a BlockingDevice over memory", "blocking_memory",
           "", _blocking, "memory"),
    Server("nbdkit-memory", "nbdkit memory", "nbdkit", "nbdkit", _nbdkit("memory", "{size}"),
           "memory"),
    Server("nbdkit-file", "nbdkit file, page cache", "nbdkit", "nbdkit",
           _nbdkit("file", "{file}"), "file", needs_file=True),
    Server("nbdkit-null", "nbdkit null: keeps nothing", "nbdkit", "nbdkit",
           _nbdkit("null", "{size}"), "null"),
    Server("qemu-nbd", "qemu-nbd, raw file, page cache", "qemu-nbd", "qemu-utils", _qemu_nbd,
           "file", needs_file=True),
    Server("qemu-sd", "qemu-storage-daemon, raw file, page cache", "qemu-storage-daemon",
           "qemu-system-common", _qemu_storage_daemon, "file", export="bench", needs_file=True),
    Server("nbd-server", "nbd-server, file, page cache", "nbd-server", "nbd-server", _nbd_server,
           "file", export="bench", needs_file=True, daemonizes=True),
]


def by_name(name: str) -> Server:
    for server in SERVERS:
        if server.name == name:
            return server
    known = ", ".join(server.name for server in SERVERS)
    raise BenchError(f'there is no server "{name}"; there are {known}')


def _end_with_parent(how: signal.Signals):
    return lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)


def _greets(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(READY_MAX_SECONDS)
        try:
            client.connect(str(path))
            return client.recv(len(NBD_GREETING)) == NBD_GREETING
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            return False


class Running:
    """A started server. Use it as a context manager: it never outlives the block."""

    def __init__(self, server: Server, place: Place, extra=()):
        self.server = server
        self.place = place
        program = server.find_program(place.programs)
        if program is None:
            raise BenchError(f"{server.name}: {missing(server, place.programs)}")
        if server.needs_file:
            with open(place.data_file, "wb") as file:
                file.truncate(place.size)
        command = [str(word) for word in (program, *server.arguments(place), *extra)]
        if server.daemonizes:
            command = [sys.executable, "-B", str(KEEPER), *command]
        how = signal.SIGTERM if server.daemonizes else signal.SIGKILL
        self.started = time.monotonic()
        with open(place.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, preexec_fn=_end_with_parent(how))
        self.ready_seconds = None

    def wait_ready(self):
        """Waits until a client is greeted; remembers how long that took from the start."""
        while not _greets(self.place.socket):
            elapsed = time.monotonic() - self.started
            if self.process.poll() is not None or elapsed > READY_MAX_SECONDS:
                raise BenchError(f"{self.server.name} did not start: {self.log_tail()}")
            time.sleep(0.0005)
        self.ready_seconds = time.monotonic() - self.started

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_tail(self) -> str:
        lines = self.place.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) if lines else "it printed nothing"

    def sync_data(self):
        """Has the kernel write the data file back now, so that it does not in a later run."""
        if self.server.kind == "file" and self.place.data_file.exists():
            descriptor = os.open(self.place.data_file, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_MAX_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.place.data_file.unlink(missing_ok=True)
        self.place.socket.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def missing(server: Server, programs: Path) -> str:
    if server.package:
        return f"{server.program} is not installed (apt-get install {server.package})"
    return f"{server.program} is not in {programs} (build it first)"
