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

from lib import Daemon, same

BLOCK = 4096


class Write:
    """What one request did to one block. Moments are places in the order of all sendings and
    answers."""

    def __init__(self, number, sent, zeros=False):
        self.number = number
        self.sent = sent
        self.zeros = zeros
        self.answered = None
        self.answered_at = None  # on the clock
        self.flushed = False


class Model:
    """Every write of each block that may still be found, in order; one of them at most is of
    zeros, so that a block tells which one it holds."""

    def __init__(self, blocks):
        self.blocks = [[Write(0, 0, zeros=True)] for _ in range(blocks)]
        for history in self.blocks:
            history[0].answered, history[0].answered_at = 0, 0.0
        self.unflushed = []  # answered since the last flush was sent
        self.moment = 1
        self.next_number = 1
        self.last_answer = 0.0
        self.writes = 0
        self.flushes = 0
        self.compared = 0

    def tick(self):
        self.moment += 1
        return self.moment

    def data(self, block, number):
        return struct.pack("<QQ", number, block) * (BLOCK // 16)

    def content(self, block, write):
        return bytes(BLOCK) if write.zeros else self.data(block, write.number)

    def add(self, first, length, zeros):
        """A request of so many blocks that is about to be sent."""
        number, sent = self.next_number, self.tick()
        self.next_number += 1
        self.writes += 1
        request = []
        for block in range(first, first + length):
            request.append(Write(number, sent, zeros))
            self.blocks[block].append(request[-1])
        return request

    def answer(self, request, flushed=False):
        now, clock = self.tick(), time.monotonic()
        self.last_answer = clock
        for write in request:
            write.answered, write.answered_at, write.flushed = now, clock, flushed
        if not flushed:
            self.unflushed += request

    def found(self, block, content):
        """Which of its writes a block holds."""
        history = self.blocks[block]
        zeros = content == bytes(BLOCK)
        number = struct.unpack_from("<Q", content)[0]
        for at, write in enumerate(history):
            if write.zeros if zeros else not write.zeros and write.number == number:
                assert content == self.content(block, write), f"block {block}: mixed-up {number}"
                return at
        raise AssertionError(f"block {block} has {number} ({content[:32].hex()}...), which was "
                             f"not written to it; {[write.number for write in history]} were")

    def check(self, image, disk_kept, dirty_age=None, all_kept=False):
        """`image` is all that a restart has found; with `all_kept` nothing acknowledged may be
        missing. Later writes are forgotten: they are lost."""
        same(len(image), len(self.blocks) * BLOCK, "size of the image")
        found = [self.found(block, image[block * BLOCK:(block + 1) * BLOCK])
                 for block in range(len(self.blocks))]
        self.compared += len(found)
        newest = max(history[at].sent for history, at in zip(self.blocks, found))
        oldest = self.last_answer - dirty_age if dirty_age else None
        for block, (history, at) in enumerate(zip(self.blocks, found)):
            for lost in history[at + 1:]:
                what = f"block {block} has write {history[at].number}; {lost.number}"
                assert not (disk_kept and lost.flushed), f"{what} was flushed and is lost"
                if lost.answered is None:
                    continue
                assert not all_kept, f"{what} was acknowledged and is lost by a proper stop"
                assert lost.answered > newest, \
                    f"{what} is lost, but was answered before one that is there was sent"
                assert oldest is None or lost.answered_at > oldest, \
                    f"{what} is lost, {self.last_answer - lost.answered_at:.1f} s before the end"
        lost_writes = sum(len(history) - at - 1 for history, at in zip(self.blocks, found))
        self.forget(found)
        return lost_writes

    def forget(self, found):
        """From now on only what was found counts."""
        now = self.tick()
        self.unflushed = []
        for index, (history, at) in enumerate(zip(self.blocks, found)):
            kept = history[at]
            if kept.answered is None:
                kept.answered, kept.answered_at = now, time.monotonic()
            # What was found comes from journal and store; with the journal it stays.
            kept.flushed = True
            self.blocks[index] = [kept]
        return now


class Load:
    """Writes, trims and flushes on two connections until it is told to stop, or they break."""

    DEPTH = 24

    def __init__(self, model, uri, rng):
        self.model = model
        self.rng = rng
        self.busy = set()
        self.buffers = {}  # by size, those that no request uses
        self.flushing = False
        self.broken = False
        self.handles = []
        for _ in range(2):
            handle = nbd.NBD()
            handle.connect_uri(uri)
            self.handles.append(handle)

    def free_run(self):
        """Some blocks in a row that no request is at."""
        most = self.rng.choice((1, 1, 1, 1, 2, 5, 32))
        first = self.rng.randrange(len(self.model.blocks) - most)
        length = next((n for n in range(most) if first + n in self.busy), most)
        return first, length

    def send_write(self, handle):
        model, rng = self.model, self.rng
        first, length = self.free_run()
        if length == 0:
            return
        blocks = range(first, first + length)
        zeros = rng.randrange(12) == 0 and not any(
            write.zeros for block in blocks for write in model.blocks[block])
        fua = rng.randrange(100) == 0
        request = model.add(first, length, zeros)
        self.busy.update(blocks)

        buffer = None if zeros else self.take_buffer(model, request[0].number, blocks)

        def done(error):
            self.busy.difference_update(blocks)
            if buffer is not None:
                self.buffers[length].append(buffer)
            if error:
                self.broken = True
            else:
                model.answer(request, fua)
            return 1

        options = {"completion": done, "flags": nbd.CMD_FLAG_FUA if fua else 0}
        if zeros:
            send = rng.choice((handle.aio_trim, handle.aio_zero))
            send(length * BLOCK, first * BLOCK, **options)
        else:
            handle.aio_pwrite(buffer, first * BLOCK, **options)

    def take_buffer(self, model, number, blocks):
        """Used again and again: libnbd 1.14 never frees the memory of one that was written."""
        free = self.buffers.setdefault(len(blocks), [])
        buffer = free.pop() if free else nbd.Buffer(len(blocks) * BLOCK)
        buffer.to_buffer()[:] = b"".join(model.data(block, number) for block in blocks)
        return buffer

    def send_flush(self, handle):
        covered, self.model.unflushed = self.model.unflushed, []
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

    def run_and_end(self, end, seconds):
        """Calls `end`, which ends the daemon, in the midst of it."""
        ender = threading.Timer(seconds, end)
        ender.start()
        self.run()
        ender.join()
        assert self.broken, "the load did not notice the end"

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
