// SPDX-License-Identifier: Apache-2.0
//
// A place that is read is not held: who reads it remembers under which number it was sealed, and if
// the seal does not fit, and the place has another number by then, it was only used anew meanwhile.

#include "devices/objstore/block_cache.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"

namespace usbd::objstore {
namespace {

constexpr size_t kBucketsMin = 256;

/// What a block's seal proves besides its bytes.
struct Proof {
  VolumeId volume{};
  Le64 epoch;
  Le64 seq;
  Le32 kind;
  Le32 position;
};
static_assert(sizeof(Proof) == 40);

Proof proof_of(const VolumeId& volume, const ObjectId& id, uint32_t position) {
  return {.volume = volume,
          .epoch = id.epoch,
          .seq = id.seq,
          .kind = static_cast<uint32_t>(id.kind),
          .position = position};
}

void add_to(std::vector<BlockCache::Gap>& gaps, uint64_t block) {
  if (!gaps.empty() && gaps.back().first + gaps.back().count == block) {
    ++gaps.back().count;
  } else {
    gaps.push_back({.first = block, .count = 1});
  }
}

uint64_t session_of(uint64_t seal) {
  return seal >> kCacheNumberBits;
}
uint64_t number_of(uint64_t seal) {
  return seal & (kCacheNumberEnd - 1);
}

}  // namespace

/// One call of read().
struct BlockCache::Request {
  ObjectId id;
  uint32_t position = 0;
  MutableBytes out;
  std::vector<Gap> gaps = {};

  [[nodiscard]] uint64_t blocks() const { return out.size() / kBlockBytes; }
};

/// What is sealed and written in one go.
struct BlockCache::Group {
  std::vector<Batch> batches = {};
  uint64_t count = 0;
  /// Sealed, in the order of `memory`.
  std::vector<Taken> blocks = {};
  AlignedBuffer memory = {};
};

size_t BlockCache::IdHash::operator()(const ObjectId& id) const {
  return mix64(id.seq ^ mix64(id.epoch ^ mix64(static_cast<uint64_t>(id.kind))));
}

BlockCache::BlockCache(Folder& folder, Options options)
    : folder_(folder),
      options_(options),
      places_max_(std::min<uint64_t>(options.blocks_max, limits::kCacheBlocksMax)) {
  const MutexLock lock(mutex_);
  clear();
}

BlockCache::~BlockCache() = default;

CacheStats BlockCache::stats() {
  const MutexLock lock(mutex_);
  return {.hits = hits_.load(std::memory_order_relaxed),
          .misses = misses_.load(std::memory_order_relaxed),
          .damaged = damaged_.load(std::memory_order_relaxed),
          .blocks = here_,
          .blocks_max = places_max_,
          .on = on_};
}

// --- the index in memory
// --------------------------------------------------------------------------

void BlockCache::clear() {
  entries_.clear();
  objects_.clear();
  free_objects_.clear();
  object_numbers_.clear();
  buckets_.assign(kBucketsMin, kNone);
  here_ = linked_ = hand_ = 0;
}

size_t BlockCache::bucket(uint32_t object, uint32_t position) const {
  return mix64(uint64_t{object} << 32U | position) & (buckets_.size() - 1);
}

uint32_t BlockCache::object_number(const ObjectId& id) const {
  const auto object = object_numbers_.find(id);
  return object == object_numbers_.end() ? kNone : object->second;
}

uint32_t BlockCache::find(const ObjectId& id, uint32_t position) const {
  return find(object_number(id), position);
}

uint32_t BlockCache::find(uint32_t object, uint32_t position) const {
  if (object == kNone) return kNone;
  for (uint32_t at = buckets_[bucket(object, position)]; at != kNone;) {
    const Entry& entry = entries_[at];
    if (entry.object == object && entry.position == position) return at;
    at = entry.next;
  }
  return kNone;
}

uint32_t BlockCache::intern(const ObjectId& id) {
  const auto [found, added] = object_numbers_.try_emplace(id, 0);
  if (!added) return found->second;
  if (free_objects_.empty()) {
    free_objects_.push_back(static_cast<uint32_t>(objects_.size()));
    objects_.emplace_back();
  }
  found->second = free_objects_.back();
  free_objects_.pop_back();
  objects_[found->second] = Object{.id = id};
  return found->second;
}

void BlockCache::grow_buckets() {
  if (linked_ < buckets_.size()) return;
  buckets_.assign(buckets_.size() * 2, kNone);
  for (uint32_t place = 0; place < entries_.size(); ++place) {
    Entry& entry = entries_[place];
    if (entry.state != State::kWriting && entry.state != State::kHere) continue;
    entry.next = std::exchange(buckets_[bucket(entry.object, entry.position)], place);
  }
}

/// Makes an entry, which has object, position and state, one that is found.
void BlockCache::link(uint32_t place) {
  Entry& entry = entries_[place];
  entry.next = std::exchange(buckets_[bucket(entry.object, entry.position)], place);
  ++objects_[entry.object].blocks;
  ++linked_;
  here_ += entry.state == State::kHere ? 1 : 0;
  grow_buckets();
}

void BlockCache::unlink(uint32_t place, State state) {
  Entry& entry = entries_[place];
  uint32_t* at = &buckets_[bucket(entry.object, entry.position)];
  while (*at != place) at = &entries_[*at].next;
  *at = entry.next;
  --linked_;
  here_ -= entry.state == State::kHere ? 1 : 0;
  Object& object = objects_[entry.object];
  if (--object.blocks == 0) {
    object_numbers_.erase(object.id);
    free_objects_.push_back(entry.object);
  }
  entry = Entry{.state = state};
}

/// A place for another block: one that was never used, or one that was not asked for lately.
uint32_t BlockCache::choose() {
  if (entries_.size() < places_max_) {
    entries_.emplace_back();
    return static_cast<uint32_t>(entries_.size() - 1);
  }
  const uint64_t places = std::min<uint64_t>(entries_.size(), places_max_);
  for (unsigned step = 0; step < limits::kCacheClockSteps && places > 0; ++step) {
    if (hand_ >= places) hand_ = 0;
    const auto place = static_cast<uint32_t>(hand_++);
    Entry& entry = entries_[place];
    if (entry.state == State::kFree) return place;
    if (entry.state != State::kHere || std::exchange(entry.used, false)) continue;
    unlink(place, State::kFree);
    return place;
  }
  return kNone;
}

void BlockCache::switch_off(const std::string& why) {
  {
    const MutexLock lock(mutex_);
    if (!on_) return;
    on_ = false;
    clear();
  }
  log::warning("the cache in {} is switched off, and reads go to the store: {}", folder_.name(),
               why);
}

// --- reading
// --------------------------------------------------------------------------------------

std::vector<BlockCache::Gap> BlockCache::missing(const ObjectId& id, uint32_t position,
                                                 uint64_t blocks) {
  std::vector<Gap> gaps;
  const MutexLock lock(mutex_);
  const uint32_t object = object_number(id);
  for (uint64_t block = 0; block < blocks; ++block) {
    if (find(object, position + static_cast<uint32_t>(block)) == kNone) add_to(gaps, block);
  }
  return gaps;
}

std::vector<BlockCache::Hit> BlockCache::find_all(Request& request) {
  std::vector<Hit> hits;
  const MutexLock lock(mutex_);
  const uint32_t object = object_number(request.id);
  for (uint64_t block = 0; block < request.blocks(); ++block) {
    const uint32_t place = find(object, request.position + static_cast<uint32_t>(block));
    if (place == kNone || entries_[place].state != State::kHere) {
      add_to(request.gaps, block);
      continue;
    }
    Entry& entry = entries_[place];
    entry.used = true;
    hits.push_back({.block = block, .place = place, .seal = entry.seal, .tag = entry.tag});
  }
  return hits;
}

bool BlockCache::find_each(const ObjectId& id, uint32_t position, std::span<Hit> hits) {
  const MutexLock lock(mutex_);
  const uint32_t object = object_number(id);
  for (uint32_t block = 0; block < hits.size(); ++block) {
    const uint32_t place = find(object, position + block);
    if (place == kNone || entries_[place].state != State::kHere) return false;
    Entry& entry = entries_[place];
    entry.used = true;
    hits[block] = {.block = block, .place = place, .seal = entry.seal, .tag = entry.tag};
  }
  return true;
}

bool BlockCache::try_read(const ObjectId& id, uint32_t position, MutableBytes out) {
  std::array<Hit, limits::kCacheTryBlocks> found;
  const uint64_t blocks = out.size() / kBlockBytes;
  if (blocks > found.size()) return false;
  const std::span<Hit> hits = std::span(found).first(blocks);
  if (!find_each(id, position, hits)) return false;
  for (size_t from = 0; from < blocks;) {
    size_t to = from + 1;
    while (to < blocks && hits[to].place == hits[to - 1].place + 1) ++to;
    const MutableBytes run = out.subspan(from * kBlockBytes, (to - from) * kBlockBytes);
    const std::optional<Result<void>> read =
        file_->try_read(uint64_t{hits[from].place} * kBlockBytes, run);
    if (!read || !*read) return false;
    from = to;
  }
  for (const Hit& hit : hits) {
    // read() finds out again, and why.
    if (!unseal(id, position, hit, out.subspan(hit.block * kBlockBytes, kBlockBytes))) return false;
  }
  hits_.fetch_add(blocks, std::memory_order_relaxed);
  return true;
}

Task<std::vector<BlockCache::Gap>> BlockCache::read(ObjectId id, uint32_t position,
                                                    MutableBytes out) {
  Request request{.id = id, .position = position, .out = out};
  const std::vector<Hit> hits = find_all(request);
  for (size_t from = 0; from < hits.size();) {
    Scope runs;
    for (unsigned i = 0; i < limits::kLocalReadsMax && from < hits.size(); ++i) {
      size_t to = from + 1;
      while (to < hits.size() && to - from < limits::kCacheReadBlocks &&
             hits[to].place == hits[to - 1].place + 1 && hits[to].block == hits[to - 1].block + 1) {
        ++to;
      }
      runs.spawn(read_run(request, std::span(hits).subspan(from, to - from)));
      from = to;
    }
    co_await runs.close();
  }
  uint64_t missing = 0;
  for (const Gap& gap : request.gaps) missing += gap.count;
  hits_.fetch_add(request.blocks() - missing, std::memory_order_relaxed);
  misses_.fetch_add(missing, std::memory_order_relaxed);
  std::ranges::sort(request.gaps, {}, &Gap::first);
  co_return std::move(request.gaps);
}

Task<void> BlockCache::read_run(Request& request, std::span<const Hit> run) {
  const MutableBytes out =
      request.out.subspan(run.front().block * kBlockBytes, run.size() * kBlockBytes);
  const uint64_t offset = uint64_t{run.front().place} * kBlockBytes;
  std::optional<Result<void>> read = file_->try_read(offset, out);
  if (!read) read = co_await file_->read(offset, out);
  for (const Hit& hit : run) {
    const MutableBytes block = request.out.subspan(hit.block * kBlockBytes, kBlockBytes);
    if (*read && unseal(request.id, request.position, hit, block)) continue;
    lost(hit, !*read);
    add_to(request.gaps, hit.block);
  }
}

bool BlockCache::unseal(const ObjectId& id, uint32_t position, const Hit& hit,
                        MutableBytes block) const {
  if (!options_.proves) return true;
  const Proof proof = proof_of(options_.volume, id, position + static_cast<uint32_t>(hit.block));
  const crypto::Sealer& sealer = *sessions_[session_of(hit.seal)].sealer;
  return sealer.open(number_of(hit.seal), {wire_bytes(proof)}, block,
                     Bytes(hit.tag).first(sealer.tag_size()), block);
}

/// A block did not come back. If its place was not used anew, that is the disk's doing.
void BlockCache::lost(const Hit& hit, bool unreadable) {
  bool tell = false;
  unsigned bad = 0;
  {
    const MutexLock lock(mutex_);
    if (hit.place >= entries_.size()) return;
    const Entry& entry = entries_[hit.place];
    if (entry.state != State::kHere || entry.seal != hit.seal) return;
    unlink(hit.place, unreadable ? State::kBad : State::kFree);
    bad_ += unreadable ? 1 : 0;
    bad = bad_;
    tell = !std::exchange(told_damage_, true);
  }
  damaged_.fetch_add(1, std::memory_order_relaxed);
  if (tell) {
    log::warning(
        "{}: block {} of the cache {}; it is fetched from the store. More of this is only "
        "counted",
        folder_.name(), hit.place, unreadable ? "cannot be read" : "is damaged");
  }
  if (bad > limits::kCacheBadPlacesMax) switch_off("too much of it cannot be read");
}

// --- writing
// --------------------------------------------------------------------------------------

bool BlockCache::takes_unasked(uint64_t blocks) {
  const Nanos now = Loop::current().now();
  const auto passed = std::chrono::floor<std::chrono::milliseconds>(now - unasked_at_);
  if (passed.count() > 0) {
    const auto ms = std::min<uint64_t>(static_cast<uint64_t>(passed.count()), 1000);
    unasked_ = std::min(limits::kCacheUnaskedBytes,
                        unasked_ + ms * (limits::kCacheUnaskedPerSecond / 1000));
    unasked_at_ = now;
  }
  if (blocks * kBlockBytes > unasked_) return false;
  unasked_ -= blocks * kBlockBytes;
  return true;
}

std::vector<BlockCache::Taken> BlockCache::take_places(const ObjectId& id, uint32_t position,
                                                       uint32_t blocks) {
  std::vector<Taken> taken;
  const MutexLock lock(mutex_);
  if (!on_) return taken;
  for (uint32_t block = 0; block < blocks; ++block) {
    if (find(id, position + block) != kNone) continue;
    if (writing_bytes_ + kBlockBytes > limits::kCacheWriteBytesMax) break;
    const uint32_t place = choose();
    if (place == kNone) break;
    Entry& entry = entries_[place];
    entry.seal = uint64_t{sessions_.size() - 1} << kCacheNumberBits | next_number_++;
    entry.object = intern(id);
    entry.position = position + block;
    entry.state = State::kWriting;
    link(place);
    writing_bytes_ += kBlockBytes;
    taken.push_back(
        {.position = entry.position, .source = block, .place = place, .seal = entry.seal});
  }
  USBD_ASSERT(next_number_ < kCacheNumberEnd);
  return taken;
}

void BlockCache::add(const ObjectId& id, uint32_t position, Bytes blocks,
                     const FrameMemory& frame) {
  if (closed_) return;
  Batch batch{.id = id};
  batch.blocks = take_places(id, position, static_cast<uint32_t>(blocks.size() / kBlockBytes));
  if (batch.blocks.empty()) return;
  const uint64_t bytes = batch.blocks.size() * kBlockBytes;
  if (frame != nullptr && bytes * 2 > frame->size()) {
    batch.given = blocks;
    batch.memory = frame;
  } else {  // a frame that waits for a small part of it would be memory that nobody counts
    const auto copy = std::make_shared<FrameBuffer>(bytes);
    for (uint32_t i = 0; i < batch.blocks.size(); ++i) {
      const uint32_t source = std::exchange(batch.blocks[i].source, i);
      std::ranges::copy(blocks.subspan(source * kBlockBytes, kBlockBytes),
                        copy->bytes().subspan(i * kBlockBytes).begin());
    }
    batch.given = std::as_const(*copy).bytes();
    batch.memory = copy;
  }
  waiting_.push_back(std::move(batch));
  if (writers_ == limits::kCacheWritersMax) return;
  ++writers_;
  scope_.spawn(write_all());
}

BlockCache::Group BlockCache::take_group() {
  Group group;
  do {
    group.count += waiting_.front().blocks.size();
    group.batches.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  } while (!waiting_.empty() &&
           group.count + waiting_.front().blocks.size() <= limits::kCacheGroupBlocks);
  return group;
}

/// Threads: any; nobody else looks at the group meanwhile.
void BlockCache::seal(Group& group) const {
  group.memory = AlignedBuffer(group.count * kBlockBytes);
  group.blocks.reserve(group.count);
  const crypto::Sealer& sealer = *sessions_.back().sealer;
  for (const Batch& batch : group.batches) {
    for (const Taken& block : batch.blocks) {
      const MutableBytes sealed =
          group.memory.bytes().subspan(group.blocks.size() * kBlockBytes, kBlockBytes);
      Taken& taken = group.blocks.emplace_back(block);
      const Proof proof = proof_of(options_.volume, batch.id, taken.position);
      sealer.seal(number_of(taken.seal), {wire_bytes(proof)},
                  batch.given.subspan(uint64_t{taken.source} * kBlockBytes, kBlockBytes), sealed,
                  MutableBytes(taken.tag).first(sealer.tag_size()));
    }
  }
  group.batches.clear();
}

/// Writes what waits, and what comes while it does.
Task<void> BlockCache::write_all() {
  while (!waiting_.empty()) {
    Group group = take_group();
    auto seal_it = [this, &group] {
      seal(group);
      return true;
    };
    if (options_.workers != nullptr) {
      static_cast<void>(co_await options_.workers->run(seal_it));
    } else {
      static_cast<void>(seal_it());
    }
    co_await write(group);
    writing_bytes_ -= group.memory.size();
  }
  --writers_;
}

Task<void> BlockCache::write(const Group& group) {
  const std::span<const Taken> blocks = group.blocks;
  for (size_t from = 0; from < blocks.size();) {
    size_t to = from + 1;
    while (to < blocks.size() && blocks[to].place == blocks[to - 1].place + 1) ++to;
    const uint64_t offset = uint64_t{blocks[from].place} * kBlockBytes;
    const Bytes bytes = group.memory.bytes().subspan(from * kBlockBytes, (to - from) * kBlockBytes);
    const Result<void> done = co_await file_->write(offset, bytes, WriteFlags{});
    if (done) {
      written(blocks.subspan(from, to - from));
    } else {
      not_written(blocks.subspan(from, to - from), done.error());
    }
    from = to;
  }
}

void BlockCache::written(std::span<const Taken> run) {
  const MutexLock lock(mutex_);
  if (!on_) return;
  for (const Taken& block : run) {
    Entry& entry = entries_[block.place];
    USBD_ASSERT(entry.state == State::kWriting);
    entry.tag = block.tag;
    entry.state = State::kHere;
    ++here_;
  }
}

/// A full disk leaves the cache as large as it has come to be. Anything else ends it.
void BlockCache::not_written(std::span<const Taken> run, const Error& error) {
  bool shrunk = false;
  uint64_t places = 0;
  {
    const MutexLock lock(mutex_);
    if (!on_) return;
    for (const Taken& block : run) unlink(block.place, State::kFree);
    const uint32_t first_place = run.front().place;
    shrunk = error.is(Errc::kNoSpace) && first_place > 0;
    if (shrunk && first_place < places_max_) {
      const bool first =
          places_max_ == std::min<uint64_t>(options_.blocks_max, limits::kCacheBlocksMax);
      places_max_ = first_place;
      places = first ? places_max_ : 0;
    }
  }
  if (!shrunk) return switch_off(error.message());
  if (places > 0) {
    log::warning("the disk of {} is full: the cache there stays at about {} bytes", folder_.name(),
                 places * kBlockBytes);
  }
}

Task<void> BlockCache::settle() {
  // A Scope waits once only.
  while (scope_.running() > 0) co_await Loop::current().sleep_for(Nanos(100'000));
}

}  // namespace usbd::objstore
