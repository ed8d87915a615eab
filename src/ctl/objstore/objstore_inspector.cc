// SPDX-License-Identifier: Apache-2.0
//
// Finding the volume: its head, the key, and what both together allow to be read.

#include "ctl/objstore/objstore_inspector.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "crypto/sealer.h"
#include "daemon/objstore_store.h"
#include "daemon/objstore_volume.h"
#include "devices/objstore/names.h"

namespace usbd::ctl {
namespace {

using Json = nlohmann::ordered_json;
using objstore::Head;

objects::CallLimits open_limits() {
  return {.timeout = limits::kStoreOpenTime};
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

Task<Result<std::unique_ptr<VolumeInspector>>> ObjstoreInspector::open(
    daemon::VolumeSettings settings, Runtime& runtime) {
  USBD_CO_TRY_VOID(daemon::check_objstore_name(settings.name));
  std::unique_ptr<ObjstoreInspector> inspector(new ObjstoreInspector(std::move(settings), runtime));
  const Result<void> started = co_await inspector->start();
  if (started) co_return std::unique_ptr<VolumeInspector>(std::move(inspector));
  co_await inspector->close();
  co_return started.error();
}

Task<void> ObjstoreInspector::close() {
  if (store_) co_await store_->close();
}

Task<Result<void>> ObjstoreInspector::start() {
  const objects::RetryOptions retries{.attempts_max = limits::kCtlStoreAttempts};
  USBD_CO_TRY(store_,
              co_await daemon::open_store(settings_, runtime_.blocking_pool(), rng_, retries));
  co_return co_await find_head();
}

Task<Result<bool>> ObjstoreInspector::has_objects() {
  USBD_CO_TRY(
      const objects::ListPage page,
      co_await store_->list(settings_.name + "/", "", limits::kForeignNamesShown, open_limits()));
  const auto is_ours = [this](const objects::ObjectInfo& info) {
    return info.name.starts_with(settings_.name + "/d/") ||
           info.name.starts_with(settings_.name + "/g/") ||
           info.name.starts_with(settings_.name + "/m/");
  };
  co_return std::ranges::any_of(page.objects, is_ours);
}

/// `error` with what is there in place of a volume.
Task<Error> ObjstoreInspector::no_head(Error error) {
  const Result<objects::ListPage> page =
      co_await store_->list("", "", limits::kForeignNamesShown, open_limits());
  std::string names;
  for (size_t i = 0; page && i < page->objects.size(); ++i) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", page->objects[i].name);
  }
  const std::string there =
      names.empty() ? "nothing is there" : fmt::format("what is there begins with {}", names);
  co_return Error(error.code(),
                  fmt::format("{} (-store-name, -objstore-container; {})", error.context(), there));
}

Task<Result<void>> ObjstoreInspector::find_head() {
  const std::string name = objstore::head_name(settings_.name);
  const objects::Part part = objects::Part::whole(objstore::kHeadBytesMax);
  const Result<objects::Fetched> fetched = co_await store_->get(name, part, open_limits());
  Result<Head> head = fetched ? objstore::decode_unproven(fetched->data) : fetched.error();
  if (head) {
    head_ = *std::move(head);
    find_key(fetched->data);
    co_return Result<void>();
  }
  const Error error = head.error();
  const bool absent = error.is(Errc::kNotFound);
  const bool damaged = error.is(Errc::kDamaged) || error.is(Errc::kIo) || error.is(Errc::kOverflow);
  if (!absent && !damaged) co_return error;
  // What can be listed is there; with objects of ours it is a volume.
  USBD_CO_TRY(const bool volume, co_await has_objects());
  if (volume) {
    head_damage_ =
        Error(Errc::kDamaged,
              absent ? "is missing, and other objects of the volume are there" : error.message());
    co_return Result<void>();
  }
  const std::string why =
      absent ? fmt::format("there is no volume {} in {}", settings_.name, store_->name())
             : fmt::format("{} in {}: {}", name, store_->name(), error.context());
  co_return co_await no_head(Error(error.code(), why));
}

void ObjstoreInspector::find_key(Bytes head_bytes) {
  if (head_->cipher == crypto::CipherMode::kIdentity) {
    key_state_ = KeyState::kNotNeeded;
    return;
  }
  Result<crypto::LoadedKey> loaded = daemon::load_objstore_key(settings_);
  if (!loaded) {
    key_problem_ = loaded.error().context();
    return;
  }
  const Result<Head> proven = objstore::decode(head_bytes, loaded->key.bytes());
  const bool same = crypto::key_check(loaded->key.bytes(), head_->key_salt) == head_->key_check;
  key_state_ = proven ? KeyState::kUsable : same ? KeyState::kForged : KeyState::kWrong;
  if (!proven) {
    key_problem_ = fmt::format("{}: {}", loaded->place, proven.error().context());
    return;
  }
  key_place_ = loaded->place;
  key_ = std::move(loaded->key);
}

objstore::ImagePlace ObjstoreInspector::place() const {
  return {*store_, settings_.name, key_.bytes()};
}

Task<Result<ObjstoreInspector::Image>> ObjstoreInspector::load_image(
    std::vector<objstore::LostPart>& lost) {
  const objstore::VolumeImage::OnLost on_lost = [&lost](const objstore::LostPart& part) {
    lost.push_back(part);
  };
  for (unsigned round = 0;; ++round) {
    lost.clear();
    USBD_CO_TRY(Image image, co_await objstore::VolumeImage::load(place(), *head_, on_lost));
    const auto gone = [](const objstore::LostPart& p) { return p.error.is(Errc::kNotFound); };
    if (std::ranges::none_of(lost, gone) || round == limits::kCheckRounds) co_return image;
    USBD_CO_TRY(Head head, co_await objstore::read_head(place()));
    if (head.root == head_->root && head.epoch == head_->epoch) co_return image;
    head_ = std::move(head);
  }
}

// --- what is on this host
// -------------------------------------------------------------------------

Task<Result<LocalFiles>> ObjstoreInspector::local_files(bool thorough) {
  LocalLook look{.directory = daemon::objstore_directory(settings_),
                 .head = *head_,
                 .key = key_.bytes(),
                 .can_unseal = can_open(),
                 .thorough = thorough};
  co_return co_await look_at_local_files(std::move(look), runtime_.blocking_pool(), rng_);
}

Json ObjstoreInspector::journal_json(const LocalJournal& one) const {
  Json json;
  json["file"] = one.file;
  json["state"] = one.state;
  json["held_by"] = one.held_by.empty() ? Json(nullptr) : Json(one.held_by);
  json["file_bytes"] = one.file_bytes;
  json["written_seconds_ago"] = or_null(one.written_seconds_ago);
  const auto& block = one.superblock;
  json["id"] = block ? Json(journal::to_hex(block->journal)) : Json(nullptr);
  json["belongs_to_head"] = block ? Json(one.belongs_to_head) : Json(nullptr);
  json["epoch"] = block ? Json(block->epoch) : Json(nullptr);
  json["session"] = block ? Json(block->session) : Json(nullptr);
  json["ring_bytes"] = block ? Json(block->ring_bytes) : Json(nullptr);
  json["used_bytes"] = or_null(one.used_bytes);
  json["unpublished_changes"] = or_null(one.unpublished_changes);
  json["unpublished_bytes"] = or_null(one.unpublished_bytes);
  json["damage"] = one.damage.empty() ? Json(nullptr) : Json(one.damage);
  return json;
}

Json ObjstoreInspector::local_json(const Result<LocalFiles>& found) const {
  Json local;
  local["directory"] = daemon::objstore_directory(settings_).string();
  local["error"] = found ? Json(nullptr) : Json(found.error().message());
  local["journals"] = Json::array();
  local["other_files"] = Json::array();
  if (!found) return local;
  for (const LocalJournal& one : found->journals) local["journals"].push_back(journal_json(one));
  for (const LocalFile& one : found->others) {
    local["other_files"].push_back(Json{{"file", one.file}, {"bytes", one.bytes}});
  }
  return local;
}

}  // namespace usbd::ctl
