# SPDX-License-Identifier: Apache-2.0
#
# Rounds of an objstore volume under load, each of which ends badly: killed under load, killed while
# it opens, killed while it stops, or stopped properly with clients at it. After each the next one
# opens it and compares every block with what was written (see objstore_lib.Model). With
# USBD_KEEP=DIR the files as the last crash left them are kept there when a round fails.

import os
import random
import shutil
import signal
import subprocess
import threading
import time

from lib import same
from objstore_lib import Load, Model, daemon, read_all

SMALL = ("-objstore-journalsize=8MiB", "-objstore-objsize=1MiB", "-stop-timeout=0s")
KEEP = os.environ.get("USBD_KEEP")


def seed():
    """USBD_SEED, or one of its own, which is printed."""
    chosen = int(os.environ.get("USBD_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"seed {chosen}", flush=True)
    return chosen


def count(name, default):
    return int(os.environ.get(name, str(default)))


class Rounds:
    """`options` name the store. `mode` is that of -objstore-flushmode; with `lose_disk` all local
    files but the key are gone after each round, and `dirty_age` seconds is what may be lost."""

    BLOCKS = 4096

    def __init__(self, options, seed_used, mode="local", lose_disk=False, dirty_age=None,
                 container="bucket", seconds=(0.05, 0.5)):
        self.options = (*options, f"-store-size={self.BLOCKS * 4096}",
                        f"-objstore-flushmode={mode}", *SMALL)
        if dirty_age:
            self.options += (f"-objstore-maxdirtyage={dirty_age}s",)
        self.rng = random.Random(seed_used)
        self.what = f"seed {seed_used}, {mode}" + (", disk lost" if lose_disk else "")
        self.mode, self.lose_disk, self.dirty_age = mode, lose_disk, dirty_age
        self.container, self.seconds = container, seconds
        self.model = Model(self.BLOCKS)
        self.ends = {}
        self.lost = 0
        self.all_kept = False  # the last end was a proper one

    def start_options(self):
        rng = self.rng
        extra = [f"-objstore-flushevery={rng.choice(('50ms', '200ms', '1s'))}"]
        if rng.randrange(2):
            extra.append("-objstore-persistcache")
        if self.lose_disk:
            extra.append("-objstore-takeover")
        return (*self.options, *extra)

    def started(self):
        """A daemon that has opened what the last round left, with every block compared."""
        self.keep_files()
        one = daemon(*self.start_options(), container=self.container)
        try:
            # In remote mode what was flushed is in the store as well.
            self.lost += self.model.check(
                read_all(one), disk_kept=not self.lose_disk or self.mode == "remote",
                dirty_age=self.dirty_age if self.lose_disk else None, all_kept=self.all_kept)
        except BaseException:
            one.kill()
            print(f"--- log of the daemon that opened it\n{one.log()}---")
            raise
        return one

    def keep_files(self):
        if not KEEP:
            return
        shutil.rmtree(KEEP, ignore_errors=True)
        os.makedirs(KEEP)
        for folder, copy in (("d", shutil.copy2), ("store", os.link)):
            if os.path.exists(folder):
                shutil.copytree(folder, os.path.join(KEEP, folder), copy_function=copy)

    def lose(self):
        self.all_kept = False
        if self.lose_disk:
            shutil.rmtree("d/vol.objstore", ignore_errors=True)

    def kill_under_load(self, one):
        load = Load(self.model, one.uri(), self.rng)
        load.run_and_end(one.process.kill, self.rng.uniform(*self.seconds))
        load.close()
        one.process.wait()

    def kill_while_it_opens(self, one):
        self.kill_under_load(one)
        if os.path.exists("vol.pid"):
            os.remove("vol.pid")
        log = os.open("opening.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        process = subprocess.Popen(
            ["usbdsrvd", "-dev-type=objstore", f"-objstore-container={self.container}",
             "-store-dir=d", "-store-name=vol", f"-export=unix:{os.path.abspath('vol.sock')}",
             *self.start_options()], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        os.close(log)
        time.sleep(self.rng.uniform(0.005, 0.25))
        process.kill()
        process.wait()

    def kill_while_it_stops(self, one):
        pause = self.rng.uniform(0, 0.3)

        def stop_and_kill():
            one.process.send_signal(signal.SIGTERM)
            try:
                one.process.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                one.process.kill()

        load = Load(self.model, one.uri(), self.rng)
        load.run_and_end(stop_and_kill, self.rng.uniform(*self.seconds))
        load.close()
        one.process.wait()

    def stop(self, one):
        """Properly, before, under or after the load; whatever was acknowledged stays."""
        load = Load(self.model, one.uri(), self.rng)
        when = self.rng.randrange(3)
        if when == 0:
            load.run(self.rng.uniform(*self.seconds))
            load.close()
        elif when == 1:
            load.run(self.rng.uniform(*self.seconds))
        else:
            load.run_and_end(lambda: one.process.send_signal(signal.SIGTERM),
                             self.rng.uniform(*self.seconds))
        if when != 2:
            one.process.send_signal(signal.SIGTERM)
        same(one.process.wait(timeout=100), 0, f"exit status; its log:\n{one.log()}")
        if when != 0:
            load.close()

    def one_round(self, ends):
        end = self.rng.choice(ends)
        began = time.monotonic()
        one = self.started()
        end(self, one)
        self.lose()
        self.all_kept = end is Rounds.stop and not self.lose_disk
        self.ends[end.__name__] = self.ends.get(end.__name__, 0) + 1
        return time.monotonic() - began

    def run(self, rounds, ends):
        """Runs them, and compares once more. Prints what was done."""
        began = shown = time.monotonic()
        number = 0
        try:
            for number in range(rounds):
                self.one_round(ends)
                if time.monotonic() - shown > 30:
                    shown = time.monotonic()
                    print(f"  {number + 1} of {rounds} rounds", flush=True)
            number = rounds
            with self.started() as one:
                same(one.stop(), 0, f"exit status; its log:\n{one.log()}")
        except BaseException:
            print(f"{self.what}: round {number} failed", flush=True)
            raise
        done = ", ".join(f"{times} {name}" for name, times in sorted(self.ends.items()))
        print(f"{self.what}: {rounds} rounds in {time.monotonic() - began:.0f} s: {done}; "
              f"{self.model.writes} writes, {self.model.flushes} flushes, "
              f"{self.model.compared} blocks compared, {self.lost} writes after the prefix",
              flush=True)


KILLS = (Rounds.kill_under_load,) * 8 + (Rounds.kill_while_it_opens, Rounds.kill_while_it_stops)
STOPS = (Rounds.stop,)
