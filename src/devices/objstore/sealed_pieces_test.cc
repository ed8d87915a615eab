// SPDX-License-Identifier: Apache-2.0
//
// Pieces are what they were, and refused whatever is changed in them or around them.

#include "devices/objstore/sealed_pieces.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/random.h"

namespace usbd::objstore {
namespace {

constexpr MapObjectId kObject{.epoch = 5, .id = 42};
constexpr codec::Codec kLz4{.kind = codec::CodecKind::kLz4, .level = 1};
constexpr PieceLabel kPage{.kind = PieceKind::kMapPage, .page = 9};

const std::vector<std::byte>& key() {
  static const std::vector<std::byte> kKey(16, std::byte{1});
  return kKey;
}

VolumeSeal seal_with(crypto::CipherMode cipher) {
  VolumeSeal seal{.volume = {}, .cipher = cipher, .key = key()};
  seal.volume.fill(std::byte{2});
  return seal;
}

ObjectSalt salt() {
  ObjectSalt salt;
  salt.fill(std::byte{3});
  return salt;
}

std::vector<std::byte> some_bytes(size_t size, bool random) {
  std::vector<std::byte> bytes(size);
  if (random) SeededRng(size).fill(bytes);
  return bytes;
}

std::vector<std::byte> copy(Bytes bytes) {
  return {bytes.begin(), bytes.end()};
}

Bytes stored(const PieceWriter& writer, const PiecePointer& pointer) {
  return writer.bytes().subspan(pointer.offset, pointer.stored);
}

class SealedPieces : public ::testing::TestWithParam<crypto::CipherMode> {
 protected:
  VolumeSeal seal_ = seal_with(GetParam());
  PieceWriter writer_ = *PieceWriter::create(seal_, kObject, salt());
  PieceReader reader_ = *PieceReader::create(seal_, kObject, salt());
};

TEST_P(SealedPieces, AreReadAsTheyWereWritten) {
  std::vector<std::pair<PiecePointer, std::vector<std::byte>>> pieces;
  for (const size_t size : {1U, 100U, 4096U, 300'000U}) {
    for (const bool random : {false, true}) {
      std::vector<std::byte> bytes = some_bytes(size, random);
      pieces.emplace_back(writer_.add(kPage, kLz4, bytes), std::move(bytes));
    }
  }
  EXPECT_EQ(writer_.pieces(), 8U);
  for (const auto& [pointer, bytes] : pieces) {
    EXPECT_EQ(check(pointer), "");
    EXPECT_EQ(*from_disk(to_disk(pointer)), pointer);
    const auto plain = reader_.open(kPage, pointer, stored(writer_, pointer));
    ASSERT_TRUE(plain) << plain.error().message();
    EXPECT_EQ(*plain, bytes);
  }
  const MapHeader header = *parse_map_header(seal_, kObject, writer_.bytes());
  EXPECT_EQ(header.salt, salt());
  EXPECT_EQ(header.cipher, GetParam());
}

TEST_P(SealedPieces, CannotBeTakenForOneAnother) {
  const std::vector<std::byte> bytes = some_bytes(64, true);
  const PiecePointer first = writer_.add(kPage, kLz4, bytes);
  const PiecePointer second = writer_.add(kPage, kLz4, bytes);
  const auto refusal = [&](const PieceLabel& label, const PiecePointer& pointer, Bytes from) {
    const auto plain = reader_.open(label, pointer, from);
    return plain ? "accepted" : plain.error().message();
  };
  const Bytes second_bytes = stored(writer_, second);
  EXPECT_EQ(refusal(kPage, second, second_bytes), "accepted");
  const std::string other = " at 96 is not what is said to be there: Permission denied";
  EXPECT_EQ(refusal(kPage, first, second_bytes), "map page 9" + other);
  const Bytes first_bytes = stored(writer_, first);
  EXPECT_EQ(refusal({.kind = PieceKind::kMapPage, .page = 8}, first, first_bytes),
            "map page 8" + other);
  EXPECT_EQ(refusal({.kind = PieceKind::kTablePage, .page = 9}, first, first_bytes),
            "object table page 9" + other);
  EXPECT_EQ(refusal({.kind = PieceKind::kRoot, .page = 9}, first, first_bytes), "root 9" + other);
  PiecePointer longer = first;
  ++longer.logical;
  EXPECT_EQ(refusal(kPage, longer, first_bytes), "map page 9" + other);
  EXPECT_EQ(refusal(kPage, first, first_bytes.first(50)),
            "map page 9 at 96 is cut off: 50 of its " + std::to_string(first.stored) +
                " bytes are there: damaged");
}

TEST_P(SealedPieces, OfAnotherObjectOrVolumeAreRefused) {
  const PiecePointer pointer = writer_.add(kPage, kLz4, some_bytes(64, true));
  VolumeSeal other_volume = seal_;
  other_volume.volume[3] = std::byte{9};
  ObjectSalt other_salt = salt();
  other_salt[0] = std::byte{9};
  for (const PieceReader& reader : {*PieceReader::create(other_volume, kObject, salt()),
                                    *PieceReader::create(seal_, kObject, other_salt)}) {
    const auto plain = reader.open(kPage, pointer, stored(writer_, pointer));
    ASSERT_FALSE(plain);
    EXPECT_TRUE(plain.error().is(Errc::kAccess));
  }
}

TEST_P(SealedPieces, AreRefusedWhateverByteIsChanged) {
  const PiecePointer pointer = writer_.add(kPage, kLz4, some_bytes(64, true));
  const std::vector<std::byte> good = copy(stored(writer_, pointer));
  for (size_t i = 0; i < good.size(); ++i) {
    std::vector<std::byte> bad = good;
    bad[i] ^= std::byte{0x10};
    EXPECT_FALSE(reader_.open(kPage, pointer, bad)) << i;
    // Also by somebody who makes the checksum right again.
    std::memset(bad.data() + 20, 0, 4);
    const uint32_t crc = crc32c(Bytes(bad).subspan(24), crc32c(Bytes(bad).first(20)));
    const Le32 field(crc);
    std::memcpy(bad.data() + 20, &field, 4);
    const auto plain = reader_.open(kPage, pointer, bad);
    if (i >= 20 && i < 24) {
      EXPECT_TRUE(plain);
    } else {
      ASSERT_FALSE(plain) << i;
      EXPECT_TRUE(plain.error().is(Errc::kAccess)) << plain.error().message();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ciphers, SealedPieces,
                         ::testing::Values(crypto::CipherMode::kIdentity,
                                           crypto::CipherMode::kAesGcm,
                                           crypto::CipherMode::kChaCha20Poly1305,
                                           crypto::CipherMode::kAesCtr));

TEST(SealedPiecesLimits, RefusePointersToWhereNoPieceCanBe) {
  const PiecePointer good{
      .object = kObject, .offset = 96, .stored = 100, .logical = 100, .number = 0};
  EXPECT_EQ(check(good), "");
  const auto with = [&good](auto change) {
    PiecePointer pointer = good;
    change(pointer);
    return check(pointer);
  };
  EXPECT_EQ(with([](PiecePointer& p) { p.offset = 95; }),
            "no piece can have 100 bytes, 100 of them stored at 95 of m/5/2a");
  EXPECT_NE(with([](PiecePointer& p) { p.offset = UINT32_MAX - 99; }), "");
  EXPECT_NE(with([](PiecePointer& p) { p.logical = 0; }), "");
  EXPECT_NE(with([](PiecePointer& p) { p.logical = limits::kCodecPieceMax + 1; }), "");
  EXPECT_NE(with([](PiecePointer& p) { p.stored = 24; }), "");
  EXPECT_NE(with([](PiecePointer& p) { p.stored = 24 + 100 + 33; }), "");
  PiecePointer bad = good;
  bad.stored = 0;
  EXPECT_TRUE(from_disk(to_disk(bad)).error().is(Errc::kInvalid));
}

TEST(SealedPiecesLimits, RefuseAKeyOfAnotherSize) {
  VolumeSeal seal = seal_with(crypto::CipherMode::kAesGcm);
  seal.key = seal.key.first(7);
  EXPECT_TRUE(PieceWriter::create(seal, kObject, salt()).error().is(Errc::kInvalid));
  EXPECT_TRUE(PieceReader::create(seal, kObject, salt()).error().is(Errc::kInvalid));
}

/// Headers with something changed and, but for one, with the right checksum.
class MapHeaderDamage : public ::testing::Test {
 protected:
  [[nodiscard]] std::string refusal(size_t offset, uint8_t value, bool fix = true) const {
    std::vector<std::byte> bytes = copy(writer_.bytes());
    bytes[offset] = std::byte{value};
    if (fix) {
      const Le32 crc(crc32c(Bytes(bytes).first(92)));
      std::memcpy(bytes.data() + 92, &crc, 4);
    }
    const auto header = parse_map_header(seal_, kObject, bytes);
    return header ? "accepted" : header.error().message();
  }

  VolumeSeal seal_ = seal_with(crypto::CipherMode::kAesGcm);
  PieceWriter writer_ = *PieceWriter::create(seal_, kObject, salt());
};

TEST_F(MapHeaderDamage, IsRefused) {
  EXPECT_EQ(refusal(0, 'u'), "accepted");
  EXPECT_EQ(refusal(0, 'x'), "is no map object: it does not begin as one does: damaged");
  EXPECT_EQ(refusal(8, 2, false), "is damaged: the checksum of its header is wrong: damaged");
  const std::string later =
      "has version 1, or says what version 1 does not know: Operation not "
      "supported";
  EXPECT_EQ(refusal(8, 2),
            "has version 2, or says what version 1 does not know: Operation not "
            "supported");
  EXPECT_EQ(refusal(10, 99), later);
  EXPECT_EQ(refusal(11, 1), later);
  EXPECT_EQ(refusal(80, 1), later);
  EXPECT_EQ(refusal(16, 1), "belongs to another volume: damaged");
  EXPECT_EQ(refusal(40, 43), "holds m/5/2b instead: somebody copied it: damaged");
  EXPECT_EQ(refusal(10, 0),
            "is sealed with identity, and the volume with aes-gcm: Permission denied");
  EXPECT_EQ(parse_map_header(seal_, kObject, writer_.bytes().first(95)).error().context(),
            "is cut off: it has only 95 bytes");
}

}  // namespace
}  // namespace usbd::objstore
