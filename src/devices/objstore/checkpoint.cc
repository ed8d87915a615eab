// SPDX-License-Identifier: Apache-2.0
//
// The moment of a checkpoint: the object table's pages are copied at once, since they are small
// (72 bytes an object); those of the map when their turn comes, leaf by leaf, or, if somebody
// changes a leaf before, just before that change. So neither the memory nor the time at once grows
// with the volume.

#include "devices/objstore/checkpoint.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "devices/objstore/names.h"
#include "usbd/loop.h"

namespace usbd::objstore {
namespace {

using Pages = std::vector<uint32_t>;

/// Which objects of a root to empty: those under half live, and the smaller half of all when there
/// are many more than their pages need.
std::vector<MapObjectId> sparse_objects(const CheckpointRoot& root, uint32_t object_bytes) {
  std::map<MapObjectId, uint64_t> bytes;
  uint64_t total = 0;
  for (const auto* pages : {&root.map_pages, &root.table_pages}) {
    for (const PageRef& ref : *pages) {
      bytes[ref.piece.object] += ref.piece.stored;
      total += ref.piece.stored;
    }
  }
  std::vector<MapObjectId> sparse;
  for (const MapObject& object : root.objects) {
    if (object.live < object.pages - object.live) sparse.push_back(object.id);
  }
  if (root.objects.size() > limits::kMapObjectsSlack + 2 * (total / object_bytes)) {
    std::vector<std::pair<uint64_t, MapObjectId>> by_size;
    for (const auto& [id, size] : bytes) by_size.emplace_back(size, id);
    std::ranges::sort(by_size);
    for (size_t i = 0; i < by_size.size() / 2; ++i) sparse.push_back(by_size[i].second);
  }
  std::ranges::sort(sparse);
  return sparse;
}

/// The pages of `refs` that lie in one of `objects`, which are sorted.
void select(const std::vector<PageRef>& refs, const std::vector<MapObjectId>& objects,
            Pages& pages) {
  for (const PageRef& ref : refs) {
    if (std::ranges::binary_search(objects, ref.piece.object)) pages.push_back(ref.page);
  }
}

void sort_once(Pages& pages) {
  std::ranges::sort(pages);
  pages.erase(std::ranges::unique(pages).begin(), pages.end());
}

bool any_leaf_changed(const BlockMap& map, uint32_t page) {
  const uint64_t first = uint64_t{page} * kPageLeaves;
  const uint64_t end = std::min(first + kPageLeaves, map.leaves());
  for (uint64_t leaf = first; leaf < end; ++leaf) {
    if (map.changed(leaf)) return true;
  }
  return false;
}

/// `refs` without the pages `written` and with `fresh`; all are in order.
void replace(std::vector<PageRef>& refs, const Pages& written, const std::vector<PageRef>& fresh) {
  std::erase_if(refs, [&written](const PageRef& ref) {
    return std::ranges::binary_search(written, ref.page);
  });
  std::vector<PageRef> merged;
  merged.reserve(refs.size() + fresh.size());
  std::ranges::merge(refs, fresh, std::back_inserter(merged), {}, &PageRef::page, &PageRef::page);
  refs = std::move(merged);
}

}  // namespace

/// The map's pages as they were when this was made, while the map changes: leaves that change
/// before they were taken are copied.
class CheckpointWriter::Frozen {
 public:
  /// `copied`: the bytes of the copies are added to it.
  Frozen(const BlockMap& map, Pages pages, std::shared_ptr<uint64_t> copied)
      : map_(map), pages_(std::move(pages)), copied_(std::move(copied)) {
    std::ranges::sort(pages_);
  }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;
  ~Frozen() {
    for (const auto& [leaf, bytes] : copies_) *copied_ -= bytes.size();
  }

  void before_change(uint64_t leaf) {
    const auto page = static_cast<uint32_t>(leaf / kPageLeaves);
    const bool waits = leaf >= next_ && std::ranges::binary_search(pages_, page);
    if (!waits || has_copy(leaf)) return;
    const auto copy = copies_.emplace(leaf, map_.encode_leaf(leaf)).first;
    *copied_ += copy->second.size();
  }
  [[nodiscard]] bool has_copy(uint64_t leaf) const { return copies_.contains(leaf); }
  /// Range: called once for each leaf, in order; it has a copy, or is here.
  std::vector<std::byte> take(uint64_t leaf) {
    next_ = leaf + 1;
    const auto copy = copies_.find(leaf);
    if (copy == copies_.end()) return map_.encode_leaf(leaf);
    std::vector<std::byte> bytes = std::move(copy->second);
    copies_.erase(copy);
    *copied_ -= bytes.size();
    return bytes;
  }

 private:
  const BlockMap& map_;
  Pages pages_;
  const std::shared_ptr<uint64_t> copied_;
  /// Leaves below it were taken.
  uint64_t next_ = 0;
  std::map<uint64_t, std::vector<std::byte>> copies_;
};

/// One checkpoint being written.
class CheckpointWriter::Attempt {
 public:
  Attempt(CheckpointWriter& owner, BlockMap& map, ObjectTable& table, CheckpointMoment moment,
          std::stop_token stop)
      : owner_(owner), map_(map), table_(table), stop_(std::move(stop)), next_(owner.root_) {
    ++next_.number;
    next_.blocks = map.blocks();
    next_.last_seq = moment.last_seq;
    next_.last_write = moment.last_write;
    next_.head = std::move(moment.head);
    if (moment.snapshots) next_.snapshots = *std::move(moment.snapshots);
    choose_pages();
    map_generation_ = map_.end_generation();
    table_generation_ = table_.end_generation();
    for (const uint32_t page : table_pages_) table_bytes_.push_back(table_.encode_page(page));
    // Shared: whoever drops a task in its middle leaves the map with something that works.
    frozen_ = std::make_shared<Frozen>(map_, map_pages_, owner_.copied_bytes_);
    map_.watch([frozen = frozen_](uint64_t leaf) { frozen->before_change(leaf); });
  }

  Task<Result<PiecePointer>> run() {
    Result<PiecePointer> root = co_await store();
    map_.watch({});
    frozen_ = nullptr;
    co_return root;
  }

  /// After success: what was written is not changed any more. Returns what is not needed any more.
  std::vector<MapObjectId> settle() {
    for (const uint32_t page : map_pages_) {
      const uint64_t first = uint64_t{page} * kPageLeaves;
      const uint64_t end = std::min(first + kPageLeaves, map_.leaves());
      owner_.options_.exclusively([this, first, end] {
        for (uint64_t leaf = first; leaf < end; ++leaf) map_.clear_changed(leaf, map_generation_);
      });
    }
    for (const uint32_t page : table_pages_) table_.clear_changed(page, table_generation_);
    owner_.root_ = std::move(next_);
    return std::move(dead_);
  }

  [[nodiscard]] const std::vector<MapObjectId>& objects() const { return objects_; }
  [[nodiscard]] uint32_t pages() const {
    return static_cast<uint32_t>(map_refs_.size() + table_refs_.size());
  }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  void choose_pages() {
    const std::vector<MapObjectId> sparse = sparse_objects(next_, owner_.options_.object_bytes);
    select(next_.map_pages, sparse, map_pages_);
    select(next_.table_pages, sparse, table_pages_);
    for (uint32_t page = 0; page < map_pages(map_); ++page) {
      if (any_leaf_changed(map_, page)) map_pages_.push_back(page);
    }
    for (uint32_t page = 0; page < table_.pages(); ++page) {
      if (table_.changed(page)) table_pages_.push_back(page);
    }
    sort_once(map_pages_);
    sort_once(table_pages_);
  }

  Task<Result<PiecePointer>> store() {
    for (const uint32_t page : map_pages_) {
      USBD_CO_TRY(std::vector<std::byte> bytes, co_await take_page(page));
      const PieceLabel label{.kind = PieceKind::kMapPage, .page = page};
      USBD_CO_TRY_VOID(co_await add_page(label, std::move(bytes), map_refs_));
    }
    for (size_t i = 0; i < table_pages_.size(); ++i) {
      const PieceLabel label{.kind = PieceKind::kTablePage, .page = table_pages_[i]};
      USBD_CO_TRY_VOID(co_await add_page(label, std::move(table_bytes_[i]), table_refs_));
    }
    co_return co_await store_root();
  }

  /// The page as it was at the moment. One leaf of it at a time has to be here.
  Task<Result<std::vector<std::byte>>> take_page(uint32_t page) {
    const uint64_t first = uint64_t{page} * kPageLeaves;
    const uint64_t end = std::min(first + kPageLeaves, map_.leaves());
    MapPageBuilder builder;
    for (uint64_t leaf = first; leaf < end; ++leaf) {
      MapHold hold;
      if (map_.is_away(leaf) && !frozen_->has_copy(leaf)) {
        USBD_ASSERT(owner_.options_.pager != nullptr);
        const BlockRange block(leaf * kLeafBlocks, 1);
        USBD_CO_TRY(hold, co_await owner_.options_.pager->hold(block));
      }
      builder.add(frozen_->take(leaf));
    }
    co_return builder.finish();
  }

  Task<Result<void>> add_page(PieceLabel label, std::vector<std::byte> bytes,
                              std::vector<PageRef>& refs) {
    if (bytes.empty()) co_return Result<void>();
    if (open_ && open_->bytes().size() + bytes.size() > owner_.options_.object_bytes) {
      USBD_CO_TRY_VOID(co_await put());
    }
    if (!open_) USBD_CO_TRY_VOID(begin_object());
    refs.push_back({label.page, open_->add(label, owner_.options_.codec, bytes)});
    // Others have their turn: a page takes about as long as a request.
    co_await Loop::current().schedule();
    co_return Result<void>();
  }

  Result<void> begin_object() {
    const MapObjectId id{.epoch = owner_.options_.epoch, .id = owner_.next_id_++};
    ObjectSalt salt;
    owner_.rng_.fill(salt);
    USBD_TRY(PieceWriter writer, PieceWriter::create(owner_.place_.seal, id, salt));
    open_ = std::move(writer);
    return {};
  }

  Task<Result<PiecePointer>> store_root() {
    // What is in `open_` is listed before its object is closed: the root may follow in the same.
    if (open_) list_open();
    replace(next_.map_pages, map_pages_, map_refs_);
    replace(next_.table_pages, table_pages_, table_refs_);
    dead_ = recount(next_);
    USBD_CO_TRY(const std::vector<std::byte> bytes, encode_root(next_));
    const bool fits = open_ && bytes.size() <= limits::kRootInlineBytes &&
                      open_->bytes().size() + bytes.size() <= owner_.options_.object_bytes;
    if (open_ && !fits) USBD_CO_TRY_VOID(co_await send());
    if (!open_) USBD_CO_TRY_VOID(begin_object());
    const PieceLabel label{.kind = PieceKind::kRoot, .page = 0};
    const PiecePointer pointer = open_->add(label, owner_.options_.codec, bytes);
    USBD_CO_TRY_VOID(co_await send());
    co_return pointer;
  }

  void list_open() {
    next_.objects.push_back(
        {.id = open_->object(), .salt = open_->salt(), .pages = open_->pieces(), .live = 0});
  }

  Task<Result<void>> put() {
    list_open();
    co_return co_await send();
  }

  Task<Result<void>> send() {
    const PieceWriter writer = *std::move(open_);
    open_.reset();
    objects_.push_back(writer.object());
    const std::string name =
        map_name(owner_.place_.volume, writer.object().epoch, writer.object().id);
    const objects::CallLimits limits{.timeout = Nanos(0), .stop = stop_};
    const objects::Condition always;
    const Result<std::string> tag =
        co_await owner_.place_.store->put(name, writer.bytes(), always, limits);
    if (!tag) {
      co_return Error(tag.error().code(), fmt::format("cannot store a part of a checkpoint, {}: {}",
                                                      name, tag.error().context()));
    }
    bytes_ += writer.bytes().size();
    co_return Result<void>();
  }

  CheckpointWriter& owner_;
  BlockMap& map_;
  ObjectTable& table_;
  std::stop_token stop_;
  CheckpointRoot next_;
  uint32_t map_generation_ = 0;
  uint32_t table_generation_ = 0;
  /// What is written, in order; empty ones go away.
  Pages map_pages_;
  Pages table_pages_;
  std::vector<std::vector<std::byte>> table_bytes_;
  std::shared_ptr<Frozen> frozen_;
  /// The object that takes pages.
  std::optional<PieceWriter> open_;
  std::vector<PageRef> map_refs_;
  std::vector<PageRef> table_refs_;
  /// Those that were sent, and those of the last root in which nothing is live any more.
  std::vector<MapObjectId> objects_;
  std::vector<MapObjectId> dead_;
  uint64_t bytes_ = 0;
};

CheckpointWriter::CheckpointWriter(CheckpointPlace place, const Options& options, Rng& rng,
                                   std::optional<Previous> previous)
    : place_(std::move(place)), options_(options), rng_(rng) {
  if (!previous) return;
  root_ = std::move(previous->root);
  pointer_ = previous->pointer;
  USBD_ASSERT(pointer_->object.epoch < options_.epoch);
  USBD_ASSERT(root_.objects.empty() || root_.objects.back().id.epoch < options_.epoch);
}

Task<Result<Checkpoint>> CheckpointWriter::write(BlockMap& map, ObjectTable& table,
                                                 CheckpointMoment moment, std::stop_token stop) {
  USBD_ASSERT(!writing_);
  USBD_ASSERT(root_.number == 0 || root_.blocks == map.blocks());
  writing_ = true;
  Attempt attempt(*this, map, table, std::move(moment), std::move(stop));
  Result<Checkpoint> checkpoint = co_await finish(attempt);
  writing_ = false;
  co_return checkpoint;
}

/// Whether a snapshot needs what the last checkpoint needed and this one does not. What was there
/// when the newest was taken, it needs: objects are needed by checkpoints in an unbroken row. What
/// a failed attempt left is younger than any root that was stored before.
bool CheckpointWriter::held(const MapObjectId& id) const {
  return options_.holds_for_snapshots && !root_.snapshots.empty() &&
         id <= root_.snapshots.back().root.object;
}

Task<Result<Checkpoint>> CheckpointWriter::finish(Attempt& attempt) {
  const Result<PiecePointer> root = co_await attempt.run();
  if (!root) {
    abandoned_.insert(abandoned_.end(), attempt.objects().begin(), attempt.objects().end());
    co_return root.error();
  }
  std::vector<MapObjectId> garbage = attempt.settle();
  const auto needed = [this](const MapObjectId& id) {
    return std::ranges::binary_search(root_.objects, id, {}, &MapObject::id);
  };
  garbage.insert(garbage.end(), abandoned_.begin(), abandoned_.end());
  abandoned_.clear();
  // An object that held a root and live pages goes away with its pages.
  if (pointer_ && !needed(pointer_->object)) garbage.push_back(pointer_->object);
  pointer_ = *root;
  std::ranges::sort(garbage);
  garbage.erase(std::ranges::unique(garbage).begin(), garbage.end());
  std::erase_if(garbage, [this](const MapObjectId& id) { return held(id); });
  Checkpoint checkpoint{.root = *root,
                        .garbage = {},
                        .pages = attempt.pages(),
                        .objects = static_cast<uint32_t>(attempt.objects().size()),
                        .bytes = attempt.bytes()};
  for (const MapObjectId& id : garbage) {
    checkpoint.garbage.push_back(map_name(place_.volume, id.epoch, id.id));
  }
  co_return checkpoint;
}

}  // namespace usbd::objstore
