#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdsrvd with an objstore volume in a directory: made, stopped, opened elsewhere, taken over,
# stopped while the store is away. That it may be killed is shown by objstore_kills.py.
# Timeout: 170

import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, same, skip, wait_for  # noqa: E402

need("usbdsrvd")
try:
    import nbd  # noqa: F401
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_lib import daemon, pattern, read_all, write_all  # noqa: E402


def store(*options, path="store"):
    os.makedirs(path, exist_ok=True)
    config = f'{{"path":"{os.path.abspath(path)}"}}'
    return ("-objstore-kind=local", f"-objstore-cfg={config}", *options)


def stopped(one, status=0):
    same(one.stop(), status, f"exit status; its log:\n{one.log()}")


def refused(*options, folder="d", name="vol", says=(), status=1):
    os.makedirs(folder, exist_ok=True)
    done = subprocess.run(
        ["usbdsrvd", "-dev-type=objstore", "-objstore-container=bucket", f"-store-dir={folder}",
         f"-store-name={name}", "-export=none", *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    same(done.returncode, status, f"exit status of {options}: {done.stderr}")
    for part in says:
        assert part in done.stderr, f"{options}: {part!r} is not in {done.stderr!r}"
    return done.stderr


def files(top):
    """Every file below, and what is in it."""
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[path] = file.read()
    return found


def copy_key(to):
    os.makedirs(to, exist_ok=True)
    shutil.copy2("d/key.aes", f"{to}/key.aes")


class Away:
    """The store takes nothing, as one that is not reached."""

    def __enter__(self):
        os.rename("store/bucket/.usbd", "store/bucket/.away")
        with open("store/bucket/.usbd", "w", encoding="ascii"):
            pass
        return self

    def __exit__(self, kind, value, trace):
        os.remove("store/bucket/.usbd")
        os.rename("store/bucket/.away", "store/bucket/.usbd")


def test_what_was_written_is_there_again_here_and_elsewhere():
    size = 24 << 20
    image = pattern(size, 1)
    with daemon(*store("-store-size=24MiB")) as one:
        assert "a new encryption key was made" in one.log().splitlines()[0], one.log()
        same(oct(os.stat("d/key.aes").st_mode & 0o777), "0o600", "mode of the key file")
        same(oct(os.stat("d/vol.objstore").st_mode & 0o777), "0o700", "mode of the directory")
        write_all(one, image)
        stopped(one)
        assert one.log().splitlines()[-1].endswith("terminated normally"), one.log()
    with daemon(*store()) as one:
        assert "encryption key" not in one.log(), one.log()
        assert read_all(one) == image, "after a restart"
        stopped(one)
    copy_key("other")
    with daemon(*store(), folder="other") as one:
        assert read_all(one) == image, "in an empty directory"
        stopped(one)
    with daemon(*store("-read-only"), folder="d") as one:
        assert read_all(one) == image, "read only"
        stopped(one)


def test_the_last_bytes_of_an_odd_size_are_served():
    with daemon(*store("-store-size=1000001", "-block-size=512")) as one:
        size = (1000001 + 511) // 512 * 512
        image = pattern(size, 2)
        write_all(one, image)
        same(len(read_all(one)), size, "size")
        stopped(one)
    with daemon(*store()) as one:
        assert read_all(one) == image
        stopped(one)
    with daemon(*store("-block-size=4096")) as one:
        assert read_all(one) == image
        assert "-block-size=4096" in one.log() and "blocks of 512 bytes" in one.log(), one.log()
        stopped(one)


def test_what_does_not_fit_the_volume_is_refused_and_changes_nothing():
    with daemon(*store("-store-size=4MiB")) as one:
        write_all(one, pattern(4 << 20, 3))
        stopped(one)
    before = files("store")
    refused(*store("-store-size=8MiB"), says=["4194304", "8388608"])
    refused(*store("-objstore-aesmode=aes-ctr"), says=["-objstore-aesmode", "aes-gcm"])
    refused(*store("-create=only"), says=["-create=only", "vol"])
    refused(*store("-objstore-aeskey=key:" + "ab" * 32), says=["not the key"])
    refused(*store(), folder="empty", says=["-objstore-aeskey", "key.aes"])
    assert not os.path.exists("empty/key.aes"), "a key was made for a volume that is there"
    os.makedirs("wrong")
    with open("wrong/key.aes", "w", encoding="ascii") as file:
        file.write("cd" * 32 + "\n")
    os.chmod("wrong/key.aes", 0o600)
    refused(*store(), folder="wrong", says=["not the key"])
    for path, content in files("store").items():
        if not path.endswith("/lock"):
            same(content == before.get(path), True, f"{path} is unchanged")
    refused(*store("-create=never"), name="none", says=["-create=never", "none"])
    refused(*store("-read-only"), name="none", says=["-read-only", "none"])
    refused(*store(), name="a b", says=["-store-name"])
    refused("-objstore-kind=sftp", '-objstore-cfg={"host":"h","port":"22","username":"u",'
            '"password":"p"}', says=["-objstore-kind=sftp", "no store of that kind yet"])
    refused(*store("-objstore-journalsize=1MiB"), status=2, says=["-objstore-journalsize", "8 MiB"])


def test_every_flag_has_an_effect():
    with daemon(*store("-objstore-gctarget=1.3", "-objstore-mapmem=1MiB")) as one:
        assert "has no effect" not in one.log(), one.log()
        stopped(one)


def test_a_cache_that_is_kept_spares_the_store():
    image = pattern(4 << 20, 6)
    blocks, index = "d/vol.objstore/cache.blocks", "d/vol.objstore/cache.index"
    with daemon(*store("-store-size=4MiB")) as one:
        write_all(one, image)
        stopped(one)
    assert not os.path.exists(blocks), "a cache that is not to be kept"
    with daemon(*store("-objstore-persistcache")) as one:
        assert read_all(one) == image, "from the store"
        stopped(one)
    assert os.path.exists(index), "a cache that is to be kept"
    same(os.stat(blocks).st_size, len(image), "size of the cache")
    with daemon(*store("-objstore-persistcache", "-objstore-diskcache=1GiB")) as one:
        os.rename("store/bucket/vol/d", "store/bucket/vol/gone")
        assert read_all(one) == image, "from the cache"
        os.rename("store/bucket/vol/gone", "store/bucket/vol/d")
        stopped(one)
    with open(blocks, "r+b") as file:
        file.write(os.urandom(1 << 20))
    with daemon(*store("-objstore-persistcache")) as one:
        assert read_all(one) == image, "with a damaged cache"
        assert "of the cache is damaged" in one.log(), one.log()
        stopped(one)


def test_secrets_are_in_no_log():
    canary, secret = "5ec7e7" * 10 + "ab12", "hunter2hunter2"
    key = f"-objstore-aeskey=key:{canary}"
    with daemon(*store("-store-size=1MiB", key)) as one:
        with open(f"/proc/{one.process.pid}/cmdline", "rb") as file:
            assert canary.encode() not in file.read(), "the key is in the process list"
        one.process.send_signal(signal.SIGUSR1)
        stopped(one)
        assert canary not in one.log(), one.log()
    config = ('-objstore-cfg={"access_key_id":"me","endpoint":"http://127.0.0.1:1",'
              f'"secret_key":"{secret}"}}')
    said = refused(key, config, says=["127.0.0.1"])
    assert canary not in said and secret not in said, said


def test_a_second_daemon_is_refused_and_a_takeover_ends_the_first():
    with daemon(*store("-store-size=4MiB")) as first:
        write_all(first, pattern(4 << 20, 4))
        copy_key("other")
        refused(*store(), folder="other", says=["-objstore-takeover"])
        with daemon(*store("-objstore-takeover"), folder="other", name="second") as second:
            write_all(second, pattern(4 << 20, 5))
            same(first.process.wait(timeout=30), 4, f"exit status of the first:\n{first.log()}")
            assert read_all(second) == pattern(4 << 20, 5)
            stopped(second)
        assert os.listdir("d/vol.objstore"), "the journal of the first is kept"
    with daemon(*store()) as first:
        assert read_all(first) == pattern(4 << 20, 5), "its stale journal is not replayed"
        stopped(first)


def test_a_stop_while_the_store_is_away_leaves_the_rest_in_the_journal():
    size = 6 << 20
    image = pattern(size, 6)
    with daemon(*store(f"-store-size={size}", "-objstore-flushevery=1h", "-stop-timeout=0s",
                       "-close-timeout=4s")) as one:
        with Away():
            write_all(one, image)
            stopped(one, 3)
        assert "publishing before it stops: 6 MiB are left" in one.log(), one.log()
        assert "unpublished data in its journal" in one.log().splitlines()[-1], one.log()
    copy_key("other")
    refused(*store(), folder="other", says=["-objstore-takeover"])
    with daemon(*store()) as one:
        assert read_all(one) == image
        stopped(one)
    with daemon(*store(), folder="other") as one:
        assert read_all(one) == image, "all is in the store now"
        stopped(one)


def test_a_store_that_was_set_back_is_refused_where_the_newer_state_was_seen():
    size = 4 << 20
    for flush in ("local", "remote"):
        options = store(f"-objstore-flushmode={flush}", path=f"{flush}-store")
        top = f"{flush}-store"
        with daemon(*options, f"-store-size={size}", folder=flush) as one:
            write_all(one, pattern(size, 8))
            stopped(one)
        shutil.copytree(top, f"{top}.older", symlinks=True)
        with daemon(*options, folder=flush) as one:
            write_all(one, pattern(size, 9))
            stopped(one)
        os.rename(top, f"{top}.newer")
        shutil.copytree(f"{top}.older", top, symlinks=True)
        local = files(f"{flush}/vol.objstore")
        refused(*options, folder=flush, says=["older state than this host has seen", "head.seen"])
        same(files(f"{flush}/vol.objstore") == local, True, "nothing was changed")
        with daemon(*options, "-read-only", folder=flush) as one:
            assert read_all(one) == pattern(size, 8), "it can be looked at"
            stopped(one)
        # The head alone, with all objects of the newer state.
        shutil.rmtree(top)
        shutil.copytree(f"{top}.newer", top, symlinks=True)
        shutil.copy2(f"{top}.older/bucket/vol/head,obj", f"{top}/bucket/vol/head,obj")
        refused(*options, folder=flush, says=["older state than this host has seen"])
        shutil.rmtree(top)
        os.rename(f"{top}.newer", top)
        with daemon(*options, folder=flush) as one:
            assert read_all(one) == pattern(size, 9), "the newer state is there again"
            stopped(one)
        # Who has no local state cannot know.
        shutil.rmtree(top)
        os.rename(f"{top}.older", top)
        os.makedirs("fresh", exist_ok=True)
        shutil.copy2(f"{flush}/key.aes", "fresh/key.aes")
        with daemon(*options, folder="fresh") as one:
            assert read_all(one) == pattern(size, 8)
            stopped(one)
        shutil.rmtree("fresh")


def test_a_second_signal_hurries():
    with daemon(*store("-store-size=1MiB", "-objstore-flushevery=1h")) as one:
        with Away():
            write_all(one, pattern(1 << 20, 7))
            one.process.send_signal(signal.SIGTERM)
            wait_for(20, "it publishes", lambda: "publishing before it stops" in one.log())
            began = time.monotonic()
            one.process.send_signal(signal.SIGTERM)
            same(one.process.wait(timeout=20), 3, f"exit status; its log:\n{one.log()}")
            assert time.monotonic() - began < 10
    with daemon(*store()) as one:
        assert read_all(one) == pattern(1 << 20, 7)
        stopped(one)


if __name__ == "__main__":
    main(globals())
