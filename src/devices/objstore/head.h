// SPDX-License-Identifier: Apache-2.0
//
// The head of a volume: the one object that changes, by compare-and-swap. It says who may write, up
// to which data object the volume's history is valid, and where to begin reading. It is small,
// because it is written with every publication; docs/formats/head.md is the format.

#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "crypto/sealer.h"
#include "devices/objstore/data_object.h"
#include "usbd/result.h"

namespace usbd::objstore {

using Nonce = std::array<std::byte, 16>;

/// From `first_seq` on, until the next one's, data objects are of this epoch.
struct EpochStart {
  uint64_t epoch = 0;
  uint64_t first_seq = 0;

  friend bool operator==(const EpochStart&, const EpochStart&) = default;
};

/// Where a checkpoint's root is; size 0: there is none.
struct RootPointer {
  uint64_t epoch = 0;
  uint64_t id = 0;
  uint64_t offset = 0;
  uint32_t stored = 0;
  uint32_t logical = 0;
  uint32_t piece = 0;
  /// The last data object whose changes it has.
  uint64_t covers_seq = 0;

  friend bool operator==(const RootPointer&, const RootPointer&) = default;
};

struct Head {
  VolumeId volume{};
  /// Units: bytes. A multiple of logical_block_size.
  uint64_t size = 0;
  uint32_t logical_block_size = 4096;
  crypto::CipherMode cipher = crypto::CipherMode::kIdentity;
  /// By which a wrong key is known.
  std::array<std::byte, 16> key_salt{};
  crypto::KeyCheck key_check{};

  /// Rises by one with every change of the head.
  uint64_t version = 0;
  uint64_t epoch = 0;
  /// Drawn anew by every process that takes an epoch.
  Nonce writer{};
  /// The journal that belongs to this epoch.
  Nonce journal{};
  /// Differs in every attempt to change the head, so that no two heads are the same bytes.
  Nonce nonce{};
  /// The writer stopped properly: nothing that was written is elsewhere.
  bool clean = false;
  /// Data objects up to this one are valid; those of later numbers are not part of the volume.
  uint64_t last_seq = 0;
  /// The last write that they hold.
  uint64_t published_number = 0;
  RootPointer root;
  /// Of the epochs whose objects come after the root, in order.
  std::vector<EpochStart> epochs;

  friend bool operator==(const Head&, const Head&) = default;

  /// The epoch of data object `seq`. Range: after root.covers_seq, up to last_seq.
  [[nodiscard]] uint64_t epoch_of(uint64_t seq) const;
};

inline constexpr size_t kHeadBytesMax = 4096;
/// With so many epochs in the list nothing is published before a checkpoint is.
inline constexpr size_t kEpochStartsMax = 64;

/// `key`: the volume's; empty if the cipher is kIdentity. Range: at most kEpochStartsMax epochs.
[[nodiscard]] std::vector<std::byte> encode(const Head& head, Bytes key);

/// What of a head can be read without the key, and a check that `key` is the right one.
/// Errors: kDamaged (no head, or damaged), kNotSupported (of a later version), kAccess (another
///         key, or changed by somebody who has not the key, or a key for a volume that has none).
///         The context is a sentence.
Result<Head> decode(Bytes bytes, Bytes key);

/// The same without the key: nothing is proven. For people.
Result<Head> decode_unproven(Bytes bytes);

}  // namespace usbd::objstore
