// SPDX-License-Identifier: Apache-2.0
//
// ObjstoreInspector: volumes of -dev-type=objstore seen from outside: the bucket, and what lies in
// -store-dir. docs/usbdctl.md documents what it prints, docs/formats what it reads.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "base/random.h"
#include "crypto/secret.h"
#include "ctl/inspector.h"
#include "ctl/objstore/local_files.h"
#include "devices/objstore/head.h"
#include "devices/objstore/volume_check.h"
#include "devices/objstore/volume_image.h"
#include "objects/object_store.h"

namespace usbd::ctl {

class ObjstoreInspector final : public VolumeInspector {
 public:
  /// See open_inspector(). Errors: kNotFound: there is no volume, and what is there instead.
  static Task<Result<std::unique_ptr<VolumeInspector>>> open(daemon::VolumeSettings settings,
                                                             Runtime& runtime);

  Task<Result<void>> show(Console& console) override;
  Task<Result<void>> list_objects(Console& console) override;
  Task<Result<Verdict>> check(Console& console) override;
  Task<void> close() override;

 private:
  enum class KeyState : uint8_t {
    kNotNeeded,  ///< The volume is not encrypted.
    kUsable,
    kMissing,
    kWrong,   ///< Another volume's.
    kForged,  ///< The right one, but the head was changed by somebody without it.
  };
  using Image = std::unique_ptr<objstore::VolumeImage>;

  ObjstoreInspector(daemon::VolumeSettings settings, Runtime& runtime)
      : settings_(std::move(settings)), runtime_(runtime) {}

  // objstore_inspector.cc
  Task<Result<void>> start();
  Task<Result<void>> find_head();
  Task<Error> no_head(Error error);
  Task<Result<bool>> has_objects();
  void find_key(Bytes head_bytes);
  [[nodiscard]] bool can_open() const {
    return key_state_ == KeyState::kNotNeeded || key_state_ == KeyState::kUsable;
  }
  [[nodiscard]] objstore::ImagePlace place() const;
  /// The image of the newest head, which is head_ then.
  Task<Result<Image>> load_image(std::vector<objstore::LostPart>& lost);
  Task<Result<LocalFiles>> local_files(bool thorough);
  [[nodiscard]] nlohmann::ordered_json journal_json(const LocalJournal& journal) const;
  [[nodiscard]] nlohmann::ordered_json local_json(const Result<LocalFiles>& found) const;

  // show.cc
  void add_head(nlohmann::ordered_json& document) const;
  [[nodiscard]] std::optional<objstore::ObjectId> last_object() const;
  Task<nlohmann::ordered_json> codec(objstore::ObjectId id);
  Task<Result<void>> add_bucket(nlohmann::ordered_json& document);
  Task<Result<void>> add_image(nlohmann::ordered_json& document);

  // list_objects.cc
  class Lister;

  // check.cc
  class FindingPrinter;
  Task<Result<void>> check_local(FindingPrinter& printer);
  Task<Result<void>> check_snapshots(FindingPrinter& printer, objstore::CheckOptions options);

  daemon::VolumeSettings settings_;
  Runtime& runtime_;
  SystemRng rng_;
  std::unique_ptr<objects::ObjectStore> store_;
  /// Not proven unless can_open(). None: it is damaged.
  std::optional<objstore::Head> head_;
  std::optional<Error> head_damage_;
  KeyState key_state_ = KeyState::kMissing;
  /// Why there is no usable key; empty: there is.
  std::string key_problem_;
  std::string key_place_;
  crypto::Secret key_;
};

}  // namespace usbd::ctl
