// SPDX-License-Identifier: Apache-2.0
//
// A head is a fixed part, the epochs, a proof by the volume's key, and a checksum.

#include "devices/objstore/head.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/all_zero.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "crypto/hkdf.h"
#include "crypto/hmac.h"
#include "crypto/secret.h"

namespace usbd::objstore {
namespace {

constexpr std::array<char, 8> kMagic = {'u', 's', 'b', 'd', 'h', 'e', 'a', 'd'};
constexpr uint16_t kVersion = 1;
constexpr uint32_t kBlockSizeMin = 512;
constexpr uint32_t kBlockSizeMax = 4096;
constexpr uint64_t kSizeMax = kBlockEnd * kBlockBytes - kBlockBytes;
constexpr std::string_view kProofLabel = "usbd-head-v1";
using Proof = std::array<std::byte, 32>;

struct DiskRoot {
  Le64 epoch;
  Le64 id;
  Le64 offset;
  Le32 stored;
  Le32 logical;
  Le32 piece;
  Le32 reserved;
  Le64 covers_seq;
};

struct DiskHead {
  std::array<char, 8> magic{};
  Le16 version;
  uint8_t cipher = 0;
  uint8_t clean = 0;
  Le32 epochs;
  VolumeId volume{};
  Le64 size;
  Le32 logical_block_size;
  Le32 reserved;
  std::array<std::byte, 16> key_salt{};
  crypto::KeyCheck key_check{};
  Le64 head_version;
  Le64 epoch;
  Nonce writer{};
  Nonce journal{};
  Nonce nonce{};
  Le64 last_seq;
  Le64 published_number;
  DiskRoot root{};
  /// Snapshots and the parent of a clone: none in this version.
  std::array<std::byte, 96> later{};
};
static_assert(sizeof(DiskHead) == 304);

struct DiskEpoch {
  Le64 epoch;
  Le64 first_seq;
};

struct DiskEnd {
  Proof proof{};
  Le32 crc;
};
static_assert(sizeof(DiskHead) + kEpochStartsMax * sizeof(DiskEpoch) + sizeof(DiskEnd) <=
              kHeadBytesMax);

Proof proof_of(Bytes bytes, const DiskHead& disk, Bytes key) {
  if (key.empty()) return {};
  crypto::Wiped<32> proof_key;
  crypto::Hkdf(key, disk.key_salt)
      .expand(std::as_bytes(std::span(kProofLabel)), proof_key.writable());
  return crypto::HmacSha256(proof_key.bytes()).of(bytes);
}

Error damaged(const std::string& how) {
  return Error(Errc::kDamaged, "the head is damaged: " + how);
}

Result<void> check(const Head& head) {
  const uint32_t block = head.logical_block_size;
  if (block != kBlockSizeMin && block != kBlockSizeMax) return damaged("its block size");
  if (head.size == 0 || head.size > kSizeMax || head.size % block != 0) return damaged("its size");
  if (head.epoch == 0 || head.root.covers_seq > head.last_seq) return damaged("its numbers");
  uint64_t epoch = 0;
  uint64_t seq = 0;
  for (const EpochStart& start : head.epochs) {
    if (start.epoch <= epoch || start.epoch > head.epoch || start.first_seq < seq) {
      return damaged("its epochs are not in order");
    }
    epoch = start.epoch;
    seq = start.first_seq;
  }
  const bool covered = head.root.covers_seq == head.last_seq;
  const bool begins =
      !head.epochs.empty() && head.epochs.front().first_seq <= head.root.covers_seq + 1;
  if (!covered && !begins) return damaged("it does not say of which epoch its objects are");
  return {};
}

Result<DiskHead> read_fixed(Bytes bytes) {
  if (bytes.size() < sizeof(DiskHead) + sizeof(DiskEnd) || bytes.size() > kHeadBytesMax) {
    return damaged(fmt::format("it has {} bytes", bytes.size()));
  }
  const auto disk = wire_read<DiskHead>(bytes);
  if (disk.magic != kMagic) return Error(Errc::kDamaged, "this is no head of a volume of usbd");
  if (disk.version != kVersion) {
    return Error(Errc::kNotSupported,
                 fmt::format("the volume is of format version {}; this program knows version {}",
                             uint16_t{disk.version}, kVersion));
  }
  const size_t whole = sizeof(DiskHead) + disk.epochs * sizeof(DiskEpoch) + sizeof(DiskEnd);
  if (disk.epochs > kEpochStartsMax || bytes.size() != whole) return damaged("its length");
  const auto end = wire_read<DiskEnd>(bytes.last(sizeof(DiskEnd)));
  if (end.crc != crc32c(bytes.first(bytes.size() - sizeof(Le32)))) return damaged("its checksum");
  if (disk.reserved != 0 || disk.root.reserved != 0 || disk.clean > 1 || !all_zero(disk.later)) {
    return damaged("a reserved field is used");
  }
  return disk;
}

Result<Head> read_all(const DiskHead& disk, Bytes bytes) {
  USBD_TRY(const crypto::CipherMode cipher, crypto::cipher_of_number(disk.cipher));
  Head head{.volume = disk.volume,
            .size = disk.size,
            .logical_block_size = disk.logical_block_size,
            .cipher = cipher,
            .key_salt = disk.key_salt,
            .key_check = disk.key_check,
            .version = disk.head_version,
            .epoch = disk.epoch,
            .writer = disk.writer,
            .journal = disk.journal,
            .nonce = disk.nonce,
            .clean = disk.clean == 1,
            .last_seq = disk.last_seq,
            .published_number = disk.published_number,
            .root = {.epoch = disk.root.epoch,
                     .id = disk.root.id,
                     .offset = disk.root.offset,
                     .stored = disk.root.stored,
                     .logical = disk.root.logical,
                     .piece = disk.root.piece,
                     .covers_seq = disk.root.covers_seq},
            .epochs = {}};
  for (uint32_t i = 0; i < disk.epochs; ++i) {
    const auto one = wire_read<DiskEpoch>(bytes.subspan(sizeof(DiskHead) + i * sizeof(DiskEpoch)));
    head.epochs.push_back({.epoch = one.epoch, .first_seq = one.first_seq});
  }
  USBD_TRY_VOID(check(head));
  return head;
}

}  // namespace

uint64_t Head::epoch_of(uint64_t seq) const {
  uint64_t found = 0;
  for (const EpochStart& start : epochs) {
    if (start.first_seq <= seq) found = start.epoch;
  }
  USBD_ASSERT(found > 0);
  return found;
}

std::vector<std::byte> encode(const Head& head, Bytes key) {
  USBD_ASSERT(head.epochs.size() <= kEpochStartsMax);
  DiskHead disk;
  disk.magic = kMagic;
  disk.version = kVersion;
  disk.cipher = static_cast<uint8_t>(head.cipher);
  disk.clean = head.clean ? 1 : 0;
  disk.epochs = static_cast<uint32_t>(head.epochs.size());
  disk.volume = head.volume;
  disk.size = head.size;
  disk.logical_block_size = head.logical_block_size;
  disk.key_salt = head.key_salt;
  disk.key_check = head.key_check;
  disk.head_version = head.version;
  disk.epoch = head.epoch;
  disk.writer = head.writer;
  disk.journal = head.journal;
  disk.nonce = head.nonce;
  disk.last_seq = head.last_seq;
  disk.published_number = head.published_number;
  disk.root.epoch = head.root.epoch;
  disk.root.id = head.root.id;
  disk.root.offset = head.root.offset;
  disk.root.stored = head.root.stored;
  disk.root.logical = head.root.logical;
  disk.root.piece = head.root.piece;
  disk.root.covers_seq = head.root.covers_seq;
  std::vector<std::byte> bytes;
  wire_append(bytes, disk);
  for (const EpochStart& start : head.epochs) {
    const DiskEpoch one{.epoch = start.epoch, .first_seq = start.first_seq};
    wire_append(bytes, one);
  }
  wire_append(bytes,
              proof_of(bytes, disk, head.cipher == crypto::CipherMode::kIdentity ? Bytes() : key));
  const Le32 crc = crc32c(bytes);
  wire_append(bytes, crc);
  return bytes;
}

Result<Head> decode_unproven(Bytes bytes) {
  USBD_TRY(const DiskHead disk, read_fixed(bytes));
  return read_all(disk, bytes);
}

Result<Head> decode(Bytes bytes, Bytes key) {
  USBD_TRY(const DiskHead disk, read_fixed(bytes));
  USBD_TRY(Head head, read_all(disk, bytes));
  if (head.cipher == crypto::CipherMode::kIdentity) {
    if (key.empty()) return head;
    // Else whoever can write to the bucket could have it read, and written, without encryption.
    return Error(Errc::kAccess,
                 "the volume is not encrypted, but a key was given: if that is so on purpose, say "
                 "so with -objstore-aesmode=identity");
  }
  if (crypto::key_check(key, head.key_salt) != head.key_check) {
    return Error(Errc::kAccess, "this is not the key that the volume was made with");
  }
  const auto end = wire_read<DiskEnd>(bytes.last(sizeof(DiskEnd)));
  const Proof proof = proof_of(bytes.first(bytes.size() - sizeof(DiskEnd)), disk, key);
  if (!crypto::equal_secretly(proof, end.proof)) {
    return Error(Errc::kAccess, "the head was changed by somebody who has not the volume's key");
  }
  return head;
}

}  // namespace usbd::objstore
