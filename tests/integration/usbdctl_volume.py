#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# usbdctl volume show, check and list-objects on an objstore volume in a directory: while its daemon
# serves it, after a stop, after a kill, with damage of every kind, without its key, and where there
# is no volume. Nothing that usbdctl does may change a file.
# Timeout: 150

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import main, need, same, skip, wait_for  # noqa: E402

need("usbdsrvd", "usbdctl")
try:
    import nbd
except ImportError:
    skip("python3-libnbd is not installed")
from objstore_lib import connect, daemon, pattern, write_all  # noqa: E402

MIB = 1 << 20
KIB = 1 << 10
FRAME = 64 * KIB
HEADER = 128  # of a data object
SEALED = FRAME + 16  # a frame that cannot be compressed, with its tag
SIZE = 24 * MIB
FINE, FAILED, USAGE, DAMAGED = range(4)
SHOW_KEYS = ["volume", "store", "type", "format_version", "id", "size_bytes",
             "logical_block_bytes", "cipher", "key", "head", "checkpoint", "codec", "created",
             "bucket", "space", "snapshots", "parent", "local", "needs_key"]
HEAD_KEYS = ["proven", "version", "epoch", "writer", "journal", "clean", "last_seq", "last_write",
             "epochs_listed"]
SPACE_KEYS = ["objects_in_use", "objects_pending", "mapped_bytes", "stored_bytes", "live_bytes",
              "ratio", "unreadable_parts"]
JOURNAL_KEYS = ["file", "state", "held_by", "file_bytes", "written_seconds_ago", "id",
                "belongs_to_head", "epoch", "session", "ring_bytes", "used_bytes",
                "unpublished_changes", "unpublished_bytes", "damage"]
OBJECT_KEYS = ["name", "kind", "state", "bytes", "epoch", "seq", "first_write", "last_write",
               "extents", "blocks", "live_blocks", "stored_bytes", "live_bytes"]
CHECK_KEYS = ["volume", "store", "damage", "notes", "local", "totals", "error", "verdict"]
FINDING_KEYS = ["object", "what", "damaged_bytes", "exact", "ranges", "ranges_omitted"]


def place():
    os.makedirs("store", exist_ok=True)
    return ["-objstore-kind=local", f'-objstore-cfg={{"path":"{os.path.abspath("store")}"}}']


def start(*options):
    return daemon(*place(), "-store-size=24MiB", "-objstore-journalsize=8MiB",
                  "-objstore-objsize=1MiB", *options)


def stop(one, status=0):
    same(one.stop(), status, f"exit status; its log:\n{one.log()}")


def files():
    """Every file of bucket and local directory, and what is in it."""
    found = {}
    for top in ("store", "d"):
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def call(*words, **environment):
    done = subprocess.run(["usbdctl", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60, check=False, env={**os.environ, **environment})
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def ctl(command, *options, status=FINE, folder="d", volume="vol"):
    """What the command prints as JSON; it must end with `status`."""
    words = ["volume", command, *place(), "-objstore-container=bucket", f"--store-dir={folder}",
             f"--store-name={volume}", *options]
    code, out, err = call(*words, "--json")
    same(code, status, f"exit status of {command} {options}: {out}{err}")
    text_code, text, _ = call(*words)
    same(text_code, status, "exit status without --json")
    assert text or status != FINE, "nothing was printed"
    document = json.loads(out) if out else None
    return document, text, err


def written(image=None):
    """A stopped volume that `image` was written to once, from start to end."""
    image = image or pattern(SIZE, 5)
    with start() as one:
        write_all(one, image)
        stop(one)
    return image


def published_and_killed():
    """The same, but the daemon was killed when all was published: there is no checkpoint."""
    with start("-objstore-flushmode=remote") as one:
        write_all(one, pattern(SIZE, 5))
        one.kill()
    same(ctl("show")[0]["checkpoint"], None, "checkpoint")


def data_objects():
    listed, _, _ = ctl("list-objects")
    return [one for one in listed["objects"] if one["kind"] == "data"]


def object_path(name):
    path = f"store/bucket/{name},obj"
    assert os.path.exists(path), f"{path} is not there"
    return path


def flip(path, offset, length=1):
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0x41 for byte in old))


def ranges_of(finding):
    return [(one["offset"], one["length"]) for one in finding["ranges"]]


def unreadable(*options):
    """The ranges, in frames, that a daemon cannot read."""
    found = []
    with start("-read-only", *options) as one:
        handle = connect(one)
        for at in range(0, SIZE, 4096):
            try:
                handle.pread(4096, at)
            except nbd.Error:
                if found and found[-1][0] + found[-1][1] == at:
                    found[-1] = (found[-1][0], found[-1][1] + 4096)
                else:
                    found.append((at, 4096))
        handle.shutdown()
        stop(one)
    return found


def checked(status, **options):
    before = files()
    document, text, err = ctl("check", status=status, **options)
    assert before == files(), "check has changed a file"
    same(list(document), CHECK_KEYS, "keys of check")
    for finding in document["damage"]:
        same(list(finding), FINDING_KEYS, "keys of a finding")
        assert finding["object"] in text and "DAMAGED" in text, text
        same(sum(length for _, length in ranges_of(finding)), finding["damaged_bytes"], "bytes")
    verdict = "damaged" if status == DAMAGED else "sound"
    same(document["verdict"], verdict, f"verdict: {text}{err}")
    same(document["totals"]["damage"], len(document["damage"]), "findings")
    return document


# --- sound volumes --------------------------------------------------------------------------------

def test_help_teaches_at_every_level():
    for words in (["--help"], ["-h"], ["volume", "--help"], ["volume", "show", "--help"],
                  ["volume", "check", "-help"], ["volume", "list-objects", "-h"]):
        status, out, err = call(*words)
        same((status, err), (FINE, ""), f"{words}")
        for part in ("usbdctl", "Exit status:", "3  check has found damage"):
            assert part in out, f"{words}: {part!r} is missing in {out}"
    assert "--objstore-cfg=JSON" in call("volume", "check", "--help")[1]


def test_bad_usage_exits_2():
    for words, says in ((["fly"], "fly"), ([], "--help"), (["volume"], "which command"),
                        (["volume", "burn"], "burn"), (["volume", "show", "--nope"], "--nope"),
                        (["volume", "show", "-dev-type=mem"], "objstore"),
                        (["volume", "show", "-store-dir=/nowhere"], "/nowhere"),
                        (["volume", "check", "/dev/nbd0"], "/dev/nbd0"),
                        (["volume", "check", "-objstore-cfg={"], "JSON")):
        status, out, err = call(*words)
        same((status, out), (USAGE, ""), f"{words}: {err}")
        assert says in err, f"{words}: {err}"
        same(err.count("\n"), 1, f"lines of {err!r}")


def test_an_open_volume_is_shown_as_it_is_published():
    image = pattern(SIZE, 3)
    with start("-objstore-flushevery=100ms") as one:
        write_all(one, image)
        wait_for(20, "all is published",
                 lambda: ctl("show")[0]["space"]["mapped_bytes"] == SIZE)
        shown, text, err = ctl("show")
        same(err, "", "stderr")
        same(list(shown), SHOW_KEYS, "keys")
        same(list(shown["head"]), HEAD_KEYS, "keys of head")
        same(list(shown["space"]), SPACE_KEYS, "keys of space")
        same(shown["head"]["clean"], False, "clean")
        same(shown["key"]["state"], "usable", "key")
        same(shown["size_bytes"], SIZE, "size")
        same(shown["cipher"], "aes-gcm", "cipher")
        assert "cipher: aes-gcm" in text and "24.0 MiB" in text, text
        journal = shown["local"]["journals"][0]
        same(list(journal), JOURNAL_KEYS, "keys of a journal")
        same(journal["held_by"], f"process {one.process.pid}", "holder")
        found, text, err = ctl("check")
        same((found["verdict"], found["damage"]), ("sound", []), err)
        same(found["totals"]["mapped_bytes"], SIZE, "mapped")
        assert "is in use by process" in found["notes"][0], found["notes"]
        states = {row["state"] for row in ctl("list-objects")[0]["objects"]}
        assert states <= {"in-use", "unpublished"}, states
        stop(one)


def test_a_stopped_volume_is_clean_and_sound():
    written()
    shown, _, _ = ctl("show")
    same(shown["head"]["clean"], True, "clean")
    same(shown["codec"], "lz4", "codec")
    same(shown["space"]["mapped_bytes"], SIZE, "mapped")
    assert shown["space"]["stored_bytes"] > SIZE, shown["space"]
    same(shown["bucket"]["data"]["objects"], shown["space"]["objects_in_use"], "data objects")
    journal = shown["local"]["journals"][0]
    same((journal["state"], journal["held_by"]), ("current", None), "journal")
    same((journal["unpublished_changes"], journal["damage"]), (0, None), "journal")
    found = checked(FINE)
    same(found["totals"]["frames"], SIZE // FRAME, "frames")
    rows = ctl("list-objects")[0]["objects"]
    for row in rows:
        same(list(row), OBJECT_KEYS, "keys of an object")
        same(row["state"], "in-use", row["name"])
    data = [row for row in rows if row["kind"] == "data"]
    same(sum(row["live_blocks"] for row in data), SIZE // 4096, "live blocks")
    same(data[0]["first_write"], 1, "first write")
    assert all(row["extents"] >= 1 for row in data), data


def test_what_a_kill_leaves_in_the_journal_is_counted():
    with start("-objstore-flushevery=0") as one:
        handle = connect(one)
        handle.pwrite(pattern(300 * KIB, 8), 4 * MIB)
        handle.trim(MIB, 8 * MIB)
        handle.flush()
        beside = ctl("show")[0]["local"]["journals"][0]
        same(beside["held_by"], f"process {one.process.pid}", "holder")
        same((beside["unpublished_bytes"], beside["belongs_to_head"]), (300 * KIB, True), "beside")
        one.kill()
    shown, text, _ = ctl("show")
    journal = shown["local"]["journals"][0]
    same((journal["state"], journal["belongs_to_head"]), ("current", True), "journal")
    same(journal["unpublished_bytes"], 300 * KIB, "unpublished")
    assert journal["unpublished_changes"] >= 2, journal
    assert journal["used_bytes"] > 300 * KIB, journal
    same(shown["head"]["clean"], False, "clean")
    assert "unpublished bytes: 300.0 KiB" in text, text
    checked(FINE)
    os.rename("d/vol.objstore/" + journal["file"],
              "d/vol.objstore/" + journal["file"] + ".kept")
    aside = ctl("show")[0]["local"]["journals"][0]
    same((aside["state"], aside["unpublished_bytes"]), ("aside", 300 * KIB), "put aside")


# --- damage ---------------------------------------------------------------------------------------

def test_flipped_bytes_cost_just_their_frames():
    written()
    objects = data_objects()
    expected = {}
    base = 0
    for index, row in enumerate(objects):
        if index in (1, 3, 4):
            flip(object_path(row["name"]), HEADER + 2 * SEALED + 77)
            expected[row["name"]] = [(base + 2 * FRAME, FRAME)]
        if index == 3:  # the frame behind it as well: one range
            flip(object_path(row["name"]), HEADER + 3 * SEALED + 5)
            expected[row["name"]] = [(base + 2 * FRAME, 2 * FRAME)]
        base += row["blocks"] * 4096
    found = checked(DAMAGED)
    got = {one["object"]: ranges_of(one) for one in found["damage"]}
    same(got, expected, "ranges")
    assert all(one["exact"] for one in found["damage"]), found
    same(unreadable(), sorted(sum(expected.values(), [])), "what a daemon cannot read")


def test_overwritten_blocks_of_a_damaged_frame_are_not_lost():
    image = bytearray(written())
    first = data_objects()[0]
    with start() as one:
        handle = connect(one)
        handle.pwrite(pattern(4096, 9), 4096)
        handle.trim(8192, 5 * 4096)
        handle.shutdown()
        stop(one)
    same(len(image), SIZE, "size")
    flip(object_path(first["name"]), HEADER + 10)
    found = checked(DAMAGED)
    same(len(found["damage"]), 1, "findings")
    same(ranges_of(found["damage"][0]), [(0, 4096), (8192, 3 * 4096), (7 * 4096, 9 * 4096)],
         "ranges")


def test_a_header_at_the_start_costs_nothing():
    written()
    flip(object_path(data_objects()[0]["name"]), 40)
    found = checked(DAMAGED)
    same([(one["damaged_bytes"], one["exact"]) for one in found["damage"]], [(0, True)], "findings")
    assert "header" in found["damage"][0]["what"], found
    same(unreadable(), [], "what a daemon cannot read")


def damaged_in_turn(victim):
    """Does what may happen to an object, one after the other, and undoes it each time."""
    path = object_path(victim["name"])
    for damage in ("remove", "cut", "directory"):
        shutil.copy2(path, "saved")
        if damage == "remove":
            os.remove(path)
        elif damage == "cut":
            os.truncate(path, 100_000)
        else:
            flip(path, os.path.getsize(path) - 48 - 176 - 30)
        yield damage
        shutil.copy2("saved", path)


def test_an_object_that_is_gone_or_cut_may_have_changed_what_no_later_one_wrote():
    published_and_killed()
    objects = data_objects()
    victim = objects[2]
    for damage in damaged_in_turn(victim):
        found = checked(DAMAGED)
        same([one["object"] for one in found["damage"]], [victim["name"]], damage)
        finding = found["damage"][0]
        same(finding["exact"], False, damage)
        # Objects behind it say where their blocks are; those before it may have been overwritten.
        end = sum(row["blocks"] for row in objects[:3]) * 4096
        same(ranges_of(finding), [(0, end)], damage)
        states = {row["name"]: row["state"] for row in ctl("list-objects")[0]["objects"]}
        same(states[victim["name"]], "missing" if damage == "remove" else "in-use", damage)
        same(ctl("show")[0]["space"]["unreadable_parts"], 1, damage)
    checked(FINE)


def test_an_object_of_the_checkpoint_that_is_gone_or_cut_costs_what_it_held():
    written()
    objects = data_objects()
    victim = objects[2]
    first = sum(row["blocks"] for row in objects[:2]) * 4096
    for damage in damaged_in_turn(victim):
        found = checked(DAMAGED)
        same([one["object"] for one in found["damage"]], [victim["name"]], damage)
        finding = found["damage"][0]
        same(finding["exact"], True, damage)
        same(ranges_of(finding), [(first, victim["blocks"] * 4096)], damage)
        # A store that knows of the damage is not asked again and again.
        same(unreadable(), ranges_of(finding), damage)
        same(ctl("show")[0]["space"]["unreadable_parts"], 0, damage)
    checked(FINE)


def test_objects_that_nobody_knows_are_marked():
    written()
    known = object_path(data_objects()[0]["name"])
    folder = os.path.dirname(known)
    shutil.copy2(known, f"{folder}/00000000000fffff,obj")
    with open("store/bucket/vol/d/strange", "wb") as file:
        file.write(b"?")
    checked(FINE)
    rows, text, _ = ctl("list-objects")
    orphans = [row["name"] for row in rows["objects"] if row["state"] == "orphan"]
    same(len(orphans), 1, "orphans")
    assert orphans[0].endswith("/00000000000fffff"), orphans
    same(rows["totals"]["orphan"]["objects"], 1, "total")
    assert "orphan" in text, text


def test_a_damaged_head_is_damage_of_all():
    written()
    path = object_path("vol/head")
    for offset in (3, 40, 210, 330):
        shutil.copy2(path, "saved")
        flip(path, offset)
        found = checked(DAMAGED)
        same([one["object"] for one in found["damage"]], ["vol/head"], f"flipped at {offset}")
        ctl("show", status=FAILED)
        ctl("list-objects", status=FAILED)
        shutil.copy2("saved", path)
    os.remove(path)
    found = checked(DAMAGED)
    assert "is missing" in found["damage"][0]["what"], found
    shutil.copy2("saved", path)
    checked(FINE)


def test_rot_in_the_journal_is_found_and_nothing_is_changed():
    with start("-objstore-flushevery=0") as one:
        handle = connect(one)
        for at in range(4):
            handle.pwrite(pattern(64 * KIB, at), at * MIB)
            handle.flush()
        one.kill()
    name = ctl("show")[0]["local"]["journals"][0]["file"]
    checked(FINE)
    ring = f"d/vol.objstore/{name}"
    flip(ring, 8192 + 4096 + 100)  # the payload of the first record
    found = checked(DAMAGED)
    same([one["object"] for one in found["damage"]], [name], "findings")
    assert "cannot be read" in found["damage"][0]["what"], found
    # It is not replayed, nor is any behind it.
    same(ranges_of(found["damage"][0]), [(at * MIB, 64 * KIB) for at in range(4)], "ranges")
    same(found["damage"][0]["exact"], True, "exact")
    flip(ring, 8192 + 30)  # its header as well: nobody knows what it was
    found = checked(DAMAGED)
    same(ranges_of(found["damage"][0]), [(at * MIB, 64 * KIB) for at in range(1, 4)], "ranges")
    same(found["damage"][0]["exact"], False, "exact")
    shown, _, _ = ctl("show")
    assert shown["local"]["journals"][0]["damage"], shown


# --- keys, and what is no volume ------------------------------------------------------------------

def test_without_the_key_the_plain_parts_are_shown():
    written()
    os.rename("d/key.aes", "key.aes")
    shown, text, err = ctl("show")
    same(shown["key"]["state"], "missing", "key")
    same(shown["space"], None, "space")
    same(shown["size_bytes"], SIZE, "size")
    same(shown["head"]["proven"], False, "proven")
    same(shown["local"]["journals"][0]["unpublished_changes"], None, "unpublished")
    assert "space" in shown["needs_key"] and "key.aes" in err, err
    rows, _, _ = ctl("list-objects")
    assert all(row["state"] == "unknown" and row["extents"] for row in rows["objects"]
               if row["kind"] == "data"), rows
    _, _, err = ctl("check", status=FAILED)
    assert "needs the key" in err, err
    ctl("check", "-objstore-aeskey=file:" + os.path.abspath("key.aes"))


def test_another_key_is_said_to_be_one():
    written()
    other = "-objstore-aeskey=key:" + "ab" * 32
    for command in ("show", "list-objects", "check"):
        _, _, err = ctl(command, other, status=FAILED)
        assert "not the key" in err and "abab" not in err, err


def test_a_volume_without_encryption_needs_none():
    with start("-objstore-aesmode=identity", "-objstore-compress=zstd") as one:
        write_all(one, pattern(SIZE, 4))
        stop(one)
    shown, _, _ = ctl("show")
    same((shown["cipher"], shown["key"]["state"], shown["codec"]),
         ("identity", "not needed", "zstd"), "show")
    checked(FINE)


def test_where_there_is_no_volume_it_says_what_there_is():
    written()
    _, _, err = ctl("show", status=FAILED, volume="nobody")
    assert "there is no volume nobody" in err and "vol/" in err, err
    for command in ("show", "check", "list-objects"):
        ctl(command, status=FAILED, volume="nobody")
    shutil.rmtree("store/bucket/vol")
    shutil.rmtree("d/vol.objstore")  # as long as it is there, no new volume is made
    os.makedirs("store/bucket/osbd-dev_vol")
    with start() as one:  # something to copy: a store in a directory lists only its own files
        stop(one)
    shutil.copy2(object_path("vol/head"), "store/bucket/osbd-dev_vol/0000,obj")
    shutil.rmtree("store/bucket/vol")
    _, _, err = ctl("check", status=FAILED)
    assert "osbd-dev_vol/0000" in err, err
    _, _, err = ctl("show", "-objstore-container=nothing", status=FAILED)
    assert "nothing" in err, err
    assert not os.path.exists("store/nothing"), "the container was made"


def test_the_key_is_not_seen_in_the_process_list():
    written()
    os.rename("d/key.aes", "key.aes")
    os.mkfifo("d/key.aes")
    key = "cd" * 32
    process = subprocess.Popen(
        ["usbdctl", "volume", "show", *place(), "-objstore-container=bucket", "-store-dir=d",
         "-store-name=vol", "-objstore-aeskey=fd:0", "-config=d/key.aes",
         "-objstore-aeskey", f"key:{key}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        # It hides them before it reads its configuration, which does not come.
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            def words():
                file.seek(0)
                return file.read()
            wait_for(10, "the key is hidden", lambda: key.encode() not in words())
            assert b"store/" not in words() or b'"path"' not in words(), words()
    finally:
        process.kill()
        process.communicate()


main(globals())
