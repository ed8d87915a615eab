// SPDX-License-Identifier: Apache-2.0
//
// `volume list-objects`: a page of the listing at a time, each object beside what the image knows
// of it; at the end what the image knows and the listing had not. Memory: the image, and a page.

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "async/scope.h"
#include "base/limits.h"
#include "ctl/objstore/objstore_inspector.h"
#include "devices/objstore/data_object_layout.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshot_pins.h"
#include "devices/objstore/snapshots.h"

namespace usbd::ctl {
namespace {

using Json = nlohmann::ordered_json;
using objstore::ObjectId;
using objstore::ObjectKind;

struct Row {
  std::string name;
  /// head, data, gc, map or other.
  std::string_view kind = "other";
  uint64_t bytes = 0;
  std::optional<uint64_t> epoch = {};
  std::optional<uint64_t> seq = {};
  std::optional<objstore::ImageObject> known = {};
  std::optional<uint32_t> extents = {};
  std::string_view state = "unknown";
};

std::optional<uint64_t> parse_hex(std::string_view text) {
  uint64_t value = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  const bool good = text.size() == 16 && error == std::errc() && at == text.data() + text.size();
  return good ? std::optional(value) : std::nullopt;
}

/// Of a name behind the volume's prefix: `d/<epoch>/<seq>` and its kin.
Row parse_name(std::string name, std::string_view rest) {
  Row row;
  row.name = std::move(name);
  if (rest == "head") row.kind = "head";
  const size_t slash = rest.find('/', 2);
  if (rest.size() < 2 || rest[1] != '/' || slash == std::string_view::npos) return row;
  const std::optional<uint64_t> epoch = parse_hex(rest.substr(2, slash - 2));
  const std::optional<uint64_t> seq = parse_hex(rest.substr(slash + 1));
  if (!epoch || !seq) return row;
  switch (rest[0]) {
    case 'd':
      row.kind = "data";
      break;
    case 'g':
      row.kind = "gc";
      break;
    case 'm':
      row.kind = "map";
      break;
    default:
      return row;
  }
  row.epoch = epoch;
  row.seq = seq;
  return row;
}

ObjectId id_of(const Row& row) {
  return {.epoch = *row.epoch,
          .seq = *row.seq,
          .kind = row.kind == "gc" ? ObjectKind::kGc : ObjectKind::kData};
}

bool is_data(const Row& row) {
  return row.kind == "data" || row.kind == "gc";
}

Json to_json(const Row& row) {
  const auto number = [](const auto& value) { return value ? Json(*value) : Json(nullptr); };
  const bool writes = row.known && row.known->facts.last_write > 0;
  const bool facts = row.known && !row.known->lost;
  Json json;
  json["name"] = row.name;
  json["kind"] = row.kind;
  json["state"] = row.state;
  json["bytes"] = row.bytes;
  json["epoch"] = number(row.epoch);
  json["seq"] = number(row.seq);
  json["first_write"] = writes ? Json(row.known->facts.first_write) : Json(nullptr);
  json["last_write"] = writes ? Json(row.known->facts.last_write) : Json(nullptr);
  json["extents"] = number(row.extents);
  json["blocks"] = facts ? Json(row.known->facts.blocks) : Json(nullptr);
  json["live_blocks"] = facts ? Json(row.known->live) : Json(nullptr);
  json["stored_bytes"] = facts ? Json(row.known->facts.stored_bytes) : Json(nullptr);
  json["live_bytes"] = facts ? Json(row.known->live_bytes()) : Json(nullptr);
  return json;
}

std::string to_line(const Row& row) {
  const Json json = to_json(row);
  const auto cell = [&json](const char* key) {
    return json[key].is_null() ? std::string("-") : json[key].dump();
  };
  const std::string writes = cell("first_write") + ".." + cell("last_write");
  std::string name;
  for (const char c : row.name) name += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return fmt::format("{:<11} {:>12} {:>8} {:>17} {:>8} {:>12}  {}\n", row.state, row.bytes,
                     cell("seq"), writes == "-..-" ? "-" : writes, cell("extents"),
                     cell("live_bytes"), name);
}

}  // namespace

class ObjstoreInspector::Lister {
 public:
  Lister(ObjstoreInspector& inspector, Console& console) : own_(inspector), console_(console) {}

  Task<Result<void>> run() {
    if (own_.can_open()) {
      std::vector<objstore::LostPart> lost;
      USBD_CO_TRY(image_, co_await own_.load_image(lost));
      seen_.resize(image_->slots_end());
      if (!lost.empty()) {
        console_.say(
            fmt::format("{} parts of the volume cannot be read, the first is {} ({}): run "
                        "usbdctl volume check",
                        lost.size(), lost.front().object, lost.front().error.message()));
      }
    }
    if (image_) co_await look_at_snapshots();
    begin();
    Result<void> listed = co_await list_bucket();
    if (listed && image_) listed = co_await list_missing();
    end(listed);
    co_return listed;
  }

 private:
  void begin() {
    if (console_.json()) {
      const Json name = own_.settings_.name;
      const Json store = own_.store_->name();
      console_.print(fmt::format("{{\n\"volume\": {},\n\"store\": {},\n\"objects\": [", name.dump(),
                                 store.dump()));
    } else {
      console_.print(fmt::format("{:<11} {:>12} {:>8} {:>17} {:>8} {:>12}  {}\n", "STATE", "BYTES",
                                 "SEQ", "WRITES", "EXTENTS", "LIVE BYTES", "NAME"));
    }
  }

  void print(const Row& row) {
    auto& [objects, bytes] = totals_[row.state];
    ++objects;
    bytes += row.bytes;
    if (console_.json()) {
      constexpr auto kReplace = Json::error_handler_t::replace;
      console_.print(fmt::format("{}\n{}", rows_ == 0 ? "" : ",",
                                 to_json(row).dump(-1, ' ', false, kReplace)));
    } else {
      console_.print(to_line(row));
    }
    ++rows_;
  }

  void end(const Result<void>& listed) {
    Json totals = Json::object();
    std::string text;
    for (const auto& [state, total] : totals_) {
      totals[std::string(state)] = {{"objects", total.first}, {"bytes", total.second}};
      text += fmt::format("{}{} {} ({})", text.empty() ? "" : ", ", total.first, state,
                          rough_size(total.second));
    }
    if (console_.json()) {
      const Json error = listed ? Json(nullptr) : Json(listed.error().message());
      console_.print(fmt::format("\n],\n\"totals\": {},\n\"error\": {}\n}}\n", totals.dump(),
                                 error.dump(-1, ' ', false, Json::error_handler_t::replace)));
    } else {
      console_.print(text + "\n");
    }
  }

  Task<Result<void>> list_bucket() {
    const std::string prefix = own_.settings_.name + "/";
    std::string after;
    for (bool more = true; more;) {
      USBD_CO_TRY(const objects::ListPage page,
                  co_await own_.store_->list(prefix, after, objects::kListPageMax, {}));
      std::vector<Row> rows;
      for (const objects::ObjectInfo& info : page.objects) {
        Row& row = rows.emplace_back(
            parse_name(info.name, std::string_view(info.name).substr(prefix.size())));
        row.bytes = info.size;
        look_up(row);
      }
      co_await read_headers(rows);
      for (const Row& row : rows) print(row);
      more = page.more;
      if (more) after = page.objects.back().name;
    }
    co_return Result<void>();
  }

  void look_up(Row& row) {
    if (row.kind == "head") row.state = "in-use";
    if (row.kind == "other") row.state = "foreign";
    if (!image_ || row.kind == "head" || row.kind == "other") return;
    if (row.kind == "map") {
      const objstore::MapObjectId id{.epoch = *row.epoch, .id = *row.seq};
      const bool known = is_map_object(id);
      if (known) seen_map_.insert(id);
      const bool kept = snapshot_maps_.contains(id);
      const bool now = of_somebody_now(*row.epoch);
      row.state = known ? "in-use" : kept ? "snapshot" : now ? "unpublished" : "orphan";
      return;
    }
    const ObjectId id = id_of(row);
    if (const uint32_t slot = image_->find(id); slot > 0) {
      seen_[slot] = true;
      row.known = *image_->object(slot);
      row.extents = row.known->extents;
      const objstore::ObjectFacts& facts = row.known->facts;
      const bool pending = facts.state == objstore::ObjectState::kPending;
      const bool pinned = pins_.needs(id, facts.pending_since);
      row.state = !pending ? "in-use" : pinned ? "snapshot" : "pending";
      return;
    }
    const bool later = row.kind == "gc" || id.seq > image_->head().last_seq;
    row.state = later && of_somebody_now(id.epoch) ? "unpublished" : "orphan";
  }

  /// Whether it may be what a daemon is doing at the moment, or was when it ended.
  [[nodiscard]] bool of_somebody_now(uint64_t epoch) const {
    return epoch == image_->head().epoch && !image_->head().clean;
  }

  /// What cannot be read of them is not known to be theirs.
  Task<void> look_at_snapshots() {
    if (!image_->root()) co_return;
    const std::vector<objstore::SnapshotRef>& all = image_->root()->snapshots;
    pins_ = objstore::SnapshotPins(all);
    const objstore::CheckpointPlace where(*own_.store_, own_.settings_.name, image_->seal());
    objstore::CheckpointReader reader(where, {});
    for (const objstore::SnapshotRef& one : all) {
      const Result<objstore::CheckpointRoot> root = co_await reader.read_root(one.root);
      if (root) snapshot_maps_.merge(objstore::map_objects_of(*root, one.root.object));
      if (root) continue;
      console_.say(
          fmt::format("snapshot {} cannot be read: {}", one.number, root.error().message()));
    }
  }

  [[nodiscard]] bool is_map_object(const objstore::MapObjectId& id) const {
    const objstore::RootPointer& pointer = image_->head().root;
    if (pointer.stored > 0 && pointer.epoch == id.epoch && pointer.id == id.id) return true;
    if (!image_->root()) return false;
    return std::ranges::binary_search(image_->root()->objects, id, {}, &objstore::MapObject::id);
  }

  /// Extents of objects whose directory was not read stand in their plain headers.
  Task<void> read_headers(std::vector<Row>& rows) {
    for (size_t next = 0; next < rows.size();) {
      Scope some;
      while (next < rows.size() && some.running() < limits::kListHeadersMax) {
        Row& row = rows[next++];
        if (is_data(row) && !row.extents) some.spawn(read_header(row));
      }
      co_await some.close();
    }
  }

  Task<void> read_header(Row& row) {
    const objects::Part part = objects::Part::range(0, sizeof(objstore::layout::Header));
    const Result<objects::Fetched> fetched = co_await own_.store_->get(row.name, part, {});
    if (!fetched) co_return;
    const Result<objstore::ObjectHeader> header = objstore::parse_header(fetched->data);
    if (header) row.extents = header->extents;
  }

  /// What the image knows, and the listing did not show: it may be late, or the object was removed
  /// since the image was read.
  Task<Result<void>> list_missing() {
    std::vector<Row> rows;
    for (uint32_t slot = 1; slot < image_->slots_end(); ++slot) {
      const objstore::ImageObject* const object = image_->object(slot);
      if (object == nullptr || seen_[slot]) continue;
      if (object->facts.state != objstore::ObjectState::kInUse) continue;
      const ObjectId id = object->facts.id;
      Row row;
      row.name = objstore::data_name(own_.settings_.name, id);
      row.kind = id.kind == ObjectKind::kGc ? "gc" : "data";
      row.epoch = id.epoch;
      row.seq = id.seq;
      row.known = *object;
      rows.push_back(std::move(row));
    }
    if (image_->root()) {
      for (const objstore::MapObject& one : image_->root()->objects) {
        if (seen_map_.contains(one.id)) continue;
        Row row;
        row.name = objstore::map_name(own_.settings_.name, one.id.epoch, one.id.id);
        row.kind = "map";
        row.epoch = one.id.epoch;
        row.seq = one.id.id;
        rows.push_back(std::move(row));
      }
    }
    if (rows.empty()) co_return Result<void>();
    USBD_CO_TRY(const objstore::Head head, co_await objstore::read_head(own_.place()));
    const bool changed = head.root != image_->head().root || head.epoch != image_->head().epoch;
    for (Row& row : rows) {
      const Result<objects::ObjectInfo> info = co_await own_.store_->head(row.name, {});
      if (!info && !info.error().is(Errc::kNotFound)) co_return info.error();
      row.state = info ? "in-use" : changed ? "removed" : "missing";
      if (info) row.bytes = info->size;
      print(row);
    }
    co_return Result<void>();
  }

  ObjstoreInspector& own_;
  Console& console_;
  /// Null: there is no key.
  Image image_;
  /// By slot: it was listed.
  std::vector<bool> seen_;
  std::set<objstore::MapObjectId> seen_map_;
  objstore::SnapshotPins pins_;
  std::set<objstore::MapObjectId> snapshot_maps_;
  uint64_t rows_ = 0;
  /// By state: objects and their bytes.
  std::map<std::string_view, std::pair<uint64_t, uint64_t>> totals_;
};

Task<Result<void>> ObjstoreInspector::list_objects(Console& console) {
  if (head_damage_) {
    console.say(fmt::format("{}: {}: nothing is known of the objects",
                            objstore::head_name(settings_.name), head_damage_->context()));
  } else if (!can_open()) {
    console.say(key_problem_ + ": without the key it is not known which objects are in use");
  }
  Lister lister(*this, console);
  const bool wrong_key = key_state_ == KeyState::kWrong || key_state_ == KeyState::kForged;
  const Result<void> listed = co_await lister.run();
  if (listed && head_damage_) co_return *head_damage_;
  if (listed && wrong_key) co_return Error(Errc::kAccess, key_problem_);
  co_return listed;
}

}  // namespace usbd::ctl
