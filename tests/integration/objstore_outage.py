#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd with an objstore volume while its store is away for USBD_OUTAGE (6) seconds, under load:
# what goes on, what waits, that nobody sees an error, that it catches up by itself, and what
# usbdctl says meanwhile. The store is a directory, or the S3 server that tests/store/s3_served.sh
# has started.
# Timeout: 170

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, same, skip, wait_for  # noqa: E402

need("usbdsrvd", "usbdctl")
try:
    import nbd  # noqa: F401
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_kill_lib import count, seed  # noqa: E402
from objstore_lib import (BLOCK, Load, Model, connect, daemon, pattern, read_all,  # noqa: E402
                          write_all)
from objstore_store_lib import new_store  # noqa: E402

SEED = seed()
OUTAGE = count("USBD_OUTAGE", 6)
BLOCKS = 8192
KEPT = 64  # blocks at the front that are only read


class PacedLoad(Load):
    """Some requests a second, and reads of what the cache has; notices how long each takes."""

    def __init__(self, model, one, rng, pause):
        super().__init__(model, one.uri(), rng)
        self.reader = connect(one)
        self.pause = pause
        self.kept = self.reader.pread(KEPT * BLOCK, 0)
        self.reads = 0
        self.slowest_read = 0.0
        self.flush_sent = 0.0

    def free_run(self):
        first, length = super().free_run()
        return (first, length) if first >= KEPT else (first, 0)

    def step(self):
        for handle in self.handles:
            if len(self.busy) < self.DEPTH:
                self.send_write(handle)
        began = time.monotonic()
        if not self.flushing and began > self.flush_sent + 0.2:
            self.flush_sent = began
            self.send_flush(self.handles[0])
        at = self.rng.randrange(KEPT) * BLOCK
        assert self.reader.pread(BLOCK, at) == self.kept[at:at + BLOCK], f"at {at}"
        self.slowest_read = max(self.slowest_read, time.monotonic() - began)
        self.reads += 1
        for handle in self.handles:
            while handle.aio_in_flight() and handle.poll(0) == 1:
                pass
        time.sleep(self.pause)

    def run_alone(self, seconds):
        """The requests that are under way at its end stay so."""
        end = time.monotonic() + seconds
        while not self.broken and time.monotonic() < end:
            self.step()


def ctl(store, command="show"):
    done = subprocess.run(
        ["usbdctl", "volume", command, *store.options(), f"-objstore-container={store.container}",
         "-store-dir=d", "-store-name=vol", "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def journal(store):
    status, shown, said = ctl(store)
    same(status, 0, f"usbdctl volume show: {said}")
    return shown["local"]["journals"][0]


def has_caught_up(store):
    return lambda: journal(store)["unpublished_bytes"] == 0


def outage(store, options, pause, during):
    """A volume in use when the store goes away, and when it comes back: `during` is run between."""
    rng = random.Random(SEED)
    model = Model(BLOCKS)
    common = (*store.options(), "-objstore-objsize=1MiB", "-objstore-flushevery=200ms", *options)
    size = f"-store-size={BLOCKS * BLOCK}"
    with daemon(*common, size, container=store.container) as one:
        handle = connect(one)
        handle.pwrite(pattern(KEPT * BLOCK, 1), 0)
        handle.shutdown()
        same(one.stop(), 0, one.log())
    with daemon(*common, container=store.container) as one:
        load = PacedLoad(model, one, rng, pause)
        load.run_alone(2)
        store.set_away(True)
        began = time.monotonic()
        try:
            during(one, load, model)
        finally:
            store.set_away(False)
        assert not load.broken, f"an error reached the client:\n{one.log()}"
        away = time.monotonic() - began
        before = model.last_answer
        load.run_alone(2)
        wait_for(60, "writes go on", lambda: load.run_alone(1) or model.last_answer > before + 2)
        load.run(0)  # takes all answers
        assert not load.broken and not load.busy, f"an error reached the client:\n{one.log()}"
        began = time.monotonic()
        wait_for(120, "it has caught up", has_caught_up(store))
        caught_up = time.monotonic() - began
        load.close()
        load.reader.shutdown()
        image = read_all(one)
        same(image[:KEPT * BLOCK] == load.kept, True, "what was only read")
        model.check(bytes(KEPT * BLOCK) + image[KEPT * BLOCK:], disk_kept=True, all_kept=True)
        one.kill()
    # All of it is in the store, without a stop.
    os.makedirs("other")
    shutil.copy2("d/key.aes", "other/key.aes")
    with daemon(*common, "-objstore-takeover", container=store.container, folder="other") as two:
        assert read_all(two) == image, "elsewhere"
        same(two.stop(), 0, two.log())
    print(f"away for {away:.0f} s, caught up {caught_up:.1f} s later; {model.writes} writes, "
          f"{model.flushes} flushes, {load.reads} reads, the slowest {load.slowest_read:.2f} s")


def test_reads_of_the_cache_writes_and_local_flushes_go_on():
    store = new_store()

    def during(one, load, model):
        for _ in range(4):
            seen = (model.writes, model.flushes, load.reads)
            load.run_alone(OUTAGE / 4)
            assert not load.broken, f"an error reached the client:\n{one.log()}"
            now = (model.writes, model.flushes, load.reads)
            assert all(a > b for a, b in zip(now, seen)), f"{seen} {now}: it waits\n{one.log()}"
            assert time.monotonic() - model.last_answer < 5, f"writes wait:\n{one.log()}"
        assert load.slowest_read < 5, load.slowest_read

    outage(store, ("-objstore-maxdirtyage=10m", "-objstore-journalsize=1GiB"), 0.03, during)


def waits(one, load, model):
    """Writes stop being answered, reads and flushes do not, and none fails."""
    end = time.monotonic() + OUTAGE
    while time.monotonic() < end:
        load.run_alone(1)
    assert not load.broken, f"an error reached the client:\n{one.log()}"
    silent = time.monotonic() - model.last_answer
    assert silent > OUTAGE / 4, f"the last write was acknowledged {silent:.1f} s ago"
    assert load.slowest_read < 5, load.slowest_read
    flushes = model.flushes
    load.run_alone(2)
    assert model.flushes > flushes, "flushes wait"


def test_with_a_full_journal_writes_wait_and_go_on():
    outage(new_store(), ("-objstore-maxdirtyage=10m", "-objstore-journalsize=8MiB"), 0.004, waits)


def test_with_old_unpublished_data_writes_wait_and_go_on():
    outage(new_store(), ("-objstore-maxdirtyage=2s", "-objstore-journalsize=1GiB"), 0.03, waits)


def test_usbdctl_says_how_far_the_store_is_behind():
    store = new_store()
    size = 8 << 20
    image = pattern(size, 2)
    with daemon(*store.options(), f"-store-size={size}", "-objstore-flushevery=0",
                "-stop-timeout=0s", container=store.container) as one:
        write_all(one, image)
        time.sleep(1.1)
        shown = journal(store)
        same((shown["unpublished_bytes"], shown["held_by"]),
             (size, f"process {one.process.pid}"), "while it serves")
        print({name: value for name, value in shown.items() if "unpublished" in name})
        store.set_away(True)
        status, _, said = ctl(store)
        print(f"while the store is away usbdctl volume show ends with {status}: {said.strip()}")
        one.process.send_signal(signal.SIGTERM)
        wait_for(20, "it says so",
                 lambda: "publishing before it stops: 8 MiB are left" in one.log())
        assert one.process.poll() is None, one.log()
        store.set_away(False)
        same(one.process.wait(timeout=60), 0, one.log())
        same(journal(store)["unpublished_bytes"], 0, "after the stop")
    with daemon(*store.options(), container=store.container) as one:
        assert read_all(one) == image
        same(one.stop(), 0, one.log())


if __name__ == "__main__":
    main(globals())
