#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
#
# The transmission phase as libnbd sees it: every command and flag, simple and structured replies,
# and every error, after which the connection must go on. Run by the system's own Python, for which
# libnbd's package has a module.
# Timeout: 180

import errno
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Daemon, main, need, same, skip  # noqa: E402

try:
    import nbd
except ImportError:
    skip("python3-libnbd is not installed")

need("usbdsrvd")
KIB, MIB = 1 << 10, 1 << 20
HOLE_ZERO = nbd.STATE_HOLE | nbd.STATE_ZERO
SIZE = 64 * MIB


class Connection:
    """A libnbd handle; `unchecked`: it sends also what the server is known to refuse."""

    def __init__(self, daemon, structured=True, unchecked=False, export=""):
        self.handle = nbd.NBD()
        self.handle.set_request_structured_replies(structured)
        if structured:
            self.handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        if unchecked:
            self.handle.set_strict_mode(0)
        self.handle.connect_uri(daemon.uri(export))

    def __enter__(self):
        return self.handle

    def __exit__(self, kind, value, trace):
        self.handle.shutdown()


def mem(*options):
    return Daemon("-dev-type=mem", f"-store-size={SIZE // MIB}MiB", *options)


def file(*options):
    return Daemon("-dev-type=file", "-store-dir=.", f"-store-size={SIZE // MIB}MiB", *options)


def fails_with(number, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except nbd.Error as error:
        same(error.errnum, number, f"error of {call.__name__}{arguments[1:]} ({error})")
        return
    raise AssertionError(f"{call.__name__}{arguments[1:]} should have failed")


def extents(handle, length, offset, flags=0):
    seen = []
    handle.block_status(length, offset,
                        lambda context, at, entries, error: seen.append((context, at, entries)),
                        flags)
    same([(context, at) for context, at, _ in seen], [(nbd.CONTEXT_BASE_ALLOCATION, offset)],
         "contexts")
    numbers = seen[0][2]
    return list(zip(numbers[0::2], numbers[1::2]))


def chunks(handle, length, offset, flags=0):
    seen = []
    data = handle.pread_structured(
        length, offset, lambda part, at, status, error: seen.append((at, len(part), status)), flags)
    return bytes(data), seen


def both(test):
    """Runs a test on mem and on file."""
    for daemon in (mem, file):
        os.makedirs(daemon.__name__)
        os.chdir(daemon.__name__)
        with daemon() as server:
            test(server)
        os.chdir("..")


def test_reads_return_what_was_written_at_any_alignment():
    def check(daemon):
        for structured in (True, False):
            with Connection(daemon, structured) as h:
                same(h.get_structured_replies_negotiated(), structured, "structured replies")
                for offset, length in ((0, 1), (511, 2), (4095, 4098), (1 * MIB + 3, 3 * MIB),
                                       (SIZE - 1, 1), (SIZE - 32 * MIB, 32 * MIB)):
                    data = os.urandom(length)
                    h.pwrite(data, offset)
                    assert bytes(h.pread(length, offset)) == data, (offset, length)
    both(check)


def test_structured_reads_cover_the_range_and_df_is_one_chunk():
    def check(daemon):
        with Connection(daemon) as h:
            assert h.can_df()
            data = os.urandom(3 * MIB)
            h.pwrite(data, 5000)
            for flags in (0, nbd.CMD_FLAG_DF):
                got, seen = chunks(h, len(data) + 8192, 5000 - 4096, flags)
                same(got, bytes(4096) + data + bytes(4096), "data")
                same(sum(length for _, length, _ in seen), len(got), "length of the chunks")
                if flags:
                    same(len(seen), 1, "chunks with DF")
                    same(seen[0][2], nbd.READ_DATA, "kind of the chunk")
    both(check)


def test_trim_and_zero_free_space_and_read_as_zeros():
    def check(daemon):
        with Connection(daemon) as h:
            h.pwrite(b"\xff" * 8 * MIB, 0)
            same(extents(h, 8 * MIB, 0), [(8 * MIB, 0)], "all data")
            h.trim(1 * MIB, 1 * MIB)
            h.zero(1 * MIB, 3 * MIB)
            h.zero(1 * MIB, 5 * MIB, nbd.CMD_FLAG_NO_HOLE)
            h.zero(1 * MIB, 7 * MIB, nbd.CMD_FLAG_FUA)
            h.trim(1001, 6 * MIB + 5)
            expected = bytearray(b"\xff" * 8 * MIB)
            for offset, length in ((1 * MIB, MIB), (3 * MIB, MIB), (5 * MIB, MIB), (7 * MIB, MIB),
                                   (6 * MIB + 5, 1001)):
                expected[offset:offset + length] = bytes(length)
            assert bytes(h.pread(8 * MIB, 0)) == bytes(expected)
            same(extents(h, 1 * MIB, 1 * MIB), [(1 * MIB, HOLE_ZERO)], "trimmed")
            same(extents(h, 1 * MIB, 3 * MIB), [(1 * MIB, HOLE_ZERO)], "zeroed")
            not_a_hole = extents(h, 1 * MIB, 5 * MIB)
            assert all(not flags & nbd.STATE_HOLE for _, flags in not_a_hole), not_a_hole
    both(check)


def test_trims_and_zeroings_of_almost_4_gib_end_quickly():
    for device in ("mem", "file"):
        options = (f"-dev-type={device}", "-store-dir=.", "-store-size=8GiB")
        with Daemon(*options, name=device) as daemon:
            with Connection(daemon) as h:
                h.pwrite(b"\xff" * MIB, 4 << 30)
                length = (4 << 30) - 4096
                h.trim(length, MIB)
                h.zero(length, 8192)
                h.pwrite(b"end", (4 << 30) + 5000)
                same(bytes(h.pread(3, (4 << 30) + 5000)), b"end", "write after zeroing")
                same(bytes(h.pread(4096, (4 << 30) - 4096)), bytes(4096), "zeroed")


def test_fast_zero_is_fast_or_refused_and_then_changes_nothing():
    def check(daemon):
        with Connection(daemon, unchecked=True) as h:
            h.pwrite(b"\xff" * MIB, 0)
            promised = h.can_fast_zero()
            try:
                h.zero(MIB, 0, nbd.CMD_FLAG_FAST_ZERO)
                same(promised, True, "a fast zeroing that was done had been offered")
                same(bytes(h.pread(MIB, 0)), bytes(MIB), "zeroed")
            except nbd.Error as error:
                same(error.errnum, errno.ENOTSUP if promised else errno.EINVAL, str(error))
                assert bytes(h.pread(MIB, 0)) == b"\xff" * MIB
    both(check)


def test_block_status_with_req_one_stays_within_the_request():
    def check(daemon):
        with Connection(daemon) as h:
            h.pwrite(b"x" * 64 * KIB, 1 * MIB)
            same(extents(h, 4 * KIB, 1 * MIB, nbd.CMD_FLAG_REQ_ONE), [(4 * KIB, 0)], "one, data")
            same(extents(h, 3 * MIB, 0, nbd.CMD_FLAG_REQ_ONE), [(1 * MIB, HOLE_ZERO)], "one, hole")
            seen = extents(h, 3 * MIB, 0)
            assert len(seen) >= 2 and seen[:2] == [(1 * MIB, HOLE_ZERO), (64 * KIB, 0)], seen
    both(check)


def test_flush_fua_and_cache_succeed():
    def check(daemon):
        with Connection(daemon) as h:
            assert h.can_flush() and h.can_fua() and h.can_cache() and h.can_multi_conn()
            h.pwrite(b"durable", 12345, nbd.CMD_FLAG_FUA)
            h.trim(4096, 65536, nbd.CMD_FLAG_FUA)
            h.flush()
            h.cache(1 * MIB, 0)
            same(bytes(h.pread(7, 12345)), b"durable", "data")
    both(check)


def test_a_flush_on_one_connection_sees_the_others():
    with file() as daemon:
        with Connection(daemon) as one, Connection(daemon) as two:
            one.pwrite(b"shared", 0)
            two.flush()
            same(bytes(two.pread(6, 0)), b"shared", "data")
            with open("vol.bin", "rb") as volume:
                same(volume.read(6), b"shared", "the file")


def test_errors_are_told_and_the_connection_goes_on():
    def check(daemon):
        for structured in (True, False):
            with Connection(daemon, structured, unchecked=True) as h:
                fails_with(errno.EINVAL, h.pread, 4096, SIZE)
                fails_with(errno.EINVAL, h.pread, 4096, SIZE - 1)
                fails_with(errno.EINVAL, h.pread, 4096, (1 << 64) - 4096)
                fails_with(errno.ENOSPC, h.pwrite, b"x" * 4096, SIZE)
                fails_with(errno.ENOSPC, h.pwrite, b"x" * 4096, SIZE - 4095)
                fails_with(errno.ENOSPC, h.zero, 4096, SIZE)
                fails_with(errno.EINVAL, h.trim, 4096, SIZE)
                fails_with(errno.EINVAL, h.cache, 4096, SIZE)
                fails_with(errno.EINVAL, h.pread, 33 * MIB, 0)
                fails_with(errno.EINVAL, h.pwrite, bytes(33 * MIB), 0)
                fails_with(errno.EINVAL, h.pwrite, b"x", 0, nbd.CMD_FLAG_REQ_ONE)
                fails_with(errno.EINVAL, h.trim, 4096, 0, nbd.CMD_FLAG_NO_HOLE)
                fails_with(errno.EINVAL, h.pread, 512, 0, 1 << 15)
                h.pwrite(b"alive", 0)
                same(bytes(h.pread(5, 0)), b"alive", "after the errors")
    both(check)


def test_requests_of_no_length_do_not_disconnect():
    with mem() as daemon, Connection(daemon, unchecked=True) as h:
        for call, arguments in ((h.pread, (0, 0)), (h.pwrite, (b"", 0)), (h.trim, (0, 0)),
                                (h.zero, (0, 0)), (h.cache, (0, 0))):
            try:
                call(*arguments)
            except nbd.Error as error:
                same(error.errnum, errno.EINVAL, str(error))
        same(bytes(h.pread(1, 0)), b"\0", "after them")


def test_block_status_without_its_context_is_refused():
    with mem() as daemon:
        h = nbd.NBD()
        h.set_strict_mode(0)
        h.connect_uri(daemon.uri())
        same(h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION), False, "context")
        fails_with(errno.EINVAL, h.block_status, 4096, 0, lambda *_: 0)
        same(bytes(h.pread(1, 0)), b"\0", "after it")
        h.shutdown()


def test_a_read_only_export_refuses_changes():
    with mem("-read-only") as daemon, Connection(daemon, unchecked=True) as h:
        assert h.is_read_only()
        for call, arguments in ((h.pwrite, (b"x" * 512, 0)), (h.trim, (512, 0)),
                                (h.zero, (512, 0)), (h.pwrite, (b"x" * 512, SIZE))):
            fails_with(errno.EPERM, call, *arguments)
        h.flush()
        same(bytes(h.pread(512, 0)), bytes(512), "data")


def test_contexts_are_listed_and_chosen_per_export():
    with mem() as daemon:
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.connect_uri(daemon.uri())

        def listed(*queries):
            names = []
            h.clear_meta_contexts()
            for query in queries:
                h.add_meta_context(query)
            h.opt_list_meta_context(names.append)
            return names

        same(listed(), ["base:allocation"], "with no query")
        same(listed("base:"), ["base:allocation"], "with the wildcard")
        same(listed("x-unknown:thing", "base:allocation"), ["base:allocation"], "with two")
        same(listed("base:other", "qemu:"), [], "with none that is known")
        h.add_meta_context("base:allocation")
        h.set_export_name("vol")
        h.opt_info()
        same(h.get_size(), SIZE, "size")
        h.opt_go()
        same(h.can_meta_context("qemu:"), False, "an unknown context")
        same(extents(h, 4096, 0), [(4096, HOLE_ZERO)], "status by the export's name")
        h.shutdown()


def test_many_requests_in_flight_are_all_answered_soon():
    with file() as daemon, Connection(daemon) as h:
        start = time.monotonic()
        pending = []
        for block in range(500):
            buffer = nbd.Buffer.from_bytearray(bytearray([block % 251]) * 4096)
            pending.append(h.aio_pwrite(buffer, block * 4096))
        while pending:
            h.poll(1000)
            pending = [cookie for cookie in pending if not h.aio_command_completed(cookie)]
        taken = time.monotonic() - start
        assert taken < 5, f"500 writes into the page cache took {taken:.1f} seconds"
        for block in range(500):
            assert bytes(h.pread(4096, block * 4096)) == bytes([block % 251]) * 4096, block


main(globals())
