#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# How usbdsrvd is told what to do: -help and -version, good and bad flags with their exit statuses
# and messages, the environment, the configuration file, and which of them wins.
# Timeout: 120

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, nbdinfo, need, same  # noqa: E402

need("usbdsrvd", "usbdctl", "nbdinfo")
MIB = 1 << 20


def call(*words, program="usbdsrvd", **environment):
    """Runs a program that is to end by itself: (status, stdout, stderr)."""
    done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def refused(*words, says=(), status=2, **environment):
    """The program must end with `status` and one line on stderr with all of `says`."""
    got, out, err = call(*words, **environment)
    same(got, status, f"exit status of {words}: {err}")
    same(out, "", f"stdout of {words}")
    for part in says:
        assert part in err, f"{words}: {part!r} is not in {err!r}"
    return err


def size_served(*words, **environment):
    """The size of the volume that a daemon with these flags serves."""
    saved = dict(os.environ)
    os.environ.update(environment)
    try:
        with Daemon(*words) as daemon:
            return nbdinfo(daemon.uri())["exports"][0]["export-size"]
    finally:
        os.environ.clear()
        os.environ.update(saved)


def test_help_teaches_and_exits_0():
    for word in ("-help", "--help", "-help=true"):
        status, out, err = call(word)
        same((status, err), (0, ""), f"{word}: status and stderr")
        for part in ("-dev-type=mem|file|dedup|objstore", "-store-name=testfilevol", "/dev/nbd5",
                     "-dev-type=dedup -store-dir=/tmp", "mkfs.ext4 /dev/nbd0", "nbd+unix:///",
                     "Only with -dev-type=objstore", "-objstore-gctarget=", "-layer=SPEC"):
            assert part in out, f"{word}: {part!r} is missing"


def test_version_exits_0():
    for program in ("usbdsrvd", "usbdctl"):
        status, out, _ = call("-version", program=program)
        same(status, 0, f"{program}: status")
        assert out.startswith(f"{program} (usbd) "), out
        same(out.count("\n"), 1, "lines")


def test_usbdctl_says_which_commands_it_has():
    status, out, _ = call("-help", program="usbdctl")
    same(status, 0, "status of -help")
    assert "volume show|check|list-objects" in out
    status, _, err = call("ublk", "delete", program="usbdctl")
    same(status, 2, "status of a command")
    assert '"ublk"' in err and "volume" in err


def test_bad_flags_exit_2_and_name_flag_value_and_what_is_allowed():
    refused("-store-siz=1GiB", says=['unknown flag "-store-siz"', "-store-size"])
    refused("--nonsense", says=['unknown flag "--nonsense"', "-help"])
    refused("-dev-type=tape", says=["-dev-type", '"tape"', "mem", "file", "dedup", "objstore"])
    refused("-store-size=lots", says=["-store-size", '"lots"', "100MiB"])
    refused("-store-size", "-5GiB", says=["-store-size", '"-5GiB"', "negative"])
    refused("-store-size=9EiB", says=["-store-size", "8 EiB"])
    refused("-stop-timeout=10", says=["-stop-timeout", '"10"', "1m30s"])
    refused("-connections=65", says=["-connections", '"65"', "0 to 64"])
    refused("-read-only=maybe", says=["-read-only", '"maybe"', "true and false"])
    refused("-block-size=1024", says=["-block-size", '"1024"', "512, 4096"])
    refused("-export=usb", says=["-export", '"usb"', "unix:PATH"])
    refused("-layer=slow", says=["-layer", '"slow"', "delay"])
    refused("-store-name", says=["-store-name", "missing"])
    refused("-store-name=a/b", says=["-store-name", '"a/b"'])
    refused("/dev/sda", says=["/dev/sda", "/dev/nbdN"])
    refused("/dev/nbd0", "/dev/nbd1", says=["/dev/nbd1", "/dev/nbd0"])
    refused("-export=unix:x", "/dev/nbd0", says=["/dev/nbd0", "-export=nbd"])
    refused("-export=none", "-export=nbd", says=["-export=none"])
    refused("-store-dir=/nonexistent", says=["-store-dir", "/nonexistent", "existing directory"])


def test_flags_of_dedup_and_objstore_are_checked():
    for word in ("-dedup-memcache=1", "-dedup-compress=s2", "-objstore-kind=ftp",
                 "-objstore-objsize=x", "-objstore-diskcache=-1", "-objstore-persistcache=2",
                 "-objstore-flushevery=often", "-objstore-concurflush=x", "-objstore-aesmode=rot13",
                 "-objstore-compress=rar", "-objstore-flushmode=never",
                 "-objstore-maxdirtyage=1", "-objstore-journalsize=x", "-objstore-gctarget=0",
                 "-objstore-mapmem=1", "-objstore-timeout=x", "-objstore-takeover=x",
                 "-objstore-fencing=x", "-objstore-container="):
        refused(word, says=[word.split("=", maxsplit=1)[0]])
    refused("-objstore-cfg={\"port\":22}", says=["-objstore-cfg", '"port"', "string"])


def test_no_message_shows_a_secret():
    for word in ("-objstore-cfg={\"secret_key\":\"hunter2\"", "-objstore-aeskey=hunter2"):
        assert "hunter2" not in refused(word)
    err = refused("-dev-type=objstore", "-objstore-cfg={\"sekret\":\"hunter2\"}",
                  says=['"sekret"', "access_key_id"])
    assert "hunter2" not in err


def test_objstore_configuration_is_read_from_where_it_says():
    refused("-dev-type=objstore", "-objstore-kind=local", says=["requires the key path"])
    refused("-dev-type=objstore", "-objstore-cfg=@missing.json", says=["missing.json"])
    refused("-dev-type=objstore", "-objstore-cfg=env:NOT_SET", says=["NOT_SET"])
    with open("cfg.json", "w", encoding="utf-8") as file:
        file.write('{"paths": "/x"}')
    refused("-dev-type=objstore", "-objstore-kind=local", "-objstore-cfg=@cfg.json",
            says=['"paths"'])
    refused("-dev-type=objstore", "-objstore-kind=local", "-objstore-cfg=env:OBJ_CFG",
            says=['"patsh"'], OBJ_CFG='{"patsh": "/x"}')


def test_what_this_build_lacks_is_said_with_status_1():
    refused("-dev-type=dedup", status=1, says=["this build has no dedup device yet"])
    refused("-dev-type=objstore", "-objstore-kind=b2",
            '-objstore-cfg={"application_key":"k","account_id":"i"}', status=1,
            says=["this build has no store of that kind yet"])
    refused("-export=ublk", status=1, says=["this build has no ublk"])
    refused("/dev/ublkb0", status=1, says=["this build has no ublk"])


def test_flags_take_every_form():
    same(size_served("-store-size=3MiB"), 3 * MIB, "-flag=value")
    same(size_served("--store-size", "3 mib"), 3 * MIB, "--flag value")
    same(size_served("-store-size=1GiB", "-store-size=4MiB"), 4 * MIB, "the last one wins")
    same(size_served("-dev-type=memory", "-store-size=1,048,576"), MIB, "alias, commas")
    same(size_served("-store-size=1.5MiB"), 3 * MIB // 2, "fraction")
    same(size_served("-store-size=4MB"), (4_000_000 + 4095) // 4096 * 4096, "rounded up")
    same(size_served("-store-size=1M"), (1_000_000 + 4095) // 4096 * 4096, "decimal")


def test_flags_of_another_device_type_are_ignored_with_a_warning():
    with Daemon("-dedup-memcache=1GiB", "-objstore-kind=b2", "-file-direct") as daemon:
        for flag in ("-dedup-memcache", "-objstore-kind", "-file-direct"):
            assert f"warning: {flag} is not for -dev-type=mem; ignored" in daemon.log()


def test_environment_sets_what_flags_do_not():
    same(size_served(USBD_STORE_SIZE="5MiB"), 5 * MIB, "variable")
    same(size_served("-store-size=6MiB", USBD_STORE_SIZE="5MiB"), 6 * MIB, "flag wins")
    same(size_served("-store-size=6MiB", USBD_STORE_SIZE=""), 6 * MIB, "empty variable")
    refused(says=["USBD_STORE_SIZE", '"x"'], USBD_STORE_SIZE="x")
    saved = dict(os.environ)
    os.environ["USBD_STROE_SIZE"] = "1"
    with Daemon() as daemon:
        assert "USBD_STROE_SIZE is no setting; is USBD_STORE_SIZE meant?" in daemon.log()
    del os.environ["USBD_STROE_SIZE"]
    same(dict(os.environ), saved, "environment")


def test_file_sets_what_flags_and_environment_do_not():
    with open("c.toml", "w", encoding="utf-8") as file:
        file.write('store-size = "7MiB"\nblock-size = 512\nlayer = ["stats"]\n')
    same(size_served("-config=c.toml"), 7 * MIB, "file")
    same(size_served(USBD_CONFIG="c.toml"), 7 * MIB, "file named by the environment")
    same(size_served("-config=c.toml", USBD_STORE_SIZE="5MiB"), 5 * MIB, "environment wins")
    same(size_served("-config=c.toml", "-store-size=6MiB", USBD_STORE_SIZE="5MiB"), 6 * MIB,
         "flag wins")


def test_file_describes_one_volume():
    with open("one.toml", "w", encoding="utf-8") as file:
        file.write('store-size = "7MiB"\n[[volume]]\nstore-size = "8MiB"\n')
    same(size_served("-config=one.toml"), 8 * MIB, "the volume's own setting")
    with open("two.toml", "w", encoding="utf-8") as file:
        file.write('[[volume]]\nstore-name = "a"\n[[volume]]\nstore-name = "b"\n')
    refused("-config=two.toml", says=["two.toml line 3", "2 volumes", "one"])


def test_bad_files_are_named_with_the_line():
    refused("-config=missing.toml", says=["-config", "missing.toml"])
    for text, says in (("store-size = ", "is not TOML"), ('\nstor-size = "1"\n', "line 2"),
                       ("block-size = 1024\n", '"1024"'), ("config = \"x\"\n", "config")):
        with open("bad.toml", "w", encoding="utf-8") as file:
            file.write(text)
        refused("-config=bad.toml", says=["bad.toml line", says])


main(globals())
