// SPDX-License-Identifier: Apache-2.0
//
// `volume show`: the head, what the bucket lists, and, with the key, what the image knows.

#include <array>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "codec/codec.h"
#include "ctl/objstore/objstore_inspector.h"
#include "devices/objstore/data_object_layout.h"
#include "devices/objstore/names.h"

namespace usbd::ctl {
namespace {

using Json = nlohmann::ordered_json;

struct Kind {
  std::string_view key;
  /// Behind the volume's prefix; empty: everything else.
  std::string_view folder;
};
constexpr std::array<Kind, 5> kKinds = {
    {{"head", "head"}, {"data", "d/"}, {"garbage_collected", "g/"}, {"map", "m/"}, {"other", ""}}};

struct Count {
  uint64_t objects = 0;
  uint64_t bytes = 0;
};

std::string_view codec_name(codec::CodecKind kind) {
  constexpr std::array<std::string_view, 5> kNames = {"identity", "lz4", "zstd", "s2", "gzip"};
  const auto number = static_cast<size_t>(kind);
  return number < kNames.size() ? kNames[number] : "unknown";
}

}  // namespace

void ObjstoreInspector::add_head(Json& document) const {
  const objstore::Head& head = *head_;
  document["format_version"] = 1;
  document["id"] = journal::to_hex(head.volume);
  document["size_bytes"] = head.size;
  document["logical_block_bytes"] = head.logical_block_size;
  document["cipher"] = crypto::to_text(head.cipher);
  constexpr std::array<std::string_view, 5> kKeyStates = {"not needed", "usable", "missing",
                                                          "wrong", "forged"};
  Json key;
  key["state"] = kKeyStates[static_cast<size_t>(key_state_)];
  key["place"] = key_place_.empty() ? Json(nullptr) : Json(key_place_);
  key["problem"] = key_problem_.empty() ? Json(nullptr) : Json(key_problem_);
  document["key"] = std::move(key);
  Json of_head;
  of_head["proven"] = can_open();
  of_head["version"] = head.version;
  of_head["epoch"] = head.epoch;
  of_head["writer"] = journal::to_hex(head.writer);
  of_head["journal"] = journal::to_hex(head.journal);
  of_head["clean"] = head.clean;
  of_head["last_seq"] = head.last_seq;
  of_head["last_write"] = head.published_number;
  of_head["epochs_listed"] = head.epochs.size();
  document["head"] = std::move(of_head);
  document["checkpoint"] = nullptr;
  if (head.root.stored == 0) return;
  Json root;
  root["object"] = objstore::map_name(settings_.name, head.root.epoch, head.root.id);
  root["epoch"] = head.root.epoch;
  root["covers_seq"] = head.root.covers_seq;
  root["root_bytes"] = head.root.stored;
  for (const char* const needs_key : {"number", "last_write", "map_pages", "table_pages"}) {
    root[needs_key] = nullptr;
  }
  document["checkpoint"] = std::move(root);
}

/// The last object behind the checkpoint, if there is one; it may have been removed since.
std::optional<objstore::ObjectId> ObjstoreInspector::last_object() const {
  const objstore::Head& head = *head_;
  if (head.last_seq == 0 || head.last_seq == head.root.covers_seq) return std::nullopt;
  return objstore::ObjectId{.epoch = head.epoch_of(head.last_seq), .seq = head.last_seq};
}

/// What this object asked for; null if that cannot be read.
Task<Json> ObjstoreInspector::codec(objstore::ObjectId id) {
  const objects::Part part = objects::Part::range(0, sizeof(objstore::layout::Header));
  const Result<objects::Fetched> fetched =
      co_await store_->get(objstore::data_name(settings_.name, id), part, {});
  if (!fetched) co_return nullptr;
  const Result<objstore::ObjectHeader> header = objstore::parse_header(fetched->data);
  if (!header) co_return nullptr;
  co_return std::string(codec_name(header->codec));
}

Task<Result<void>> ObjstoreInspector::add_bucket(Json& document) {
  const std::string prefix = settings_.name + "/";
  std::array<Count, kKinds.size()> counts;
  std::string after;
  for (bool more = true; more;) {
    USBD_CO_TRY(const objects::ListPage page,
                co_await store_->list(prefix, after, objects::kListPageMax, {}));
    for (const objects::ObjectInfo& info : page.objects) {
      const std::string_view rest = std::string_view(info.name).substr(prefix.size());
      size_t kind = 0;
      while (!rest.starts_with(kKinds[kind].folder)) ++kind;
      ++counts[kind].objects;
      counts[kind].bytes += info.size;
    }
    more = page.more;
    if (more) after = page.objects.back().name;
  }
  Json bucket;
  for (size_t i = 0; i < kKinds.size(); ++i) {
    bucket[std::string(kKinds[i].key)] = {{"objects", counts[i].objects},
                                          {"bytes", counts[i].bytes}};
  }
  document["bucket"] = std::move(bucket);
  co_return Result<void>();
}

Task<Result<void>> ObjstoreInspector::add_image(Json& document) {
  std::vector<objstore::LostPart> lost;
  USBD_CO_TRY(const Image image, co_await load_image(lost));
  uint64_t in_use = 0;
  uint64_t pending = 0;
  uint64_t stored = 0;
  uint64_t live = 0;
  uint64_t mapped = 0;
  std::optional<objstore::ObjectId> newest;
  for (uint32_t slot = 1; slot < image->slots_end(); ++slot) {
    const objstore::ImageObject* const object = image->object(slot);
    if (object == nullptr) continue;
    const bool used = object->facts.state == objstore::ObjectState::kInUse;
    ++(used ? in_use : pending);
    if (!used) continue;
    if (!newest || *newest < object->facts.id) newest = object->facts.id;
    stored += object->facts.stored_bytes;
    live += object->live_bytes();
    mapped += object->live * objstore::kBlockBytes;
  }
  Json space;
  space["objects_in_use"] = in_use;
  space["objects_pending"] = pending;
  space["mapped_bytes"] = mapped;
  space["stored_bytes"] = stored;
  space["live_bytes"] = live;
  space["ratio"] =
      live == 0 ? Json(nullptr) : Json(static_cast<double>(stored) / static_cast<double>(live));
  space["unreadable_parts"] = lost.size();
  document["space"] = std::move(space);
  if (newest && !last_object()) document["codec"] = co_await codec(*newest);
  document["snapshots"] = Json::array();
  if (image->root()) {
    const objstore::CheckpointRoot& root = *image->root();
    Json& checkpoint = document["checkpoint"];
    checkpoint["number"] = root.number;
    checkpoint["last_write"] = root.last_write;
    checkpoint["map_pages"] = root.map_pages.size();
    checkpoint["table_pages"] = root.table_pages.size();
    for (const objstore::SnapshotRef& one : root.snapshots) {
      document["snapshots"].push_back(
          Json{{"number", one.number},
               {"name", one.name},
               {"time_ns", one.time},
               {"last_write", one.last_write},
               {"object",
                objstore::map_name(settings_.name, one.root.object.epoch, one.root.object.id)}});
    }
    if (root.parent) document["parent"] = journal::to_hex(root.parent->volume);
  }
  co_return Result<void>();
}

Task<Result<void>> ObjstoreInspector::show(Console& console) {
  if (head_damage_) {
    co_return Error(Errc::kIo, fmt::format("{} in {}: {}", objstore::head_name(settings_.name),
                                           store_->name(), head_damage_->context()));
  }
  Json document;
  document["volume"] = settings_.name;
  document["store"] = store_->name();
  document["type"] = settings_.type;
  add_head(document);
  document["codec"] = nullptr;
  if (const std::optional<objstore::ObjectId> last = last_object()) {
    document["codec"] = co_await codec(*last);
  }
  document["created"] = nullptr;  // the format does not keep it
  for (const char* const key : {"bucket", "space", "snapshots", "parent"}) document[key] = nullptr;
  Result<void> done = co_await add_bucket(document);
  if (done && can_open()) done = co_await add_image(document);
  const Result<LocalFiles> local = co_await local_files(false);
  document["local"] = local_json(local);
  document["needs_key"] = Json::array();
  if (!can_open()) {
    document["needs_key"] = {"proof of the head", "checkpoint", "space",
                             "snapshots",         "parent",     "unpublished changes"};
  }
  console.print_document(document);
  if (done && key_state_ != KeyState::kMissing && !can_open()) {
    co_return Error(Errc::kAccess, key_problem_);
  }
  if (done && !can_open()) {
    console.say(key_problem_ + ": what is unknown above needs the key");
  }
  co_return done;
}

}  // namespace usbd::ctl
