// SPDX-License-Identifier: Apache-2.0
//
// Whether what a read or an extents request returned can be true, given what was in flight with it.

#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include "conformance/model.h"

namespace usbd::testing {
namespace {

/// Up to 16 bytes as hexadecimal digits.
std::string hex(Bytes data) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(data.size(), 16); ++i) {
    text += fmt::format("{:02x}", static_cast<unsigned>(data[i]));
  }
  return text;
}

}  // namespace

bool Model::Change::gives(uint64_t offset, Bytes got) const {
  if (!data.empty()) {
    return std::memcmp(data.data() + (offset - range.offset), got.data(), got.size()) == 0;
  }
  return std::ranges::all_of(got, [](std::byte byte) { return byte == std::byte{0}; });
}

std::string Model::describe_candidates(const Segment& segment, uint64_t offset, Bytes got) {
  const size_t rest = segment.range.end() - offset;
  std::string text = fmt::format("read returned {}, which is none of what the volume may hold:",
                                 hex(got.last(rest)));
  for (const ChangePtr& candidate : segment.candidates) {
    std::vector<std::byte> data;
    for (uint64_t at = offset; at < segment.range.end() && data.size() < 16; ++at) {
      data.push_back(candidate->at(at));
    }
    text += " " + hex(data);
  }
  return text;
}

/// The first offset whose unit is not all of one candidate.
std::optional<uint64_t> Model::first_unexplained(const Segment& segment, Bytes got,
                                                 uint64_t unit) const {
  const uint64_t start = segment.range.offset;
  for (const ChangePtr& candidate : segment.candidates) {
    if (candidate->gives(start, got)) return std::nullopt;
  }
  for (uint64_t done = 0; done < got.size();) {
    const uint64_t length = std::min(unit - (start + done) % unit, got.size() - done);
    const Bytes part = got.subspan(done, length);
    const bool explained = std::ranges::any_of(segment.candidates, [&](const ChangePtr& candidate) {
      return candidate->gives(start + done, part);
    });
    if (!explained) return start + done;
    done += length;
  }
  return std::nullopt;
}

std::optional<Finding> Model::check_read(const Operation& op,
                                         std::span<const ChangePtr> changes) const {
  const size_t difference = image_.first_difference(op.offset, op.data);
  if (difference == op.data.size()) return std::nullopt;
  const ByteRange range(op.offset, op.length);
  for (uint64_t i = difference; i < op.data.size(); ++i) {
    const uint64_t offset = op.offset + i;
    const std::byte got = op.data[i];
    if (got == image_.at(offset)) continue;
    const bool in_flight = std::ranges::any_of(changes, [&](const ChangePtr& change) {
      return change->range.contains(ByteRange(offset, 1)) && change->at(offset) == got;
    });
    if (in_flight) continue;
    std::vector<std::byte> expected(std::min<uint64_t>(16, range.end() - offset));
    image_.read(offset, expected);
    return Finding{.text = fmt::format("read returned {}, the volume holds {} there",
                                       hex(Bytes(op.data).subspan(i)), hex(expected)),
                   .operation = 0,
                   .offset = offset};
  }
  return std::nullopt;
}

ByteRange Model::clip(ByteRange range, size_t window) const {
  const ByteRange& known = options_.windows[window];
  const uint64_t begin = std::max(range.offset, known.offset);
  const uint64_t end = std::min(range.end(), known.end());
  return begin < end ? ByteRange(begin, end - begin) : ByteRange();
}

std::optional<Finding> Model::check_zero(ByteRange range,
                                         std::span<const ChangePtr> changes) const {
  for (uint64_t at = range.offset; at < range.end(); ++at) {
    at = image_.first_nonzero(ByteRange(at, range.end() - at));
    if (at == range.end()) break;
    const bool in_flight = std::ranges::any_of(changes, [at](const ChangePtr& change) {
      return change->range.contains(ByteRange(at, 1)) && change->at(at) == std::byte{0};
    });
    if (!in_flight) {
      return Finding{
          .text = fmt::format("extents say that {} bytes at {} are zero, but a byte there "
                              "holds {:02x}",
                              range.length, range.offset, static_cast<unsigned>(image_.at(at))),
          .operation = 0,
          .offset = at};
    }
  }
  return std::nullopt;
}

std::optional<Finding> Model::check_extents(const Operation& op,
                                            std::span<const ChangePtr> changes) const {
  uint64_t at = op.offset;
  const auto wrong = [&at](std::string text) {
    return Finding{.text = std::move(text), .operation = 0, .offset = at};
  };
  if (op.extents.empty()) return wrong("extents returned nothing; it must describe the start");
  for (size_t i = 0; i < op.extents.size(); ++i) {
    const Extent& extent = op.extents[i];
    if (extent.length == 0) return wrong("an extent is empty");
    if (at >= op.offset + op.length) return wrong("extents go on after the end of the request");
    if (extent.length > options_.size - at) return wrong("extents reach beyond the end");
    if (options_.merges_extents && i > 0 && op.extents[i - 1].hole == extent.hole &&
        op.extents[i - 1].zero == extent.zero) {
      return wrong("neighbouring extents are of one kind and should have been one");
    }
    for (size_t window = 0; extent.zero && window < options_.windows.size(); ++window) {
      const ByteRange known = clip(ByteRange(at, extent.length), window);
      if (auto finding = check_zero(known, changes)) return finding;
    }
    at += extent.length;
  }
  return std::nullopt;
}

}  // namespace usbd::testing
