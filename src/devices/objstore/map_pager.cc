// SPDX-License-Identifier: Apache-2.0
//
// Leaf n is at n times kLeafFileBytes of the file, which is full of holes. A copy there counts
// until the leaf changes, so a leaf that was only looked at goes away without being written again.
// A leaf leaves memory only after its write was answered; so a write that fails, or that a later
// change overtakes, is of no matter.

#include "devices/objstore/map_pager.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/log.h"

namespace usbd::objstore {
namespace {

constexpr std::string_view kPrefix = "map-";
constexpr std::string_view kSuffix = ".spill";
/// The longest encoding of a leaf.
constexpr uint64_t kLeafFileBytes = uint64_t{kLeafBlocks} * 8;

/// The number too: a leaf that lies in another's place is not that one.
uint32_t checksum(uint64_t leaf, Bytes encoded) {
  return crc32c(encoded, crc32c(wire_bytes(Le64(leaf))));
}

}  // namespace

// --- holding
// --------------------------------------------------------------------------------------

MapHold& MapHold::operator=(MapHold&& other) noexcept {
  if (this == &other) return *this;
  release();
  pager_ = std::move(other.pager_);
  first_ = other.first_;
  end_ = other.end_;
  return *this;
}

void MapHold::release() {
  const std::shared_ptr<MapPager> pager = std::move(pager_);
  if (pager) pager->release(first_, end_);
}

/// A call that close() waits for.
struct MapPager::Busy {
  explicit Busy(MapPager& of) : pager(of) { ++pager.busy_; }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  ~Busy() { --pager.busy_; }

  MapPager& pager;
};

MapPager::MapPager(BlockMap& map, Folder* folder, Rng& rng, Options options)
    : map_(map), folder_(folder), rng_(rng), options_(std::move(options)) {
  map_.keep_order();
}

MapPager::~MapPager() {
  USBD_ASSERT(busy_ == 0);
  USBD_ASSERT(file_ == nullptr);
}

bool MapPager::is_held(uint64_t leaf) {
  const MutexLock lock(mutex_);
  return held_.contains(leaf);
}

void MapPager::release(uint64_t first, uint64_t end) {
  const MutexLock lock(mutex_);
  for (uint64_t leaf = first; leaf < end; ++leaf) {
    const auto held = held_.find(leaf);
    USBD_ASSERT(held != held_.end());
    if (--held->second == 0) held_.erase(held);
  }
}

Task<Result<MapHold>> MapPager::hold(BlockRange range) {
  USBD_ASSERT(range.count <= map_.blocks() && range.first <= map_.blocks() - range.count);
  const Busy busy(*this);
  if (range.count == 0) co_return MapHold();
  const uint64_t first = range.first / kLeafBlocks;
  const uint64_t end = (range.end() - 1) / kLeafBlocks + 1;
  {
    const MutexLock lock(mutex_);
    for (uint64_t leaf = first; leaf < end; ++leaf) ++held_[leaf];
  }
  MapHold hold(shared_from_this(), first, end);
  for (uint64_t leaf = first; leaf < end; ++leaf) {
    if (map_.is_away(leaf)) USBD_CO_TRY_VOID(co_await bring(leaf));
  }
  co_return std::move(hold);
}

// --- coming back
// ----------------------------------------------------------------------------------

Task<Result<void>> MapPager::bring(uint64_t leaf) {
  co_await make_room();
  while (map_.is_away(leaf)) {
    const BlockMap::Proof proof = map_.proof(leaf);
    const Result<std::vector<std::byte>> encoded = co_await read(leaf, proof);
    // Somebody else may have brought it, and it may have changed and gone away once more.
    if (!map_.is_away(leaf)) break;
    if (map_.proof(leaf) != proof) continue;
    if (!encoded) co_return encoded.error();
    Result<void> back;
    options_.exclusively([&] { back = map_.bring_back(leaf, *encoded); });
    co_return back;
  }
  co_return Result<void>();
}

Task<Result<std::vector<std::byte>>> MapPager::read(uint64_t leaf, BlockMap::Proof proof) {
  std::vector<std::byte> encoded(proof.bytes);
  Result<void> read = co_await file_->read(leaf * kLeafFileBytes, encoded);
  if (read && checksum(leaf, encoded) != proof.crc) {
    read = Error(Errc::kIo, "its checksum is wrong");
  }
  if (!read) {
    const bool stale = !map_.is_away(leaf) || map_.proof(leaf) != proof;
    if (stale) co_return read.error();  // nobody wants it any more
    co_return co_await recover(leaf, proof, read.error());
  }
  ++read_;
  co_return encoded;
}

Task<Result<std::vector<std::byte>>> MapPager::recover(uint64_t leaf, BlockMap::Proof proof,
                                                       Error error) {
  ++damaged_;
  Result<std::vector<std::byte>> found = Error(Errc::kIo, "there is no checkpoint");
  if (options_.recover) found = co_await options_.recover(leaf);
  if (found && (found->size() != proof.bytes || checksum(leaf, *found) != proof.crc)) {
    found = Error(Errc::kIo, "it has changed since the last checkpoint");
  }
  if (found) {
    ++recovered_;
    if (!std::exchange(told_damage_, true)) {
      log::warning(
          "{}: part {} of the map is not what was written ({}); it was read from the "
          "checkpoint instead. More of that is only counted",
          file_->name(), leaf, error.message());
    }
    co_return found;
  }
  co_return Error(Errc::kIo,
                  fmt::format("{}: part {} of the map cannot be read back ({}; {}). Nothing is "
                              "lost: open the volume again, and it is made anew from the store",
                              file_->name(), leaf, error.message(), found.error().message()));
}

// --- going away
// -----------------------------------------------------------------------------------

Task<void> MapPager::make_room() {
  const Busy busy(*this);
  // Twice around finds all that can go: once for those that were looked at.
  size_t left = 2 * map_.in_order() + 1;
  if (!may_write()) left = std::min(left, limits::kMapLooksMax);
  while (!has_room() && left > 0) {
    --left;
    const std::optional<uint64_t> leaf = map_.next_to_go(1);
    if (!leaf || is_held(*leaf)) continue;
    if (map_.has_copy(*leaf)) {
      options_.exclusively([&] { map_.send_away(*leaf); });
    } else if (folder_ == nullptr) {
      tell_errors("there is no folder for its local file");
    } else if (may_write() && !co_await write(*leaf)) {
      left = std::min(left, limits::kMapLooksMax);
    }
  }
}

bool MapPager::may_write() const {
  return folder_ != nullptr && Loop::current().now() >= write_not_before_;
}

Task<bool> MapPager::write(uint64_t leaf) {
  if (file_ == nullptr) {
    if (std::exchange(opening_, true)) co_return false;
    const Result<void> opened = co_await open_file();
    opening_ = false;
    if (!opened) {
      not_written(opened.error());
      co_return false;
    }
    co_return true;  // who knows what has become of the leaf
  }
  if (!map_.begin_copy(leaf)) co_return true;
  const std::vector<std::byte> encoded = map_.encode_leaf(leaf);
  const BlockMap::Proof proof{.bytes = static_cast<uint32_t>(encoded.size()),
                              .crc = checksum(leaf, encoded)};
  const Result<void> written = co_await file_->write(leaf * kLeafFileBytes, encoded, WriteFlags{});
  if (!written) {
    map_.end_copy(leaf, std::nullopt);
    not_written(written.error());
    co_return false;
  }
  map_.end_copy(leaf, proof);
  ++written_;
  // It may have changed, or somebody may have asked for it, meanwhile.
  if (map_.has_copy(leaf) && !map_.is_away(leaf) && !is_held(leaf)) {
    options_.exclusively([&] { map_.send_away(leaf); });
  }
  co_return true;
}

Task<Result<void>> MapPager::open_file() {
  const std::string name = fmt::format("{}{:016x}{}", kPrefix, rng_.next(), kSuffix);
  const Folder::OpenHow how{.create = CreatePolicy::kOnly};
  USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await folder_->open(name, how));
  const Result<void> removed = co_await folder_->remove(name);
  if (!removed) {
    log::warning("{}: {} keeps its name: {}", folder_->name(), name, removed.error().message());
  }
  file_ = std::move(file);
  co_return Result<void>();
}

void MapPager::not_written(const Error& error) {
  ++write_errors_;
  write_not_before_ = Loop::current().now() + limits::kMapWriteRetry;
  tell_errors(error.message());
}

void MapPager::tell_errors(const std::string& why) {
  if (std::exchange(told_errors_, true)) return;
  log::error(
      "the map cannot be kept within {} bytes of memory, and takes more: {}. If its file "
      "takes something later, the memory is given back",
      options_.memory_max, why);
}

Task<void> MapPager::close() {
  Loop& loop = Loop::current();
  while (busy_ > 0) co_await loop.sleep_for(limits::kHeadRetryMin);
  if (file_ == nullptr) co_return;
  static_cast<void>(co_await file_->close());  // nobody reads it any more
  file_ = nullptr;
}

Task<void> MapPager::remove_left_over(Folder& folder) {
  const Result<std::vector<std::string>> names = co_await folder.list();
  if (!names) co_return;
  for (const std::string& name : *names) {
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    static_cast<void>(co_await folder.remove(name));  // the next opening tries it again
  }
}

MapUsage MapPager::usage() const {
  return {.memory = map_.memory(),
          .memory_max = options_.memory_max,
          .leaves_away = map_.leaves_away(),
          .written = written_,
          .read = read_,
          .write_errors = write_errors_,
          .damaged = damaged_,
          .recovered = recovered_,
          .over_budget = !has_room()};
}

}  // namespace usbd::objstore
