// SPDX-License-Identifier: Apache-2.0
//
// A client that has several reads under way does not always send them in order: one that comes a
// read too early goes on as well, and one that comes late changes nothing.

#include "devices/objstore/read_streams.h"

#include <algorithm>

namespace usbd::objstore {
namespace {

/// How many reads of the same length one may be late.
constexpr uint64_t kLateReads = 4;

}  // namespace

BlockRange ReadStreams::go_on(Stream& stream, BlockRange read) {
  stream.next = read.end();
  if (++stream.steps < limits::kReadAheadAfter) return {};
  const uint64_t from = std::max(stream.ahead_until, stream.next);
  if (from >= stream.next + stream.window / 2 + 1) return {};
  const uint64_t until = stream.next + stream.window;
  stream.window = std::min<uint64_t>(stream.window * 2, limits::kReadAheadBlocksMax);
  stream.ahead_until = until;
  return {from, until - from};
}

BlockRange ReadStreams::note(BlockRange read) {
  if (read.count == 0) return {};
  Stream* oldest = streams_.data();
  for (Stream& stream : streams_) {
    const bool on = read.first >= stream.next && read.first - stream.next <= read.count;
    const bool late =
        read.end() <= stream.next && stream.next - read.end() <= kLateReads * read.count;
    if (on || late) {
      stream.used = ++uses_;
      return on ? go_on(stream, read) : BlockRange();
    }
    if (stream.used < oldest->used) oldest = &stream;
  }
  *oldest = Stream{.next = read.end(), .used = ++uses_};
  return {};
}

}  // namespace usbd::objstore
