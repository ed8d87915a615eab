// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes a kept cache: its index by itself, and a cache whose files the input has changed before it
// is opened again. Half of the runs make the index's checksums right after the changes, as only a
// forger would. Whatever becomes of the files, no block comes back that was not put there: the
// cache of these runs is sealed.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "async/sim_loop.h"
#include "base/crc32c.h"
#include "devices/objstore/block_cache.h"
#include "devices/objstore/memory_folder_testing.h"
#include "fuzz/input.h"

namespace usbd::fuzz {
namespace {

using objstore::BlockCache;
using objstore::CacheIndexDecoder;
using objstore::CacheIndexHeader;
using objstore::kBlockBytes;
using objstore::kCacheHeaderBytes;
using objstore::MemoryDisk;
using objstore::MemoryFolder;
using objstore::ObjectId;
using objstore::ObjectKind;
using ByteVector = std::vector<std::byte>;

constexpr const char* kIndex = "cache.index";
constexpr const char* kBlocks = "cache.blocks";
constexpr uint32_t kPositions = 8;
const ObjectId kOne{.epoch = 1, .seq = 1};
const ObjectId kTwo{.epoch = 1, .seq = 2, .kind = ObjectKind::kGc};

ByteVector contents(const ObjectId& id, uint32_t position) {
  return ByteVector(kBlockBytes, static_cast<std::byte>(id.seq * 16 + position));
}

class Cache {
 public:
  Cache() {
    options_.volume.fill(std::byte{1});
    options_.sealed = true;
    options_.key = key_;
    options_.blocks_max = 16;
    options_.persist = true;
    open();
    for (uint32_t i = 0; i < 5; ++i) {
      cache_->add(kOne, i, contents(kOne, i));
      cache_->add(kTwo, i + 2, contents(kTwo, i + 2));
    }
    close();
  }

  void open() { cache_ = *loop_.run(BlockCache::open(folder_, rng_, options_)); }
  void close() {
    loop_.spawn(cache_->close(options_.found));
    promise(loop_.run_until_idle() == SimEnd::kIdle, "a close ends");
    cache_.reset();
  }
  void read_all() {
    for (const ObjectId& id : {kOne, kTwo}) {
      for (uint32_t i = 0; i < kPositions; ++i) {
        ByteVector out(kBlockBytes);
        if (!loop_.run(cache_->read(id, i, out))->empty()) continue;
        promise(out == contents(id, i), "a block is the one that was put there");
      }
    }
  }
  void use() {
    open();
    promise(cache_ != nullptr, "a folder that works has a cache");
    read_all();
    for (uint32_t i = 0; i < 3; ++i) cache_->add(kTwo, i, contents(kTwo, i));
    loop_.spawn(cache_->settle());
    loop_.run_until_idle();
    read_all();
    close();
    open();
    read_all();
    close();
  }
  ByteVector& file(const char* name) {
    if (!disk_.has(name)) disk_.files[name] = std::make_shared<ByteVector>();
    return disk_.bytes(name);
  }

 private:
  const ByteVector key_ = ByteVector(32, std::byte{7});
  MemoryDisk disk_;
  MemoryFolder folder_{disk_};
  SimLoop loop_{SimLoop::Options{}};
  SeededRng rng_{1};
  BlockCache::Options options_;
  std::unique_ptr<BlockCache> cache_;
};

void change(ByteVector& file, FuzzInput& input) {
  if (file.empty()) return;
  const size_t at = input.word() % file.size();
  switch (input.byte() % 5) {
    case 0:
      file[at] = static_cast<std::byte>(input.byte());
      break;
    case 1:
      file[at] ^= static_cast<std::byte>(1U << (input.byte() % 8U));
      break;
    case 2:
      file.resize(at);
      break;
    case 3:
      file.resize(file.size() + input.byte());
      break;
    default: {
      const size_t to = input.word() % file.size();
      const size_t count = std::min<size_t>(input.byte(), file.size() - std::max(at, to));
      const ByteVector piece(file.begin() + static_cast<ptrdiff_t>(at),
                             file.begin() + static_cast<ptrdiff_t>(at + count));
      std::ranges::copy(piece, file.begin() + static_cast<ptrdiff_t>(to));
    }
  }
}

/// Makes counts and checksums fit, as far as there is a header.
void forge(ByteVector& index) {
  if (index.size() < kCacheHeaderBytes) return;
  const Bytes body = Bytes(index).subspan(kCacheHeaderBytes);
  const auto field = [&index](size_t at, uint32_t value) {
    const Le32 disk = value;
    std::ranges::copy(wire_bytes(disk), index.begin() + static_cast<ptrdiff_t>(at));
  };
  field(64, crc32c(body));
  field(12, 0);
  field(12, crc32c(Bytes(index).first(kCacheHeaderBytes)));
}

void decode(Bytes bytes) {
  const Result<CacheIndexHeader> header = objstore::decode_cache_header(bytes, bytes.size());
  if (!header) return;
  CacheIndexDecoder decoder(*header, 16);
  const bool fed = decoder.feed(bytes.subspan(kCacheHeaderBytes)).has_value();
  promise(!fed || decoder.salts().size() == header->sessions, "all sessions are told");
  promise(!fed || decoder.take_entries().size() == header->entries, "all entries are told");
}

}  // namespace
}  // namespace usbd::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using usbd::fuzz::kBlocks;
  using usbd::fuzz::kIndex;
  usbd::fuzz::FuzzInput input(std::span(data, size));
  usbd::fuzz::decode(std::as_bytes(std::span(data, size)));
  const bool forges = input.flip();
  static usbd::fuzz::Cache pristine;  // its files are the same each time
  static const std::vector<std::byte> index = pristine.file(kIndex);
  static const std::vector<std::byte> blocks = pristine.file(kBlocks);
  pristine.file(kIndex) = index;
  pristine.file(kBlocks) = blocks;
  for (int i = 0; i < 8 && !input.empty(); ++i) {
    usbd::fuzz::change(pristine.file(input.byte() % 4 == 0 ? kBlocks : kIndex), input);
  }
  if (forges) usbd::fuzz::forge(pristine.file(kIndex));
  pristine.use();
  return 0;
}
