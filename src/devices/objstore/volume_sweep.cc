// SPDX-License-Identifier: Apache-2.0
//
// After opening: objects that processes before this one left behind are looked for and removed:
// uploads that were never published, parts of checkpoints that failed or were replaced, objects
// that were about to be deleted. Nothing but room depends on it, so it takes its time.
//
// What makes it safe: an object that is removed is of an epoch before this one, whose owner can
// publish nothing any more, and it was needed neither by the head that this process took nor by
// what that points at, snapshots included: the object table has all data objects that any of them
// needs, and of checkpoints they need what their own roots list. So no head from then on can lead
// to it: later ones know only of those same objects, and of objects of later epochs. The listing
// proves nothing; it may show too little or too much. What is of another volume, by its own header,
// is left alone: it may be all that is left of that.

#include <charconv>
#include <optional>
#include <utility>

#include "base/log.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {
namespace {

struct ParsedName {
  char kind = 0;
  uint64_t epoch = 0;
  uint64_t number = 0;
};

bool parse_number(std::string_view text, uint64_t& number) {
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), number, 16);
  return error == std::errc() && at == text.data() + text.size();
}

/// `<kind>/<16 digits>/<16 digits>`; none: not one of these.
std::optional<ParsedName> parse(std::string_view name) {
  ParsedName parsed;
  if (name.size() != 35 || name[1] != '/' || name[18] != '/') return std::nullopt;
  parsed.kind = name[0];
  const bool known = parsed.kind == 'd' || parsed.kind == 'g' || parsed.kind == 'm';
  const bool numbers = parse_number(name.substr(2, 16), parsed.epoch) &&
                       parse_number(name.substr(19), parsed.number);
  return known && numbers ? std::optional(parsed) : std::nullopt;
}

}  // namespace

/// What the head and the root that were found need of earlier epochs.
struct Volume::Needed {
  uint64_t epoch = 0;
  std::set<MapObjectId> maps;
};

bool Volume::is_needed(const Needed& needed, std::string_view name) {
  const std::optional<ParsedName> parsed = parse(name.substr(options_.name.size() + 1));
  if (!parsed || parsed->epoch >= needed.epoch) return true;
  if (parsed->kind == 'm') {
    if (name != map_name(options_.name, parsed->epoch, parsed->number)) return true;
    return needed.maps.contains({.epoch = parsed->epoch, .id = parsed->number});
  }
  const ObjectKind kind = parsed->kind == 'd' ? ObjectKind::kData : ObjectKind::kGc;
  const ObjectId id{.epoch = parsed->epoch, .seq = parsed->number, .kind = kind};
  if (name != data_name(options_.name, id)) return true;
  // Every object of earlier epochs that matters is in the table from the opening on, until it is
  // deleted in its own time.
  return live_->table().find(id) != 0;
}

Task<bool> Volume::is_ours(std::string name) {
  const bool map = name[options_.name.size() + 1] == 'm';
  const objects::CallLimits limits{.stop = stop_.get_token()};
  const objects::Part part = objects::Part::range(0, limits::kSweepHeaderBytes);
  const Result<objects::Fetched> start = co_await parts_.store.get(name, part, limits);
  if (!start) co_return false;
  if (!map) {
    const Result<ObjectHeader> header = parse_header(start->data);
    co_return header && header->volume == head().volume;
  }
  const std::optional<ParsedName> parsed = parse(name.substr(options_.name.size() + 1));
  const MapObjectId id{.epoch = parsed->epoch, .id = parsed->number};
  co_return parse_map_header(seal(), id, start->data).has_value();
}

Task<void> Volume::sweep() {
  Needed needed{.epoch = head().epoch, .maps = {}};
  const CheckpointRoot& root = checkpoints_->root();
  // Clones have a root of another volume, of which this version knows nothing.
  if (root.parent) co_return;
  needed.maps = map_objects_of(root, {.epoch = head().root.epoch, .id = head().root.id});
  // If that fails, the next opening tries again.
  if (co_await add_snapshots(needed)) co_await sweep_kind(needed, options_.name + "/m/");
  for (const char* const kind : {"/g/", "/d/"}) {
    co_await sweep_kind(needed, options_.name + kind);
  }
}

/// What their roots list, which are read for that. Returns whether that is all of it.
Task<bool> Volume::add_snapshots(Needed& needed) {
  if (!keeps(VolumeRule::kSweepsAroundSnapshots)) co_return true;
  const std::vector<SnapshotRef> all = snapshots();
  for (const SnapshotRef& snapshot : all) {
    const Result<std::set<MapObjectId>> maps = co_await needed_by(snapshot);
    if (!maps) {
      log::info("{}; what checkpoints have left behind is not looked for", maps.error().message());
      co_return false;
    }
    needed.maps.insert(maps->begin(), maps->end());
  }
  co_return true;
}

Task<void> Volume::sweep_kind(const Needed& needed, std::string prefix) {
  const objects::CallLimits limits{.stop = stop_.get_token()};
  std::string after;
  uint64_t found = 0;
  while (!deleting_is_over()) {
    co_await home_.sleep_for(limits::kSweepPause, stop_.get_token());
    const Result<objects::ListPage> page =
        co_await parts_.store.list(prefix, after, objects::kListPageMax, limits);
    if (!page) break;  // the next opening tries again
    for (const objects::ObjectInfo& object : page->objects) {
      if (deleting_is_over()) co_return;
      if (is_needed(needed, object.name) || !co_await is_ours(object.name)) continue;
      add_garbage(object.name);
      ++found;
    }
    // What was found is removed before more is looked for: there may be very many.
    while (garbage_.size() > objects::kListPageMax && !deleting_is_over()) {
      co_await home_.sleep_for(limits::kUpkeepMax, stop_.get_token());
    }
    if (!page->more || page->objects.empty()) break;
    after = page->objects.back().name;
  }
  if (found > 0) {
    log::info("{}: {} objects were left behind by earlier processes; they are removed", prefix,
              found);
  }
}

}  // namespace usbd::objstore
