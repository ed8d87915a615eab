# SPDX-License-Identifier: Apache-2.0
#
# What the tests of the objstore device share: a load of numbered blocks, and the check of what a
# crash has left of it. The image must be that of a prefix of the writes: whoever finds a write
# there finds every other one too that had been acknowledged before it was sent.

import os
import random
import struct
import threading
import time

import nbd

from lib import Daemon

BLOCK = 4096


class Write:
    """One write of one block. Moments are places in the order of all sendings and answers."""

    def __init__(self, number, sent):
        self.number = number
        self.sent = sent
        self.answered = None
        self.answered_at = None  # on the clock
        self.flushed = False


class Model:
    """Every write of each block that may still be found, in order."""

    def __init__(self, blocks):
        self.blocks = [[Write(0, 0)] for _ in range(blocks)]
        for history in self.blocks:
            history[0].answered, history[0].answered_at = 0, 0.0
        self.moment = 1
        self.next_number = 1
        self.last_answer = 0.0
        self.writes = 0
        self.flushes = 0

    def tick(self):
        self.moment += 1
        return self.moment

    def data(self, block, number):
        if number == 0:
            return bytes(BLOCK)
        return struct.pack("<QQ", number, block) * (BLOCK // 16)

    def check(self, image, disk_kept, dirty_age=None):
        """`image` is all that a restart has found. Later writes are forgotten: they are lost."""
        found = []
        for block, history in enumerate(self.blocks):
            content = image[block * BLOCK:(block + 1) * BLOCK]
            number = struct.unpack_from("<Q", content)[0]
            at = next((i for i, write in enumerate(history) if write.number == number), None)
            assert at is not None, f"block {block} has write {number}, which is not one of its own"
            assert content == self.data(block, number), f"block {block} has a mixed-up {number}"
            found.append(at)
        newest = max(history[at].sent for history, at in zip(self.blocks, found))
        oldest = self.last_answer - dirty_age if dirty_age else None
        for block, (history, at) in enumerate(zip(self.blocks, found)):
            for lost in history[at + 1:]:
                what = f"block {block} has write {history[at].number}; {lost.number}"
                assert not (disk_kept and lost.flushed), f"{what} was flushed and is lost"
                if lost.answered is None:
                    continue
                assert lost.answered > newest, \
                    f"{what} is lost, but was answered before one that is there was sent"
                assert oldest is None or lost.answered_at > oldest, \
                    f"{what} is lost, {self.last_answer - lost.answered_at:.1f} s before the end"
        lost_writes = sum(len(history) - at - 1 for history, at in zip(self.blocks, found))
        now = self.tick()
        for index, (history, at) in enumerate(zip(self.blocks, found)):
            kept = history[at]
            if kept.answered is None:
                kept.answered, kept.answered_at = now, time.monotonic()
            # What was found comes from journal and store; with the journal it stays.
            for write in history[:at + 1]:
                write.flushed = True
            self.blocks[index] = history[:at + 1]
        return lost_writes


class Load:
    """Writes and flushes on two connections until it is told to stop, or they break."""

    DEPTH = 24

    def __init__(self, model, uri, rng):
        self.model = model
        self.rng = rng
        self.busy = set()
        self.flushing = False
        self.broken = False
        self.handles = []
        for _ in range(2):
            handle = nbd.NBD()
            handle.connect_uri(uri)
            self.handles.append(handle)

    def send_write(self, handle):
        model = self.model
        block = self.rng.randrange(len(model.blocks))
        if block in self.busy:
            return
        write = Write(model.next_number, model.tick())
        model.next_number += 1
        model.blocks[block].append(write)
        model.writes += 1
        self.busy.add(block)

        def done(error):
            self.busy.discard(block)
            if error:
                self.broken = True
            else:
                write.answered = model.tick()
                write.answered_at = model.last_answer = time.monotonic()
            return 1

        handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(model.data(block, write.number))),
                          block * BLOCK, completion=done)

    def send_flush(self, handle):
        covered = [write for history in self.model.blocks for write in history[-3:]
                   if write.answered is not None and not write.flushed]
        self.flushing = True

        def done(error):
            self.flushing = False
            if error:
                self.broken = True
            else:
                self.model.flushes += 1
                for write in covered:
                    write.flushed = True
            return 1

        handle.aio_flush(completion=done)

    def step(self):
        for handle in self.handles:
            while len(self.busy) < self.DEPTH and self.rng.randrange(16):
                self.send_write(handle)
            if not self.flushing and self.rng.randrange(40) == 0:
                self.send_flush(handle)
        for handle in self.handles:
            if not handle.aio_in_flight():
                continue
            handle.poll(1)
            while handle.poll(0) == 1:  # every answer that is there
                pass

    def run(self, seconds=3600):
        """For so long, or until the connections break; then takes what is still answered."""
        end = time.monotonic() + seconds
        try:
            while not self.broken and time.monotonic() < end:
                self.step()
            limit = time.monotonic() + 10
            while (self.busy or self.flushing) and time.monotonic() < limit:
                for handle in self.handles:
                    handle.poll(10)
        except nbd.Error:
            self.broken = True

    def run_and_kill(self, process, seconds):
        """Kills the process in the midst of it."""
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        self.run()
        killer.join()
        process.wait()
        assert self.broken, "the load did not notice the kill"

    def close(self):
        for handle in self.handles:
            try:
                handle.shutdown()
            except nbd.Error:
                pass
        self.handles = []


def connect(daemon):
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri())
    return handle


def read_all(daemon):
    handle = connect(daemon)
    size = handle.get_size()
    image = bytearray()
    while len(image) < size:
        image += handle.pread(min(1 << 20, size - len(image)), len(image))
    handle.shutdown()
    return bytes(image)


def write_all(daemon, image):
    handle = connect(daemon)
    for at in range(0, len(image), 1 << 20):
        handle.pwrite(image[at:at + (1 << 20)], at)
    handle.flush()
    handle.shutdown()


def pattern(size, seed):
    return random.Random(seed).randbytes(size)


def daemon(*options, name="vol", container="bucket", folder="d"):
    """A daemon on the store that `options` name; its local files are in `folder`."""
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(f"{name}.pid"):  # of one that was killed
        os.remove(f"{name}.pid")
    return Daemon("-dev-type=objstore", f"-objstore-container={container}",
                  f"-store-dir={folder}", "-store-name=vol", *options, name=name)
