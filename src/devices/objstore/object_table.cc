// SPDX-License-Identifier: Apache-2.0
//
// A page is made when no slot is free. Which slots of the pages read from a checkpoint are free is
// listed at the first change, when all pages have been read.

#include "devices/objstore/object_table.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/limits.h"
#include "base/random.h"

namespace usbd::objstore {
namespace {

struct DiskFacts {
  Le16 index;  ///< In the page.
  uint8_t state;
  uint8_t kind;
  Le32 reserved;
  Le32 blocks;
  Le32 live;
  Le64 epoch;
  Le64 seq;
  Le64 object_bytes;
  Le64 stored_bytes;
  Le64 first_write;
  Le64 last_write;
  Le64 pending_since;
};
static_assert(sizeof(DiskFacts) == 72);

DiskFacts to_disk(uint32_t index, const ObjectFacts& facts) {
  return {.index = static_cast<uint16_t>(index),
          .state = static_cast<uint8_t>(facts.state),
          .kind = static_cast<uint8_t>(facts.id.kind),
          .reserved = {},
          .blocks = facts.blocks,
          .live = facts.live,
          .epoch = facts.id.epoch,
          .seq = facts.id.seq,
          .object_bytes = facts.object_bytes,
          .stored_bytes = facts.stored_bytes,
          .first_write = facts.first_write,
          .last_write = facts.last_write,
          .pending_since = facts.pending_since};
}

/// Range: state and kind are known ones.
ObjectFacts from_disk(const DiskFacts& disk) {
  return {.id = {.epoch = disk.epoch, .seq = disk.seq, .kind = static_cast<ObjectKind>(disk.kind)},
          .state = static_cast<ObjectState>(disk.state),
          .object_bytes = disk.object_bytes,
          .stored_bytes = disk.stored_bytes,
          .blocks = disk.blocks,
          .live = disk.live,
          .first_write = disk.first_write,
          .last_write = disk.last_write,
          .pending_since = disk.pending_since};
}

bool known(const DiskFacts& disk) {
  const auto state = static_cast<ObjectState>(disk.state);
  return (state == ObjectState::kInUse || state == ObjectState::kPending) &&
         disk.kind >= static_cast<uint8_t>(ObjectKind::kData) &&
         disk.kind <= static_cast<uint8_t>(ObjectKind::kGc) && disk.reserved == 0;
}

void add_to(ObjectTotals& totals, const ObjectFacts& facts) {
  ++totals.objects;
  totals.object_bytes += facts.object_bytes;
  totals.stored_bytes += facts.stored_bytes;
  totals.live_bytes += facts.live_bytes();
}

void take_from(ObjectTotals& totals, const ObjectFacts& facts) {
  --totals.objects;
  totals.object_bytes -= facts.object_bytes;
  totals.stored_bytes -= facts.stored_bytes;
  totals.live_bytes -= facts.live_bytes();
}

Error refused(uint32_t page, const std::string& what) {
  return Error(Errc::kInvalid, fmt::format("object table page {} {}", page, what));
}

}  // namespace

struct ObjectTable::Page {
  Page() {
    for (ObjectFacts& facts : slots) facts.state = ObjectState::kFree;
  }
  std::array<ObjectFacts, kTablePageSlots> slots = {};
  /// The generation of the last change; 0: none since clear_changed().
  uint32_t changed = 0;
};

ObjectTable::ObjectTable(uint32_t slots_max) : slots_max_(slots_max) {
  USBD_ASSERT(slots_max % kTablePageSlots == 0);
  USBD_ASSERT(slots_max <= limits::kDataObjectsMax);
}
ObjectTable::~ObjectTable() = default;
ObjectTable::ObjectTable(ObjectTable&&) noexcept = default;

size_t ObjectTable::HashOf::operator()(const ObjectId& id) const {
  return mix64(mix64(id.epoch) ^ (id.seq << 1U) ^ static_cast<uint64_t>(id.kind));
}

std::string ObjectTable::check(const ObjectFacts& facts) {
  if (facts.object_bytes > limits::kDataObjectBytesMax || facts.stored_bytes > facts.object_bytes) {
    return fmt::format("has {} bytes, {} of them frames", facts.object_bytes, facts.stored_bytes);
  }
  if (facts.blocks > limits::kObjectBlocksMax || facts.live > facts.blocks) {
    return fmt::format("has {} blocks, {} of them live", facts.blocks, facts.live);
  }
  if ((facts.blocks == 0) != (facts.stored_bytes == 0)) {
    return fmt::format("has {} blocks in {} bytes of frames", facts.blocks, facts.stored_bytes);
  }
  const bool log = facts.id.kind == ObjectKind::kData;
  if (facts.first_write > facts.last_write || (!log && facts.last_write != 0)) {
    return fmt::format("holds the writes from {} to {}", facts.first_write, facts.last_write);
  }
  const bool pending = facts.state == ObjectState::kPending;
  if (pending != (facts.pending_since != 0) || (pending && facts.live != 0)) {
    return fmt::format("is pending since checkpoint {} with {} live blocks", facts.pending_since,
                       facts.live);
  }
  return {};
}

Result<uint32_t> ObjectTable::add(const ObjectFacts& facts) {
  USBD_ASSERT(facts.state == ObjectState::kInUse);
  USBD_ASSERT(check(facts).empty());
  if (const uint32_t slot = find(facts.id); slot != 0) {
    return Error(Errc::kExists, fmt::format("data object {:x}/{:x} has slot {} already",
                                            facts.id.epoch, facts.id.seq, slot));
  }
  const uint32_t slot = take_free_slot();
  if (slot == 0) {
    return Error(Errc::kNoSpace,
                 fmt::format("the volume has as many data objects as it can, {}", slots_max_ - 1));
  }
  std::unique_ptr<Page>& page = pages_[slot / kTablePageSlots];
  if (page == nullptr) page = std::make_unique<Page>();
  at(slot) = facts;
  slots_.emplace(facts.id, slot);
  count(facts);
  touch(slot);
  return slot;
}

uint32_t ObjectTable::take_free_slot() {
  list_free();
  if (free_.empty()) {
    if (slots_end() >= slots_max_) return 0;
    pages_.emplace_back();
    list_free();
  }
  const uint32_t slot = free_.top();
  free_.pop();
  return slot;
}

void ObjectTable::list_free() {
  for (; listed_ < pages(); ++listed_) {
    const uint32_t first = listed_ * kTablePageSlots;
    for (uint32_t i = listed_ == 0 ? 1 : 0; i < kTablePageSlots; ++i) {
      if (facts(first + i) == nullptr) free_.push(first + i);
    }
  }
}

void ObjectTable::add_live(uint32_t slot, uint32_t blocks) {
  ObjectFacts& facts = at(slot);
  USBD_ASSERT(facts.state == ObjectState::kInUse);
  USBD_ASSERT(blocks <= facts.blocks - facts.live);
  uncount(facts);
  facts.live += blocks;
  count(facts);
  touch(slot);
}

void ObjectTable::drop_live(uint32_t slot, uint32_t blocks) {
  ObjectFacts& facts = at(slot);
  USBD_ASSERT(blocks <= facts.live);
  uncount(facts);
  facts.live -= blocks;
  count(facts);
  touch(slot);
}

void ObjectTable::set_pending(uint32_t slot, uint64_t since) {
  ObjectFacts& facts = at(slot);
  USBD_ASSERT(facts.state == ObjectState::kInUse);
  USBD_ASSERT(facts.live == 0);
  USBD_ASSERT(since > 0);
  uncount(facts);
  facts.state = ObjectState::kPending;
  facts.pending_since = since;
  count(facts);
  touch(slot);
}

void ObjectTable::remove(uint32_t slot) {
  ObjectFacts& facts = at(slot);
  USBD_ASSERT(facts.live == 0);
  list_free();
  uncount(facts);
  slots_.erase(facts.id);
  facts = {};
  facts.state = ObjectState::kFree;
  removed_.push_back({slot, generation_});
  touch(slot);
}

void ObjectTable::reuse_removed(uint32_t until) {
  std::erase_if(removed_, [this, until](const Removed& removed) {
    if (removed.generation > until) return false;
    free_.push(removed.slot);
    return true;
  });
}

ObjectFacts& ObjectTable::at(uint32_t slot) {
  USBD_ASSERT(slot > 0);
  USBD_ASSERT(slot / kTablePageSlots < pages_.size());
  USBD_ASSERT(pages_[slot / kTablePageSlots] != nullptr);
  return pages_[slot / kTablePageSlots]->slots[slot % kTablePageSlots];
}

const ObjectFacts* ObjectTable::facts(uint32_t slot) const {
  const uint32_t index = slot / kTablePageSlots;
  if (index >= pages_.size() || pages_[index] == nullptr) return nullptr;
  const ObjectFacts& facts = pages_[index]->slots[slot % kTablePageSlots];
  return facts.state == ObjectState::kFree ? nullptr : &facts;
}

uint32_t ObjectTable::find(const ObjectId& id) const {
  const auto found = slots_.find(id);
  return found == slots_.end() ? 0 : found->second;
}

uint32_t ObjectTable::slots_end() const {
  return pages() * kTablePageSlots;
}

void ObjectTable::for_each(
    const std::function<void(uint32_t slot, const ObjectFacts&)>& visit) const {
  for (uint32_t slot = 1; slot < slots_end(); ++slot) {
    if (const ObjectFacts* found = facts(slot)) visit(slot, *found);
  }
}

const ObjectTotals& ObjectTable::totals(ObjectState state) const {
  USBD_ASSERT(state != ObjectState::kFree);
  return totals_[static_cast<size_t>(state)];
}

void ObjectTable::set_pins(const PinLine& newest) {
  if (newest == newest_pin_) return;
  newest_pin_ = newest;
  pinned_ = {};
  for_each([this](uint32_t, const ObjectFacts& facts) {
    if (is_pinned(facts)) add_to(pinned_, facts);
  });
}

ObjectTotals ObjectTable::unpinned() const {
  const ObjectTotals& all = totals(ObjectState::kInUse);
  return {.objects = all.objects - pinned_.objects,
          .object_bytes = all.object_bytes - pinned_.object_bytes,
          .stored_bytes = all.stored_bytes - pinned_.stored_bytes,
          .live_bytes = all.live_bytes - pinned_.live_bytes};
}

bool ObjectTable::is_pinned(const ObjectFacts& facts) const {
  return facts.state == ObjectState::kInUse && newest_pin_.covers(facts.id);
}

void ObjectTable::count(const ObjectFacts& facts) {
  add_to(totals_[static_cast<size_t>(facts.state)], facts);
  if (is_pinned(facts)) add_to(pinned_, facts);
}

void ObjectTable::uncount(const ObjectFacts& facts) {
  USBD_ASSERT(facts.state != ObjectState::kFree);
  take_from(totals_[static_cast<size_t>(facts.state)], facts);
  if (is_pinned(facts)) take_from(pinned_, facts);
}

void ObjectTable::touch(uint32_t slot) {
  pages_[slot / kTablePageSlots]->changed = generation_;
}

bool ObjectTable::changed(uint32_t index) const {
  USBD_ASSERT(index < pages_.size());
  return pages_[index] != nullptr && pages_[index]->changed != 0;
}

void ObjectTable::clear_changed(uint32_t index, uint32_t until) {
  USBD_ASSERT(index < pages_.size());
  Page* page = pages_[index].get();
  if (page != nullptr && page->changed <= until) page->changed = 0;
}

std::vector<std::byte> ObjectTable::encode_page(uint32_t index) const {
  USBD_ASSERT(index < pages_.size());
  std::vector<std::byte> out;
  if (pages_[index] == nullptr) return out;
  for (uint32_t i = 0; i < kTablePageSlots; ++i) {
    const ObjectFacts& facts = pages_[index]->slots[i];
    if (facts.state == ObjectState::kFree) continue;
    const DiskFacts disk = to_disk(i, facts);
    const Bytes bytes = wire_bytes(disk);
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  return out;
}

Result<void> ObjectTable::decode_page(uint32_t index, Bytes encoded) {
  USBD_ASSERT(listed_ == 0);
  const size_t count_in_page = encoded.size() / sizeof(DiskFacts);
  if (encoded.size() % sizeof(DiskFacts) != 0 || count_in_page > kTablePageSlots ||
      index >= slots_max_ / kTablePageSlots) {
    return refused(index, fmt::format("has {} bytes, which no page has", encoded.size()));
  }
  std::vector<std::pair<uint32_t, ObjectFacts>> read;
  std::unordered_map<ObjectId, uint32_t, HashOf> ids;
  uint32_t next = index == 0 ? 1 : 0;
  for (size_t i = 0; i < count_in_page; ++i) {
    const auto disk = wire_read<DiskFacts>(encoded.subspan(i * sizeof(DiskFacts)));
    if (disk.index < next || disk.index >= kTablePageSlots) {
      return refused(index, fmt::format("has entry {} out of order", uint32_t{disk.index}));
    }
    next = uint32_t{disk.index} + 1;
    const uint32_t slot = index * kTablePageSlots + disk.index;
    if (!known(disk)) return refused(index, fmt::format("has no valid state for slot {}", slot));
    const ObjectFacts facts = from_disk(disk);
    if (const std::string wrong = check(facts); !wrong.empty()) {
      return refused(index, fmt::format("says that the object of slot {} {}", slot, wrong));
    }
    if (find(facts.id) != 0 || !ids.emplace(facts.id, slot).second) {
      return refused(index, fmt::format("names an object twice: the second slot is {}", slot));
    }
    read.emplace_back(slot, facts);
  }
  if (read.empty()) return {};
  if (pages_.size() <= index) pages_.resize(index + 1);
  USBD_ASSERT(pages_[index] == nullptr);
  pages_[index] = std::make_unique<Page>();
  for (const auto& [slot, facts] : read) {
    at(slot) = facts;
    count(facts);
  }
  slots_.merge(ids);
  return {};
}

}  // namespace usbd::objstore
