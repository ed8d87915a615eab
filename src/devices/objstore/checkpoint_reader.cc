// SPDX-License-Identifier: Apache-2.0
//
// Pages that lie near each other in one object are fetched by one GET. A few tasks take these in
// turn; the first error stops all.

#include <algorithm>

#include <fmt/format.h>

#include "async/scope.h"
#include "base/assert.h"
#include "base/limits.h"
#include "devices/objstore/checkpoint.h"
#include "devices/objstore/names.h"
#include "usbd/loop.h"

namespace usbd::objstore {
namespace {

struct Wanted {
  PieceLabel label = {};
  PiecePointer pointer = {};
};

std::vector<Wanted> wanted_pages(const CheckpointRoot& root) {
  std::vector<Wanted> wanted;
  wanted.reserve(root.map_pages.size() + root.table_pages.size());
  for (const PageRef& ref : root.map_pages) {
    wanted.push_back({{.kind = PieceKind::kMapPage, .page = ref.page}, ref.piece});
  }
  for (const PageRef& ref : root.table_pages) {
    wanted.push_back({{.kind = PieceKind::kTablePage, .page = ref.page}, ref.piece});
  }
  std::ranges::sort(wanted, [](const Wanted& a, const Wanted& b) {
    return std::pair(a.pointer.object, a.pointer.offset) <
           std::pair(b.pointer.object, b.pointer.offset);
  });
  return wanted;
}

/// The part of `bytes`, which begin at `start` of an object, where the piece is; what is there.
Bytes part_of(Bytes bytes, uint64_t start, const PiecePointer& pointer) {
  const uint64_t offset = std::min<uint64_t>(pointer.offset - start, bytes.size());
  return bytes.subspan(offset, std::min<uint64_t>(pointer.stored, bytes.size() - offset));
}

Error disagree(const std::string& what) {
  return Error(Errc::kInvalid, "the checkpoint's map and object table disagree: " + what);
}

/// What the map says of the objects in it, counted as it is read.
class LiveCounts {
 public:
  /// Range: all slots that the checkpoint's table can have are below `slots_end`.
  explicit LiveCounts(uint64_t slots_end) : counts_(slots_end) {}

  /// Errors: there is no such object.
  Result<void> add(const MappedRun& run) {
    const Location& at = run.location;
    if (at.slot == 0) return {};
    if (at.slot >= counts_.size()) return nothing_at(run.blocks.first, at.position, at.slot);
    Count& count = counts_[at.slot];
    count.live += run.blocks.count;
    const uint64_t end = at.position + run.blocks.count;
    if (end <= count.end) return {};
    count.end = end;
    count.last = run.blocks.first;
    count.last_position = at.position;
    return {};
  }
  /// Errors: the table says otherwise.
  [[nodiscard]] Result<void> compare(const ObjectTable& table) const {
    for (uint32_t slot = 1; slot < counts_.size(); ++slot) {
      const Count& count = counts_[slot];
      const ObjectFacts* const facts = table.facts(slot);
      const bool can_be =
          facts != nullptr && facts->state == ObjectState::kInUse && count.end <= facts->blocks;
      if (count.live > 0 && !can_be) return nothing_at(count.last, count.last_position, slot);
    }
    for (uint32_t slot = 1; slot < counts_.size(); ++slot) {
      const ObjectFacts* const facts = table.facts(slot);
      if (facts == nullptr || facts->live == counts_[slot].live) continue;
      return disagree(fmt::format("{} blocks are mapped to slot {}, and {} are said to be live",
                                  counts_[slot].live, slot, facts->live));
    }
    return {};
  }

 private:
  struct Count {
    uint64_t live = 0;
    /// Of the run that is furthest in the object.
    uint64_t end = 0;
    uint64_t last = 0;
    uint32_t last_position = 0;
  };

  static Error nothing_at(uint64_t block, uint32_t position, uint32_t slot) {
    return disagree(fmt::format("block {} is at position {} of slot {}, where nothing is", block,
                                position, slot));
  }

  std::vector<Count> counts_;
};

uint64_t slots_end(const CheckpointRoot& root) {
  const uint64_t pages = root.table_pages.empty() ? 0 : uint64_t{root.table_pages.back().page} + 1;
  return pages * kTablePageSlots;
}

}  // namespace

/// What one GET fetches.
struct CheckpointReader::Run {
  MapObjectId object = {};
  ByteRange range = {};
  std::vector<Wanted> pages = {};
};

struct CheckpointReader::Loading {
  const CheckpointRoot& root;
  BlockMap& map;
  ObjectTable& table;
  MapPager* pager;
  LiveCounts live;
  std::vector<Run> runs = {};
  /// The first that nobody has begun.
  size_t next = 0;
  std::optional<Error> error = std::nullopt;
};

Error CheckpointReader::at(const MapObjectId& object, const Error& error) const {
  return Error(error.code(),
               fmt::format("checkpoint object {}: {}",
                           map_name(place_.volume, object.epoch, object.id), error.context()));
}

Task<Result<std::vector<std::byte>>> CheckpointReader::fetch(MapObjectId object, ByteRange range) {
  const std::string name = map_name(place_.volume, object.epoch, object.id);
  const objects::CallLimits limits{.timeout = Nanos(0), .stop = stop_};
  const objects::Part part = objects::Part::range(range.offset, range.length);
  Result<objects::Fetched> fetched = co_await place_.store->get(name, part, limits);
  if (!fetched) co_return fetched.error();
  co_return std::move(fetched->data);
}

Task<Result<CheckpointRoot>> CheckpointReader::read_root(PiecePointer pointer) {
  const auto failed = [this, &pointer](const Error& error) { return at(pointer.object, error); };
  if (const std::string wrong = check(pointer); !wrong.empty()) {
    co_return failed(Error(Errc::kInvalid, "head does not say where the root is: " + wrong));
  }
  const bool near = pointer.range().end() <= limits::kRootInlineBytes;
  const ByteRange first(0, near ? pointer.range().end() : kMapHeaderBytes);
  Result<std::vector<std::byte>> start = co_await fetch(pointer.object, first);
  if (!start) co_return failed(start.error());
  const Result<MapHeader> header = parse_map_header(place_.seal, pointer.object, *start);
  if (!header) co_return failed(header.error());
  const Result<PieceReader> pieces = PieceReader::create(place_.seal, pointer.object, header->salt);
  if (!pieces) co_return failed(pieces.error());
  Result<std::vector<std::byte>> behind = std::vector<std::byte>();
  if (!near) behind = co_await fetch(pointer.object, pointer.range());
  if (!behind) co_return failed(behind.error());
  const Bytes stored = near ? part_of(*start, 0, pointer) : Bytes(*behind);
  const PieceLabel label{.kind = PieceKind::kRoot, .page = 0};
  const Result<std::vector<std::byte>> plain = pieces->open(label, pointer, stored);
  if (!plain) co_return failed(plain.error());
  Result<CheckpointRoot> root = decode_root(*plain);
  if (!root) co_return failed(root.error());
  co_return root;
}

std::vector<CheckpointReader::Run> CheckpointReader::plan(const CheckpointRoot& root) {
  std::vector<Run> runs;
  for (const Wanted& page : wanted_pages(root)) {
    const ByteRange range = page.pointer.range();
    const bool joins = !runs.empty() && runs.back().object == page.pointer.object &&
                       range.offset <= runs.back().range.end() + limits::kCheckpointReadGap &&
                       range.end() <= runs.back().range.offset + limits::kCheckpointReadBytes;
    if (!joins) runs.push_back({.object = page.pointer.object, .range = range});
    Run& run = runs.back();
    run.range.length = std::max(run.range.end(), range.end()) - run.range.offset;
    run.pages.push_back(page);
  }
  return runs;
}

Task<Result<void>> CheckpointReader::read_pages(const CheckpointRoot& root, BlockMap& map,
                                                ObjectTable& table, MapPager* pager) {
  if (root.blocks != map.blocks()) {
    co_return Error(Errc::kInvalid, fmt::format("the checkpoint is of a volume of {} blocks, and "
                                                "this one has {}",
                                                root.blocks, map.blocks()));
  }
  Loading loading{.root = root,
                  .map = map,
                  .table = table,
                  .pager = pager,
                  .live = LiveCounts(slots_end(root)),
                  .runs = plan(root)};
  Scope scope;
  const size_t tasks = std::min(limits::kCheckpointReads, loading.runs.size());
  for (size_t i = 0; i < tasks; ++i) scope.spawn(load(loading));
  co_await scope.close();
  if (loading.error) co_return *loading.error;
  co_return loading.live.compare(table);
}

Task<void> CheckpointReader::load(Loading& loading) {
  while (!loading.error && loading.next < loading.runs.size()) {
    const Run& run = loading.runs[loading.next++];
    const Result<void> loaded = co_await load_run(loading, run);
    if (!loaded && !loading.error) loading.error = at(run.object, loaded.error());
  }
}

Task<Result<void>> CheckpointReader::load_run(Loading& loading, const Run& run) {
  USBD_CO_TRY(const std::vector<std::byte> bytes, co_await fetch(run.object, run.range));
  const auto object =
      std::ranges::lower_bound(loading.root.objects, run.object, {}, &MapObject::id);
  USBD_CO_TRY(const PieceReader pieces, PieceReader::create(place_.seal, run.object, object->salt));
  for (const Wanted& page : run.pages) {
    const Bytes stored = part_of(bytes, run.range.offset, page.pointer);
    USBD_CO_TRY(const std::vector<std::byte> plain, pieces.open(page.label, page.pointer, stored));
    if (page.label.kind == PieceKind::kMapPage) {
      USBD_CO_TRY_VOID(co_await load_map_page(loading, page.label.page, plain));
    } else {
      USBD_CO_TRY_VOID(loading.table.decode_page(page.label.page, plain));
    }
    // Others have their turn: a page takes about as long as a request.
    co_await Loop::current().schedule();
    if (loading.error) break;
  }
  co_return Result<void>();
}

Task<Result<void>> CheckpointReader::load_map_page(Loading& loading, uint32_t page, Bytes plain) {
  BlockMap& map = loading.map;
  USBD_CO_TRY(const auto leaves, split_map_page(map.leaves(), page, plain));
  const uint64_t first = uint64_t{page} * kPageLeaves;
  for (uint64_t i = 0; i < kPageLeaves && first + i < map.leaves(); ++i) {
    USBD_CO_TRY_VOID(map.decode_leaf(first + i, leaves[i]));
    const uint64_t block = (first + i) * kLeafBlocks;
    const BlockRange range(block, std::min<uint64_t>(kLeafBlocks, map.blocks() - block));
    for (const MappedRun& run : map.find(range)) USBD_CO_TRY_VOID(loading.live.add(run));
    if (loading.pager != nullptr && !loading.pager->has_room()) {
      co_await loading.pager->make_room();
    }
  }
  co_return Result<void>();
}

Task<Result<std::vector<std::byte>>> CheckpointReader::read_leaf(const CheckpointRoot& root,
                                                                 uint64_t leaf) {
  const auto page = static_cast<uint32_t>(leaf / kPageLeaves);
  const auto ref = std::ranges::lower_bound(root.map_pages, page, {}, &PageRef::page);
  if (ref == root.map_pages.end() || ref->page != page) {
    co_return Error(Errc::kNotFound, "the last checkpoint has nothing there");
  }
  const PiecePointer pointer = ref->piece;
  const uint64_t leaves = (root.blocks + kLeafBlocks - 1) / kLeafBlocks;
  const auto object = std::ranges::lower_bound(root.objects, pointer.object, {}, &MapObject::id);
  USBD_CO_TRY(const PieceReader pieces,
              PieceReader::create(place_.seal, pointer.object, object->salt));
  const Result<std::vector<std::byte>> stored = co_await fetch(pointer.object, pointer.range());
  if (!stored) co_return at(pointer.object, stored.error());
  const PieceLabel label{.kind = PieceKind::kMapPage, .page = page};
  const Result<std::vector<std::byte>> plain = pieces.open(label, pointer, *stored);
  if (!plain) co_return at(pointer.object, plain.error());
  USBD_CO_TRY(const auto found, split_map_page(leaves, page, *plain));
  const Bytes bytes = found[leaf % kPageLeaves];
  co_return std::vector<std::byte>(bytes.begin(), bytes.end());
}

}  // namespace usbd::objstore
