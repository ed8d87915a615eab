// SPDX-License-Identifier: Apache-2.0
//
// Opening a volume of -dev-type=objstore: the store is opened, the head is looked at, and only then
// is decided about the key (made only for a volume that is not there yet), the probe and the local
// directory. docs/guides/objstore.md is the user's side.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "async/runtime.h"
#include "crypto/key_source.h"
#include "daemon/settings.h"
#include "daemon/volume.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::daemon {

/// Opens, or makes, the volume.
/// Threads: a loop's, on which the volume's background work then goes on.
/// Errors:  what the store, the key or the device said; the context names the flag to change.
Task<Result<OpenedVolume>> open_objstore(VolumeSettings settings, Runtime& runtime);

/// A part of an object's name, with what follows it, must be one that all stores take.
/// Errors: kInvalid, naming the flag.
Result<void> check_objstore_name(const std::string& name);

/// The key of a volume that exists, from where the flags say.
/// Errors: as crypto::load_key(), naming the flag.
Result<crypto::LoadedKey> load_objstore_key(const VolumeSettings& settings);

/// Where the volume's local files are: its journal, journals put aside, its cache.
std::filesystem::path objstore_directory(const VolumeSettings& settings);

/// Bytes of the journal of a volume: what was asked for, or a quarter of `size` within bounds.
uint64_t journal_bytes(uint64_t asked, uint64_t size);

}  // namespace usbd::daemon
