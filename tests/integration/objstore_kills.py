#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd with an objstore volume, killed again and again under load, while it opens and while it
# stops, in both flush modes; with its local files lost; and stopped with clients at it. Each time
# every block is compared. The store is a directory, or the S3 server that tests/store/s3_served.sh
# has started. USBD_KILLS (24), USBD_LOSSES (8), USBD_STOPS (8) and USBD_LONG_KILLS (0) are how
# often, USBD_SEED says when; USBD_KEEP as in objstore_kill_lib.py.
# Timeout: 170

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, skip  # noqa: E402

need("usbdsrvd")
try:
    import nbd  # noqa: F401
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_kill_lib import KILLS, STOPS, Rounds, count, seed  # noqa: E402
from objstore_store_lib import new_store  # noqa: E402

SEED = seed()
DIRTY_AGE = 2


def rounds(number, **what):
    store = new_store()
    return Rounds(store.options(), SEED + number, container=store.container, **what)


def test_killed_it_keeps_what_was_flushed():
    rounds(1).run(count("USBD_KILLS", 24) // 2, KILLS)


def test_killed_in_remote_mode_it_keeps_what_was_flushed():
    rounds(2, mode="remote").run(count("USBD_KILLS", 24) // 2, KILLS)


def test_killed_with_its_disk_lost_it_goes_on_from_what_was_published():
    rounds(3, lose_disk=True, dirty_age=DIRTY_AGE, seconds=(0.05, 3)).run(
        count("USBD_LOSSES", 8) // 2, KILLS)


def test_killed_in_remote_mode_with_its_disk_lost_it_keeps_what_was_flushed():
    rounds(4, mode="remote", lose_disk=True, dirty_age=DIRTY_AGE, seconds=(0.05, 3)).run(
        count("USBD_LOSSES", 8) // 2, KILLS)


def test_stopped_with_clients_at_it_it_keeps_what_was_acknowledged():
    rounds(5).run(count("USBD_STOPS", 8) // 2, STOPS + KILLS[-1:])


def test_stopped_in_remote_mode_it_keeps_what_was_acknowledged():
    rounds(6, mode="remote").run(count("USBD_STOPS", 8) // 2, STOPS + KILLS[-1:])


def test_killed_after_it_has_deleted_it_keeps_what_was_flushed():
    # What nobody needs any more is deleted after a minute at the earliest.
    if count("USBD_LONG_KILLS", 0):
        rounds(7, seconds=(65, 100)).run(count("USBD_LONG_KILLS", 0), KILLS)


if __name__ == "__main__":
    main(globals())
