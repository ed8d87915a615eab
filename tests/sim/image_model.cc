// SPDX-License-Identifier: Apache-2.0
//
// The first word of each sector is the stamp; the others follow from stamp, block and place, by a
// rule that the compiler can work out for several words at once: histories spend their time here.

#include "sim/image_model.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/random.h"

namespace usbd::sim {
namespace {

using objstore::kBlockBytes;

constexpr size_t kSector = 512;
/// Between the words of neighbouring bytes: odd, so that no two places have the same word.
constexpr uint64_t kStep = 0x9E3779B97F4A7C15;

}  // namespace

void ImageModel::fill(MutableBytes bytes, uint64_t first, uint64_t stamp) {
  if (stamp == 0) {
    std::ranges::fill(bytes, std::byte{0});
    return;
  }
  const uint64_t start = mix64(stamp) + first * kBlockBytes * kStep;
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = start + at * kStep;
    std::memcpy(bytes.data() + at, &word, sizeof(word));
  }
  for (size_t at = 0; at < bytes.size(); at += kSector) {
    std::memcpy(bytes.data() + at, &stamp, sizeof(stamp));
  }
}

void ImageModel::note(objstore::BlockRange range, uint64_t number, uint64_t stamp) {
  for (uint64_t block = range.first; block < range.end(); ++block) blocks_[block][number] = stamp;
}

void ImageModel::forget_after(uint64_t number) {
  for (auto& changes : blocks_) changes.erase(changes.upper_bound(number), changes.end());
}

std::set<uint64_t> ImageModel::stamps_between(uint64_t block, uint64_t earliest,
                                              uint64_t latest) const {
  const auto& changes = blocks_[block];
  auto at = changes.upper_bound(earliest);
  std::set<uint64_t> stamps{at == changes.begin() ? 0 : std::prev(at)->second};
  for (; at != changes.end() && at->first <= latest; ++at) stamps.insert(at->second);
  return stamps;
}

std::string ImageModel::check(uint64_t first, Bytes bytes, uint64_t earliest,
                              uint64_t latest) const {
  std::array<std::byte, kBlockBytes> expected{};
  for (uint64_t i = 0; i < bytes.size() / kBlockBytes; ++i) {
    const Bytes found = bytes.subspan(i * kBlockBytes, kBlockBytes);
    uint64_t stamp = 0;
    std::memcpy(&stamp, found.data(), sizeof(stamp));
    const std::set<uint64_t> stamps = stamps_between(first + i, earliest, latest);
    if (!stamps.contains(stamp)) {
      return fmt::format("block {} has stamp {}, but changes {} to {} leave {}", first + i, stamp,
                         earliest, latest, fmt::join(stamps, " or "));
    }
    fill(expected, first + i, stamp);
    if (std::memcmp(found.data(), expected.data(), kBlockBytes) != 0) {
      return fmt::format("block {} of stamp {} is mixed up", first + i, stamp);
    }
  }
  return {};
}

}  // namespace usbd::sim
