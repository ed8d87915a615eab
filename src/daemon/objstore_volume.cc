// SPDX-License-Identifier: Apache-2.0
//
// The steps of opening, each a function that may end it.

#include "daemon/objstore_volume.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/kernel_folder.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "crypto/key_source.h"
#include "daemon/objstore_store.h"
#include "devices/objstore/head.h"
#include "devices/objstore/names.h"
#include "devices/objstore/objstore_device.h"

namespace usbd::daemon {
namespace {

using objstore::Head;
using objstore::ObjstoreDevice;

/// What the head says before it is known to be true; empty: there is no volume.
Task<Result<std::optional<Head>>> look_at_head(objects::ObjectStore& store,
                                               const std::string& name) {
  const objects::Part part = objects::Part::whole(objstore::kHeadBytesMax);
  const objects::CallLimits limits{.timeout = limits::kStoreOpenTime};
  const std::string object = objstore::head_name(name);
  const Result<objects::Fetched> fetched = co_await store.get(object, part, limits);
  if (!fetched && fetched.error().is(Errc::kNotFound)) co_return std::optional<Head>();
  if (!fetched) co_return fetched.error();
  Result<Head> head = objstore::decode_unproven(fetched->data);
  if (head) co_return std::optional<Head>(*std::move(head));
  co_return Error(head.error().code(),
                  fmt::format("{} in {}: {}", object, store.name(), head.error().context()));
}

Result<void> check_policy(const VolumeSettings& settings, const std::string& store, bool exists) {
  if (exists && settings.create == VolumeSettings::Create::kOnly) {
    return Error(Errc::kExists, fmt::format("-create=only: there is a volume {} in {} already",
                                            settings.name, store));
  }
  if (exists) return {};
  if (settings.create == VolumeSettings::Create::kNever) {
    return Error(Errc::kNotFound,
                 fmt::format("-create=never: there is no volume {} in {}", settings.name, store));
  }
  if (settings.read_only) {
    return Error(Errc::kNotFound,
                 fmt::format("-read-only: there is no volume {} in {}, and none is made",
                             settings.name, store));
  }
  return {};
}

/// What was asked for by name must be what the volume has.
Result<void> check_asked(const VolumeSettings& settings, const Head& head) {
  const std::string_view cipher = crypto::to_text(head.cipher);
  if (settings.objstore.cipher_given && settings.objstore.cipher != cipher) {
    return Error(Errc::kInvalid,
                 fmt::format("-objstore-aesmode={}: the volume {} was made with {}, which cannot "
                             "be changed; leave the flag out",
                             settings.objstore.cipher, settings.name, cipher));
  }
  if (settings.block_size_given && settings.block_size != head.logical_block_size) {
    log::warning(
        "-block-size={}: the volume {} was made with blocks of {} bytes, and keeps them, since "
        "what is on it cannot be read with others",
        settings.block_size, settings.name, head.logical_block_size);
  }
  if (head.cipher != crypto::CipherMode::kIdentity) return {};
  if (!settings.objstore.key_source.empty()) {
    return Error(Errc::kInvalid,
                 fmt::format("-objstore-aeskey: the volume {} is not encrypted, so no key is of "
                             "use; leave the flag out if that is right",
                             settings.name));
  }
  // Whoever may write to the bucket could have put a volume of his own in the place of ours.
  if (!settings.objstore.cipher_given) {
    return Error(Errc::kAccess,
                 fmt::format("the volume {} in the bucket is not encrypted, so nobody knows who "
                             "wrote it; if that is right, say so: -objstore-aesmode=identity",
                             settings.name));
  }
  return {};
}

Error key_error(const Error& error) {
  return Error(error.code(), "-objstore-aeskey: " + error.context());
}

/// The key of a volume that is there, or of a new one.
Result<crypto::LoadedKey> key_of(const VolumeSettings& settings, bool exists, Rng& rng) {
  if (exists || !settings.objstore.key_source.empty()) return load_objstore_key(settings);
  Result<crypto::LoadedKey> loaded = crypto::load_or_make_key_file(settings.directory, rng);
  if (!loaded) return key_error(loaded.error());
  if (loaded->made) {
    log::warning(
        "a new encryption key was made: {}. Keep a copy of it somewhere else: without it nobody "
        "can read the volume, whatever the bucket holds",
        loaded->place);
  }
  return loaded;
}

/// Makes the directory of the volume's local files, and has its name on the disk.
Result<void> make_directory(const std::filesystem::path& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error::from_errno(errno, "cannot make the directory " + path.string());
  }
  const UniqueFd parent(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent || ::fsync(parent.get()) != 0) {
    return Error::from_errno(errno, "cannot sync the directory of " + path.string());
  }
  return {};
}

Result<objstore::VolumeOptions> volume_options(const VolumeSettings& settings,
                                               const std::optional<Head>& head) {
  const ObjstoreSettings& asked = settings.objstore;
  objstore::VolumeOptions options;
  options.name = settings.name;
  options.create = policy_of(settings.create);
  options.logical_block_size = head ? head->logical_block_size : settings.block_size;
  USBD_TRY(options.size, round_up(settings.size, options.logical_block_size));
  options.size_is_explicit = settings.size_given;
  USBD_TRY(options.cipher, crypto::parse_cipher(asked.cipher));
  USBD_TRY(options.codec, codec::parse_codec(asked.codec));
  options.flush_mode =
      asked.flushes_remotely ? objstore::FlushMode::kRemote : objstore::FlushMode::kLocal;
  options.object_bytes = asked.object_bytes;
  options.flush_every = asked.flush_every;
  options.dirty_age_max = asked.dirty_age_max;
  options.journal_bytes = journal_bytes(asked.journal_bytes, head ? head->size : options.size);
  options.uploads_max = asked.uploads_max > 0 ? asked.uploads_max : limits::kUploadsDefault;
  options.memory_bytes = std::min(limits::kUnstoredBytesMax,
                                  (options.uploads_max + uint64_t{1}) * options.object_bytes);
  options.timeout = asked.timeout;
  options.takeover = asked.takeover;
  options.read_only = settings.read_only;
  options.cache_bytes = asked.cache_bytes > 0 ? asked.cache_bytes
                        : head                ? head->size
                                              : options.size;
  options.keeps_cache = asked.keeps_cache;
  options.map_bytes = asked.map_bytes;
  options.space.clean.target = asked.gc_target;
  return options;
}

VolumeUpkeep upkeep_of(ObjstoreDevice& device) {
  VolumeUpkeep upkeep;
  upkeep.on_taken_over = [&device](std::function<void()> function) {
    device.on_taken_over(std::move(function));
  };
  upkeep.hurry = [&device] { device.hurry(); };
  upkeep.waits_for = [&device] {
    return fmt::format("{} are not in the store yet; they stay in the journal",
                       format_size(device.unpublished_bytes()));
  };
  upkeep.ending = [&device] {
    switch (device.ending()) {
      case ObjstoreDevice::Ending::kUnpublished:
        return Ending::kUnpublished;
      case ObjstoreDevice::Ending::kTakenOver:
        return Ending::kTakenOver;
      case ObjstoreDevice::Ending::kPublished:
        break;
    }
    return Ending::kComplete;
  };
  return upkeep;
}

std::string describe_volume(const VolumeSettings& settings, const std::string& store,
                            const std::string& cipher, const std::string& key_place) {
  const Result<StoreConfig> config = store_config_of(settings.objstore);
  std::string text =
      fmt::format("{} ({}), sealed with {}, compressed with {}", store,
                  config ? redacted(*config) : std::string(), cipher, settings.objstore.codec);
  if (!key_place.empty()) text += ", key from " + key_place;
  if (settings.read_only) return text;
  return text + fmt::format(", journal and cache in \"{}\", flushed {}",
                            objstore_directory(settings).string(),
                            settings.objstore.flushes_remotely ? "to the store" : "locally");
}

std::string volume_id_text(const objstore::VolumeId& id) {
  std::string text = "objstore:";
  for (const std::byte byte : id) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

/// Everything between an open store and an open device.
Task<Result<OpenedVolume>> open_on(ObjstoreDevice::Parts& parts, const VolumeSettings& settings,
                                   Runtime& runtime) {
  const std::string store = parts.store->name();
  USBD_CO_TRY(const std::optional<Head> head, co_await look_at_head(*parts.store, settings.name));
  USBD_CO_TRY_VOID(check_policy(settings, store, head.has_value()));
  if (head) USBD_CO_TRY_VOID(check_asked(settings, *head));
  USBD_CO_TRY(objstore::VolumeOptions options, volume_options(settings, head));
  if (head) options.cipher = head->cipher;
  const std::string cipher(crypto::to_text(options.cipher));
  std::string key_place;
  if (options.cipher != crypto::CipherMode::kIdentity) {
    USBD_CO_TRY(crypto::LoadedKey loaded, key_of(settings, head.has_value(), *parts.rng));
    parts.key = std::move(loaded.key);
    key_place = std::move(loaded.place);
  } else {
    log::warning("the volume {} is not encrypted", settings.name);
  }
  if (!settings.read_only) {
    USBD_CO_TRY(options.fencing, co_await check_store(*parts.store, settings.name + "/", *parts.rng,
                                                      settings.objstore.fencing));
    const std::filesystem::path directory = objstore_directory(settings);
    USBD_CO_TRY_VOID(make_directory(directory));
    USBD_CO_TRY(parts.folder, KernelFolder::open_directory(directory, runtime.blocking_pool()));
  } else {
    // Only for a map that is larger than its memory, in a file without a name.
    USBD_CO_TRY(parts.folder,
                KernelFolder::open_directory(settings.directory, runtime.blocking_pool()));
  }
  USBD_CO_TRY(std::unique_ptr<ObjstoreDevice> device,
              co_await ObjstoreDevice::open(std::move(parts), std::move(options)));
  OpenedVolume volume;
  volume.description = describe_volume(settings, store, cipher, key_place);
  volume.id = volume_id_text(device->volume_id());
  volume.upkeep = upkeep_of(*device);
  volume.device = std::move(device);
  co_return volume;
}

}  // namespace

Result<void> check_objstore_name(const std::string& name) {
  const bool one_part = name.find('/') == std::string::npos;
  if (one_part && objects::is_object_name(objstore::head_name(name))) return {};
  return Error(Errc::kInvalid,
               fmt::format("-store-name: \"{}\" cannot name a volume in an object store: allowed "
                           "are A-Z a-z 0-9 . _ - with no . at its ends",
                           name));
}

Result<crypto::LoadedKey> load_objstore_key(const VolumeSettings& settings) {
  const std::string& source = settings.objstore.key_source;
  Result<crypto::LoadedKey> loaded =
      source.empty() ? crypto::load_key_file(settings.directory) : crypto::load_key(source);
  if (!loaded) return key_error(loaded.error());
  return loaded;
}

std::filesystem::path objstore_directory(const VolumeSettings& settings) {
  return std::filesystem::path(settings.directory) / (settings.name + ".objstore");
}

uint64_t journal_bytes(uint64_t asked, uint64_t size) {
  if (asked > 0) return asked;
  return std::clamp(size / 4, limits::kJournalDefaultMin, limits::kJournalDefaultMax);
}

Task<Result<OpenedVolume>> open_objstore(VolumeSettings settings, Runtime& runtime) {
  USBD_CO_TRY_VOID(check_objstore_name(settings.name));
  ObjstoreDevice::Parts parts;
  parts.rng = std::make_unique<SystemRng>();
  parts.workers = &runtime.blocking_pool();
  USBD_CO_TRY(parts.store, co_await open_store(settings, runtime.blocking_pool(), *parts.rng));
  Result<OpenedVolume> volume = co_await open_on(parts, settings, runtime);
  // The device, if it came so far, has taken the store and closed it.
  if (!volume && parts.store) co_await parts.store->close();
  co_return volume;
}

}  // namespace usbd::daemon
