// SPDX-License-Identifier: Apache-2.0
//
// See workload.h.

#include "bench/workload.h"

#include <algorithm>

namespace usbd::bench {
namespace {

constexpr size_t kStampInterval = 4096;
constexpr uint64_t kCommonBlocks = 64;

}  // namespace

Workload::Workload(const WorkloadOptions& options, uint64_t device_size, ByteRange sequential_range,
                   uint64_t stream)
    : options_(options),
      block_count_(device_size / options.block_size),
      sequential_range_(sequential_range),
      sequential_offset_(sequential_range.offset),
      stream_(stream),
      random_(mix_bits(options.seed) + stream) {}

std::optional<Operation> Workload::next() {
  if (fill_done_) return std::nullopt;
  const nbd::Command command = next_command();
  if (command == nbd::Command::kFlush) return Operation{.command = command};
  return Operation{.command = command, .offset = next_offset(), .length = options_.block_size};
}

nbd::Command Workload::next_command() {
  using Kind = WorkloadOptions::Kind;
  if (options_.flush_every != 0 && writes_since_flush_ >= options_.flush_every) {
    writes_since_flush_ = 0;
    return nbd::Command::kFlush;
  }
  switch (options_.kind) {
    case Kind::kRead:
      return nbd::Command::kRead;
    case Kind::kTrim:
      return nbd::Command::kTrim;
    case Kind::kZero:
      return nbd::Command::kWriteZeroes;
    case Kind::kFlush:
      return nbd::Command::kFlush;
    case Kind::kMix:
      if (random_.below(100) < options_.read_percent) return nbd::Command::kRead;
      break;
    case Kind::kWrite:
      break;
  }
  ++writes_since_flush_;
  return nbd::Command::kWrite;
}

uint64_t Workload::next_offset() {
  if (!options_.sequential) return random_.below(block_count_) * options_.block_size;
  const uint64_t offset = sequential_offset_;
  sequential_offset_ += options_.block_size;
  if (sequential_offset_ + options_.block_size > sequential_range_.end()) {
    sequential_offset_ = sequential_range_.offset;
    fill_done_ = options_.fill;
  }
  return offset;
}

void Workload::prepare(MutableBytes data, uint64_t offset) {
  if (options_.data == DataKind::kPattern) fill_pattern(data, options_.seed, offset);
  if (options_.data == DataKind::kUnique) stamp_unique(data);
}

void Workload::stamp_unique(MutableBytes data) {
  for (size_t at = 0; at < data.size(); at += kStampInterval) {
    const bool common = random_.below(100) < options_.duplicate_percent;
    const uint64_t number =
        common ? random_.below(kCommonBlocks) : kCommonBlocks + (stream_ << 40) + unique_counter_++;
    const MutableBytes word = data.subspan(at, std::min(sizeof(number), data.size() - at));
    fill_pattern(word, options_.seed, number * sizeof(number));
  }
}

}  // namespace usbd::bench
