// SPDX-License-Identifier: Apache-2.0
//
// What is drawn how often. The shares are chosen so that all kinds meet each other in every few
// thousand operations while most bytes moved are small.

#include "conformance/generator.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/assert.h"
#include "conformance/refusals.h"

namespace usbd::testing {
namespace {

/// Shares of the kinds in valid operations.
struct KindShare {
  OpKind kind;
  unsigned share;
};
constexpr std::array<KindShare, kOpKinds> kShares{{{OpKind::kRead, 32},
                                                   {OpKind::kWrite, 36},
                                                   {OpKind::kTrim, 8},
                                                   {OpKind::kWriteZeroes, 8},
                                                   {OpKind::kFlush, 5},
                                                   {OpKind::kCache, 2},
                                                   {OpKind::kExtents, 9}}};

/// Boundaries that implementations tend to have.
constexpr std::array<uint64_t, 6> kBoundaries{512, 4096, 64U << 10, 256U << 10, 1U << 20, 4U << 20};

constexpr uint64_t kRefusedPayloadMax = 1U << 20;

uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) & ~(unit - 1);
}

}  // namespace

std::vector<ByteRange> choose_windows(const SubjectTraits& traits, uint64_t span_max) {
  if (traits.size <= span_max) return {ByteRange(0, traits.size)};
  // At both ends: offsets that are cut to 32 bits somewhere hit the first.
  const uint64_t half = round_up(span_max / 2, traits.block_size);
  return {ByteRange(0, half), ByteRange(traits.size - half, half)};
}

Generator::Generator(const SubjectTraits& traits, const ConformanceOptions& options,
                     std::vector<ByteRange> windows)
    : traits_(traits), options_(options), windows_(std::move(windows)), rng_(options.seed) {
  USBD_ASSERT(!windows_.empty());
  for (const KindShare& share : kShares) {
    if (may_do(traits_, share.kind)) kinds_.insert(kinds_.end(), share.share, share.kind);
  }
  refused_ = refused_operations(traits_);
  // Such writes carry their payload; often would be slow.
  std::erase_if(refused_, [](const Operation& op) {
    return op.kind == OpKind::kWrite && op.length > kRefusedPayloadMax;
  });
}

std::vector<Operation> Generator::next_batch() {
  const Place place = choose_place();
  std::vector<Operation> batch(choose_count());
  for (Operation& op : batch) {
    op = !refused_.empty() && rng_.one_in(24) ? make_refused() : make_operation(place);
    op.connection = static_cast<unsigned>(rng_.below(traits_.connections));
  }
  return batch;
}

Generator::Place Generator::choose_place() {
  const ByteRange window = windows_[rng_.below(windows_.size())];
  // Every other batch crowds into little room, so that its ranges overlap.
  const std::array<uint64_t, 4> sizes{8U << 10, 128U << 10, window.length, window.length};
  const uint64_t size = std::min(window.length, sizes[rng_.below(sizes.size())]);
  const uint64_t skip = rng_.one_in(4) ? (rng_.one_in(2) ? 0 : window.length - size)
                                       : rng_.between(0, window.length - size);
  return {.window = window, .focus = ByteRange(window.offset + skip, size)};
}

size_t Generator::choose_count() {
  const uint64_t most = std::max(1U, options_.depth_max);
  switch (rng_.below(4)) {
    case 0:
      return 1;
    case 1:
      return rng_.between(1, std::min<uint64_t>(8, most));
    default:
      return rng_.between(1, most);
  }
}

OpKind Generator::choose_kind() {
  return kinds_[rng_.below(kinds_.size())];
}

Operation Generator::make_operation(const Place& place) {
  Operation op;
  op.kind = choose_kind();
  if (op.kind == OpKind::kFlush) return op;
  const ByteRange range = choose_range(place, op.kind);
  op.offset = range.offset;
  op.length = range.length;
  choose_flags(op);
  if (op.kind == OpKind::kWrite) fill(op);
  if (op.kind == OpKind::kRead) {
    op.data.assign(op.length, static_cast<std::byte>(0xA0 + made_ % 16));
  }
  ++made_;
  return op;
}

Operation Generator::make_refused() {
  Operation op = refused_[rng_.below(refused_.size())];
  give_payload(op, std::byte{0xEE});
  return op;
}

void Generator::choose_flags(Operation& op) {
  if (is_change(op.kind) && traits_.can_fua) op.fua = rng_.one_in(6);
  if (op.kind == OpKind::kWriteZeroes) {
    op.no_hole = rng_.one_in(3);
    op.fast_only = traits_.can_fast_zero && rng_.one_in(4);
  }
}

ByteRange Generator::choose_range(const Place& place, OpKind kind) {
  const uint64_t length = choose_length(place.window, kind);
  const uint64_t offset = rng_.one_in(16) ? place.window.end() - length : choose_offset(place);
  return {std::min(offset, place.window.end() - length), length};
}

uint64_t Generator::choose_length(const ByteRange& window, OpKind kind) {
  const bool has_payload = kind == OpKind::kRead || kind == OpKind::kWrite;
  uint64_t length = 0;
  const uint64_t draw = rng_.below(100);
  if (draw < 45) {
    length = (rng_.one_in(2) ? 512 : 4096) * rng_.between(1, 8);
  } else if (draw < 75) {
    length = rng_.between(1, 6'000);
  } else if (draw < 95) {
    length = rng_.between(1, 64U << 10);
  } else if (draw < 99 || has_payload) {
    length = rng_.between(1, rng_.one_in(4) ? 2U << 20 : 256U << 10);
  } else {
    length = window.length;
  }
  if (has_payload) length = std::min<uint64_t>(length, traits_.payload_max);
  return std::min(round_up(length, traits_.block_size), window.length);
}

/// In the focus, mostly on or beside a boundary. May be too near the window's end for the length.
uint64_t Generator::choose_offset(const Place& place) {
  uint64_t offset = place.focus.offset + rng_.below(place.focus.length);
  const uint64_t boundary = kBoundaries[rng_.below(kBoundaries.size())];
  switch (rng_.below(4)) {
    case 0:
      break;
    case 1:
      offset = offset / boundary * boundary + rng_.below(16) * traits_.block_size;
      break;
    default:
      offset = offset / boundary * boundary;
  }
  offset = offset / traits_.block_size * traits_.block_size;
  return std::clamp(offset, place.window.offset, place.window.end() - traits_.block_size);
}

/// Mostly data that no other operation writes; sometimes zeros, or a block that many write.
void Generator::fill(Operation& op) {
  op.data.resize(op.length);
  const uint64_t draw = rng_.below(12);
  if (draw == 0) return;
  if (draw == 1) {
    std::ranges::fill(op.data, static_cast<std::byte>(rng_.between(1, 4)));
    return;
  }
  const uint64_t key = draw == 2 ? rng_.below(4) : mix64(rng_.next());
  const uint64_t period = draw == 2 ? 4096 : UINT64_MAX;
  for (uint64_t at = 0; at < op.length; at += sizeof(uint64_t)) {
    const uint64_t word = (key + at % period) * 0x9E3779B97F4A7C15U;
    const uint64_t bits = word ^ (word >> 29U);
    std::memcpy(op.data.data() + at, &bits, std::min<uint64_t>(sizeof bits, op.length - at));
  }
}

}  // namespace usbd::testing
