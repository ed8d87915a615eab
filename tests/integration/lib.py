# SPDX-License-Identifier: Apache-2.0
#
# What integration tests in Python share; lib.sh is the same for shell. A test is a file of
# functions called test_*, run by main(): each gets a folder of its own below the current one.

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse


def skip(what_is_missing):
    print(f"SKIP: {what_is_missing}")
    sys.exit(77)


def need(*programs):
    from shutil import which
    for program in programs:
        if which(program) is None:
            skip(f"{program} is not installed")


def same(actual, expected, what):
    assert actual == expected, f"{what}: expected {expected!r}, got {actual!r}"


def wait_for(seconds, what, condition):
    """Returns the condition's first true value; fails if there is none in time."""
    limit = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < limit, f"not within {seconds} seconds: {what}"
        time.sleep(0.02)


def run(*command, **options):
    """Runs a client to its end and returns what it printed; it must succeed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=100, **options)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{output}"
    return done.stdout


class Daemon:
    """A usbdsrvd that serves on a unix socket of the current folder, ready when made."""

    def __init__(self, *options, name="vol"):
        self.name = name
        self.socket = os.path.abspath(f"{name}.sock")
        self.log_path = os.path.abspath(f"{name}.log")
        pidfile = f"{name}.pid"
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["usbdsrvd", f"-export=unix:{self.socket}", f"-pidfile={pidfile}",
                 f"-store-name={name}", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        wait_for(30, f"usbdsrvd is ready: {options}",
                 lambda: self._ended() or (os.path.exists(pidfile) and os.path.getsize(pidfile)))

    def _ended(self):
        assert self.process.poll() is None, f"usbdsrvd ended at once:\n{self.log()}"
        return False

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            status = self.stop()
            if kind is None:
                same(status, 0, f"exit status of usbdsrvd; its log:\n{self.log()}")
        if kind is not None:
            print(f"--- log of {self.name}\n{self.log()}---")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self):
        self.process.kill()
        self.process.wait()

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def uri(self, export=""):
        return f"nbd+unix:///{urllib.parse.quote(export)}?socket={urllib.parse.quote(self.socket)}"


def nbdinfo(*arguments):
    return json.loads(run("nbdinfo", "--json", *arguments))


def main(names):
    """Runs every test_* of `names` (a module's globals()); the arguments choose some of them."""
    tests = [(name, value) for name, value in names.items() if name.startswith("test_")]
    chosen = sys.argv[1:]
    failed = []
    top = os.getcwd()
    for number, (name, test) in enumerate(tests):
        if chosen and name not in chosen:
            continue
        folder = os.path.join(top, str(number))  # short: unix sockets are in it
        os.makedirs(folder)
        os.chdir(folder)
        start = time.monotonic()
        try:
            test()
            print(f"ok   {name} ({time.monotonic() - start:.2f} s)")
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc(file=sys.stdout)
            print(f"FAIL {name}")
            failed.append(name)
        sys.stdout.flush()
    sys.exit(1 if failed else 0)
