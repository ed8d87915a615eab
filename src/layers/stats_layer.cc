// SPDX-License-Identifier: Apache-2.0
//
// Counting by relaxed atomics: exact in sum, in no order between kinds.

#include "layers/stats_layer.h"

#include <fmt/format.h>

#include "base/log.h"

namespace usbd {

void StatsLayer::count(Op op, uint64_t bytes, bool success) {
  Counters& counters = counters_[static_cast<size_t>(op)];
  counters.operations.fetch_add(1, std::memory_order_relaxed);
  if (success) {
    counters.bytes.fetch_add(bytes, std::memory_order_relaxed);
  } else {
    counters.errors.fetch_add(1, std::memory_order_relaxed);
  }
}

StatsLayer::Counts StatsLayer::counts(Op op) const {
  const Counters& counters = counters_[static_cast<size_t>(op)];
  return {.operations = counters.operations.load(std::memory_order_relaxed),
          .bytes = counters.bytes.load(std::memory_order_relaxed),
          .errors = counters.errors.load(std::memory_order_relaxed)};
}

std::string StatsLayer::summary() const {
  std::string text;
  for (size_t i = 0; i < kOps; ++i) {
    const Counts c = counts(static_cast<Op>(i));
    if (c.operations == 0) continue;
    text += fmt::format("{}{} {} ({} bytes, {} errors)", text.empty() ? "" : ", ",
                        op_name(static_cast<Op>(i)), c.operations, c.bytes, c.errors);
  }
  return text.empty() ? "nothing" : text;
}

Task<Result<void>> StatsLayer::counted(Op op, uint64_t bytes, Task<Result<void>> task) {
  Result<void> result = co_await task;
  count(op, bytes, result.has_value());
  co_return result;
}

Task<Result<void>> StatsLayer::read(uint64_t offset, MutableBytes data) {
  return counted(Op::kRead, data.size(), below().read(offset, data));
}
Task<Result<void>> StatsLayer::write(uint64_t offset, Bytes data, WriteFlags flags) {
  return counted(Op::kWrite, data.size(), below().write(offset, data, flags));
}
Task<Result<void>> StatsLayer::flush() {
  return counted(Op::kFlush, 0, below().flush());
}
Task<Result<void>> StatsLayer::trim(ByteRange range, WriteFlags flags) {
  return counted(Op::kTrim, range.length, below().trim(range, flags));
}
Task<Result<void>> StatsLayer::write_zeroes(ByteRange range, ZeroFlags flags) {
  return counted(Op::kWriteZeroes, range.length, below().write_zeroes(range, flags));
}
Task<Result<void>> StatsLayer::cache(ByteRange range) {
  return counted(Op::kCache, range.length, below().cache(range));
}

Task<Result<std::vector<Extent>>> StatsLayer::extents(ByteRange range, size_t extents_max) {
  Result<std::vector<Extent>> found = co_await below().extents(range, extents_max);
  count(Op::kExtents, range.length, found.has_value());
  co_return std::move(found);
}

Task<Result<void>> StatsLayer::close() {
  log::info("{}: {}", name(), summary());
  return below().close();
}

std::optional<Result<void>> StatsLayer::try_read(uint64_t offset, MutableBytes data) {
  std::optional<Result<void>> done = below().try_read(offset, data);
  if (done) count(Op::kRead, data.size(), done->has_value());
  return done;
}
std::optional<Result<void>> StatsLayer::try_write(uint64_t offset, Bytes data, WriteFlags flags) {
  std::optional<Result<void>> done = below().try_write(offset, data, flags);
  if (done) count(Op::kWrite, data.size(), done->has_value());
  return done;
}
std::optional<Result<void>> StatsLayer::try_flush() {
  std::optional<Result<void>> done = below().try_flush();
  if (done) count(Op::kFlush, 0, done->has_value());
  return done;
}
MutableBytes StatsLayer::direct(ByteRange /*range*/) {
  return {};
}

}  // namespace usbd
