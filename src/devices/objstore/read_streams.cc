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

ReadStreams::Found ReadStreams::find(BlockRange read) {
  Stream* oldest = streams_.data();
  for (Stream& stream : streams_) {
    const bool on = read.first >= stream.next && read.first - stream.next <= read.count;
    const bool late =
        read.end() <= stream.next && stream.next - read.end() <= kLateReads * read.count;
    if (on || late) return {.stream = &stream, .goes_on = on};
    if (stream.used < oldest->used) oldest = &stream;
  }
  *oldest = Stream{.first = read.first, .next = read.first};
  return {.stream = oldest, .goes_on = true};
}

/// What to fetch once `read` has gone on with `stream`.
BlockRange ReadStreams::window_after(const Stream& stream, BlockRange read) {
  if (stream.steps < limits::kReadAheadAfter) return {};
  // So not much more is fetched in vain than was of use.
  const uint64_t window = std::clamp((read.end() - stream.first) / 2, limits::kReadAheadBlocksMin,
                                     limits::kReadAheadBlocksMax);
  const uint64_t from = std::max(stream.ahead_until, read.end());
  if (from >= read.end() + window / 2 + 1) return {};
  return {from, read.end() + window - from};
}

BlockRange ReadStreams::take(const Found& found, BlockRange read) {
  Stream& stream = *found.stream;
  stream.used = ++uses_;
  if (!found.goes_on) return {};
  const BlockRange ahead = window_after(stream, read);
  ++stream.steps;
  stream.next = read.end();
  if (ahead.count > 0) stream.ahead_until = ahead.end();
  return ahead;
}

BlockRange ReadStreams::note(BlockRange read) {
  if (read.count == 0) return {};
  return take(find(read), read);
}

bool ReadStreams::note_if_quiet(BlockRange read) {
  if (read.count == 0) return true;
  const Found found = find(read);
  if (found.goes_on && window_after(*found.stream, read).count > 0) return false;
  static_cast<void>(take(found, read));
  return true;
}

}  // namespace usbd::objstore
