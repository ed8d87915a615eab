// SPDX-License-Identifier: Apache-2.0
//
// Objects that are damaged, cut, moved, replayed or made by somebody else: each is an error that
// says what is wrong, and no byte of it is read as if it were right.

#include <functional>
#include <span>

#include <gtest/gtest.h>

#include "base/random.h"
#include "devices/objstore/data_object_testing.h"
#include "devices/objstore/data_object_writer.h"

namespace usbd::objstore {
namespace {

using codec::CodecKind;
using crypto::CipherMode;

constexpr CipherMode kCiphers[] = {CipherMode::kIdentity,         CipherMode::kAesGcm,
                                   CipherMode::kChaCha20Poly1305, CipherMode::kAesCtr,
                                   CipherMode::kAesCfb,           CipherMode::kAesOfb};

const ByteVector kKey(32, std::byte{1});

VolumeSeal seal_with(CipherMode cipher) {
  return {.volume = {std::byte{9}}, .cipher = cipher, .key = kKey};
}

constexpr ObjectId kId{.epoch = 3, .seq = 7};

ByteVector filled(size_t blocks, int value) {
  return ByteVector(blocks * kBlockBytes, static_cast<std::byte>(value));
}

/// Blocks with `value` at 10, a trim, and more blocks: a few hundred bytes with a codec.
ByteVector make_object(const VolumeSeal& seal, const ObjectId& id = kId, int value = 1,
                       CodecKind codec = CodecKind::kLz4, size_t blocks = 18) {
  DataObjectWriter writer =
      *DataObjectWriter::create(seal, {.id = id, .salt = {std::byte{5}}, .codec = {.kind = codec}});
  writer.add_data(10, filled(1, value));
  writer.add_empty(100, 5, ExtentKind::kTrim);
  writer.add_data(11, filled(blocks - 1, value));
  return writer.finish();
}

/// Reads the object and compares its first header, as a check of all of it does.
bool reads(const VolumeSeal& seal, Bytes object) {
  const auto header = parse_header(object);
  const auto read = read_object(seal, kId, object);
  return header && read && *header == read->header;
}

void expect_error(const Result<Contents>& read, Errc code, std::string_view says) {
  ASSERT_FALSE(read);
  EXPECT_TRUE(read.error().is(code)) << read.error().message();
  EXPECT_NE(read.error().message().find(says), std::string::npos) << read.error().message();
}

class DataObjectDamage : public testing::TestWithParam<CipherMode> {
 protected:
  VolumeSeal seal_ = seal_with(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Ciphers, DataObjectDamage, testing::ValuesIn(kCiphers));

/// What checksums alone cannot promise.
class DataObjectForgery : public DataObjectDamage {};
INSTANTIATE_TEST_SUITE_P(Ciphers, DataObjectForgery,
                         testing::ValuesIn(std::span(kCiphers).subspan<1>()));

TEST_P(DataObjectDamage, OfAnyByteIsNoticed) {
  ByteVector object = make_object(seal_);
  ASSERT_TRUE(reads(seal_, object));
  for (const std::byte flip : {std::byte{1}, std::byte{0x80}, std::byte{0xFF}}) {
    for (size_t i = 0; i < object.size(); ++i) {
      object[i] ^= flip;
      EXPECT_FALSE(reads(seal_, object)) << "byte " << i;
      object[i] ^= flip;
    }
  }
}

TEST_P(DataObjectForgery, OfAnyByteIsNoticedWhenItsChecksumsAreMadeRight) {
  const ByteVector right = make_object(seal_);
  const auto facts = wire_read<layout::Footer>(Bytes(right).last(sizeof(layout::Footer))).facts;
  for (size_t i = 0; i < right.size(); ++i) {
    ByteVector object = right;
    object[i] ^= std::byte{1};
    change_footer(object, [&](layout::Footer& footer) {
      footer.directory_crc =
          crc32c(Bytes(object).subspan(facts.directory_offset, facts.directory_stored));
    });
    // The magic and the two checksums of the footer, and the first header's, which is compared.
    const auto read = read_object(seal_, kId, object);
    EXPECT_TRUE(!read || object == right || i < sizeof(layout::Header)) << "byte " << i;
  }
}

TEST_P(DataObjectDamage, ByTruncationIsNoticedAtEveryLength) {
  const ByteVector object = make_object(seal_);
  for (size_t size = 0; size < object.size(); ++size) {
    const auto read = read_object(seal_, kId, Bytes(object).first(size));
    expect_error(read, Errc::kDamaged, "is truncated");
    EXPECT_FALSE(read_object(seal_, kId, Bytes(object).last(size)));
  }
  ByteVector longer = object;
  longer.insert(longer.begin(), std::byte{0});
  expect_error(read_object(seal_, kId, longer), Errc::kDamaged, "truncated or extended");
  longer = object;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(read_object(seal_, kId, longer));
}

/// The directory of an object of two full frames that are not compressed, so that they are equally
/// long, and the bytes of the frames.
struct TwoFrames {
  explicit TwoFrames(const VolumeSeal& seal, const ObjectId& id = kId, int value = 1)
      : object(make_object(seal, id, value, CodecKind::kIdentity, 32)),
        directory(*parse_tail(seal, id, object, object.size())->directory) {}

  [[nodiscard]] Bytes frame(uint32_t index) const {
    const FrameInfo& info = directory.frames()[index];
    return Bytes(object).subspan(info.offset, info.stored);
  }
  /// As if the bytes were those of frame `index`, with the checksum they have.
  [[nodiscard]] Result<void> open_as(uint32_t index, Bytes bytes) const {
    FrameInfo info = directory.frames()[index];
    info.crc = crc32c(bytes);
    ByteVector plain(info.logical, std::byte{7});
    const Result<void> opened = directory.opener()->open(index, info, bytes, plain);
    EXPECT_TRUE(opened || plain == ByteVector(info.logical));
    return opened;
  }

  ByteVector object;
  Directory directory;
};

TEST_P(DataObjectDamage, BySwappedFramesIsNoticed) {
  const TwoFrames own(seal_);
  ByteVector plain(kFrameBytes);
  EXPECT_TRUE(own.directory.open_frame(1, own.frame(1), plain));
  EXPECT_TRUE(own.directory.open_frame(1, own.frame(0), plain).error().is(Errc::kDamaged));
  EXPECT_EQ(plain, ByteVector(kFrameBytes));
  EXPECT_TRUE(own.open_as(1, own.frame(1)));
  EXPECT_TRUE(own.open_as(1, own.frame(0)).error().is(Errc::kAccess));
}

TEST_P(DataObjectDamage, ByFramesOfOtherObjectsIsNoticed) {
  const TwoFrames own(seal_);
  VolumeSeal other_volume = seal_;
  other_volume.volume[0] ^= std::byte{1};
  for (const TwoFrames& other :
       {TwoFrames(seal_, {.epoch = 3, .seq = 8}), TwoFrames(seal_, {.epoch = 4, .seq = 7}),
        TwoFrames(other_volume)}) {
    EXPECT_TRUE(own.open_as(0, other.frame(0)).error().is(Errc::kAccess));
    EXPECT_TRUE(own.open_as(0, own.frame(0)));
  }
}

TEST_P(DataObjectDamage, ByAFrameOfAnotherLengthIsNoticed) {
  const TwoFrames own(seal_);
  for (const size_t size : {0U, 1U, 4U, 32U, 1000U, kFrameBytes}) {
    EXPECT_FALSE(own.open_as(0, own.frame(0).first(size)));
  }
  FrameInfo info = own.directory.frames()[0];
  info.logical = kBlockBytes;  // a directory that lies would say so
  ByteVector plain(kBlockBytes);
  EXPECT_FALSE(own.directory.opener()->open(0, info, own.frame(0), plain));
}

TEST_P(DataObjectDamage, ByReplayUnderAnotherNameIsNoticed) {
  const ObjectId old{.epoch = 3, .seq = 6};
  ByteVector object = make_object(seal_, old);
  expect_error(read_object(seal_, kId, object), Errc::kDamaged, "d/3/7 holds d/3/6 instead");
  change_footer(object, [](layout::Footer& footer) { footer.facts.header.seq = kId.seq; });
  expect_error(read_object(seal_, kId, object), Errc::kAccess, "the key is another one");
  object = make_object(seal_);
  EXPECT_FALSE(read_object(seal_, {.epoch = 3, .seq = 7, .kind = ObjectKind::kGc}, object));
}

TEST_P(DataObjectDamage, ByAnotherVolumesObjectIsNoticed) {
  VolumeSeal other = seal_;
  other.volume[15] = std::byte{1};
  ByteVector object = make_object(other);
  expect_error(read_object(seal_, kId, object), Errc::kDamaged, "belongs to another volume");
  change_footer(object, [&](layout::Footer& footer) { footer.facts.header.volume = seal_.volume; });
  expect_error(read_object(seal_, kId, object), Errc::kAccess, "the key is another one");
}

TEST_P(DataObjectForgery, IsToldFromAWrongKey) {
  const ByteVector wrong(32, std::byte{2});
  VolumeSeal other = seal_;
  other.key = wrong;
  expect_error(read_object(other, kId, make_object(seal_)), Errc::kAccess,
               "the key is another one, or it was changed");
}

TEST_P(DataObjectDamage, ByAnotherCipherThanTheVolumesIsNoticed) {
  for (const CipherMode cipher : kCiphers) {
    if (cipher == GetParam()) continue;
    expect_error(read_object(seal_, kId, make_object(seal_with(cipher))), Errc::kAccess,
                 "is sealed with " + std::string(crypto::to_text(cipher)));
  }
}

/// A frame that somebody with the key has sealed, whatever it holds.
Result<void> open_sealed(const VolumeSeal& seal, Bytes packed, CodecKind codec) {
  const auto sealer = *layout::make_object_sealer(seal, kId, {});
  ByteVector stored(packed.size() + sealer->tag_size());
  FrameInfo info{.offset = 128,
                 .stored = static_cast<uint32_t>(stored.size()),
                 .logical = kFrameBytes,
                 .crc = 0,
                 .codec = codec};
  const layout::FrameBinding binding = layout::bind(seal.volume, kId, 0, info);
  sealer->seal(0, {wire_bytes(binding)}, packed, MutableBytes(stored).first(packed.size()),
               MutableBytes(stored).subspan(packed.size()));
  info.crc = crc32c(stored);
  ByteVector plain(kFrameBytes, std::byte{7});
  const Result<void> opened = FrameOpener::create(seal, kId, {})->open(0, info, stored, plain);
  EXPECT_TRUE(opened || plain == ByteVector(kFrameBytes));
  return opened;
}

TEST_P(DataObjectDamage, ByABombIsNoticed) {
  for (const CodecKind codec :
       {CodecKind::kLz4, CodecKind::kZstd, CodecKind::kS2, CodecKind::kGzip}) {
    const auto right = codec::compress({.kind = codec}, ByteVector(kFrameBytes));
    EXPECT_TRUE(open_sealed(seal_, *right, codec));
    for (const size_t size :
         {size_t{4096}, size_t{kFrameBytes} - 1, size_t{kFrameBytes} + 1, limits::kCodecPieceMax}) {
      const auto bomb = codec::compress({.kind = codec}, ByteVector(size));
      EXPECT_TRUE(open_sealed(seal_, *bomb, codec).error().is(Errc::kDamaged));
    }
  }
}

// --- Directories that are rightly sealed and say what cannot be.
// -----------------------------------

/// One frame of one block, not compressed, and the directory that belongs to it.
class ForgedDirectory : public testing::Test {
 protected:
  ForgedDirectory() {
    header_ = {.volume = seal_.volume, .id = kId, .extents = 2, .frames = 1, .data_blocks = 1};
    header_.cipher = CipherMode::kAesGcm;
    contents_.last_write = 1;
    contents_.frames = {{.stored = kBlockBytes + 16, .logical = kBlockBytes}};
    contents_.extents = {{.block = 5, .blocks = 1},
                         {.block = 9, .blocks = 2, .kind = ExtentKind::kTrim}};
  }

  [[nodiscard]] Result<Tail> parse() const { return parse_plain(layout::encode(contents_)); }
  [[nodiscard]] Result<Tail> parse_plain(Bytes plain) const {
    const ByteVector object = forge_object(seal_, header_, ByteVector(kBlockBytes + 16), plain);
    return parse_tail(seal_, header_.id, object, object.size());
  }
  void expect_refused(Errc code, std::string_view says) const {
    expect_refused(parse(), code, says);
  }
  static void expect_refused(const Result<Tail>& tail, Errc code, std::string_view says) {
    ASSERT_FALSE(tail);
    EXPECT_TRUE(tail.error().is(code)) << tail.error().message();
    EXPECT_NE(tail.error().message().find(says), std::string::npos) << tail.error().message();
  }

  VolumeSeal seal_ = seal_with(CipherMode::kAesGcm);
  ObjectHeader header_;
  DirectoryContents contents_;
};

TEST_F(ForgedDirectory, IsReadIfItIsRight) {
  const auto tail = parse();
  ASSERT_TRUE(tail) << tail.error().message();
  EXPECT_EQ(tail->directory->extents(), contents_.extents);
}

TEST_F(ForgedDirectory, IsRefusedForItsWrites) {
  contents_.first_write = 2;
  expect_refused(Errc::kDamaged, "a first write after its last");
}

TEST_F(ForgedDirectory, IsRefusedForItsFrames) {
  FrameInfo& frame = contents_.frames[0];
  const FrameInfo right = frame;
  frame.logical = 2 * kBlockBytes;
  expect_refused(Errc::kDamaged, "claims that frame 0");
  frame = right;
  frame.stored += 1;
  expect_refused(Errc::kDamaged, "claims that frame 0");
  frame = right;
  frame.stored -= 1;
  expect_refused(Errc::kDamaged, "claims that frame 0");
  frame = right;
  frame.codec = CodecKind::kLz4;
  expect_refused(Errc::kDamaged, "claims that frame 0");
  frame.stored = 16;
  expect_refused(Errc::kDamaged, "claims that frame 0");
  frame.stored = 17;
  expect_refused(Errc::kDamaged, "do not fill the place");
  frame = right;
  frame.codec = static_cast<CodecKind>(codec::kCodecKinds);
  expect_refused(Errc::kNotSupported, "of frame 0");
}

TEST_F(ForgedDirectory, IsRefusedForReservedBytes) {
  ByteVector plain = layout::encode(contents_);
  plain[sizeof(layout::DirectoryHead) + offsetof(layout::Frame, reserved)] = std::byte{1};
  expect_refused(parse_plain(plain), Errc::kNotSupported, "of frame 0");
}

TEST_F(ForgedDirectory, IsRefusedForItsExtents) {
  Extent& extent = contents_.extents[1];
  const Extent right = extent;
  for (const int kind : {0, 4, 255}) {
    extent.kind = static_cast<ExtentKind>(kind);
    expect_refused(Errc::kNotSupported, "extent 1 of a kind");
  }
  extent = right;
  extent.blocks = 0;
  expect_refused(Errc::kDamaged, "extent 1 has 0 blocks");
  extent.blocks = 2;
  extent.block = kBlockEnd - 1;
  expect_refused(Errc::kDamaged, "claims that extent 1");
  extent = right;
  extent.kind = ExtentKind::kData;
  expect_refused(Errc::kDamaged, "extent 1 go beyond its last frame");
  extent = right;
  contents_.extents[0].kind = ExtentKind::kZero;
  expect_refused(Errc::kDamaged, "0 blocks in its extents and 1 in its frames");
}

TEST_F(ForgedDirectory, IsRefusedForItsSources) {
  header_.id.kind = ObjectKind::kGc;
  const Source right{.object = {.epoch = 1, .seq = 1}};
  const auto expect_source = [&](size_t index) {
    expect_refused(Errc::kDamaged, "extent " + std::to_string(index) + " come from");
  };
  contents_.sources = {right, {}};
  EXPECT_TRUE(parse());
  contents_.sources[0].object.kind = static_cast<ObjectKind>(3);
  expect_source(0);
  contents_.sources[0].object.kind = static_cast<ObjectKind>(0);
  expect_source(0);
  contents_.sources = {right, {}};
  ByteVector plain = layout::encode(contents_);
  plain.back() = std::byte{1};  // a source of what has none
  expect_refused(parse_plain(plain), Errc::kDamaged, "extent 1 come from");
  plain.back() = std::byte{0};
  plain[plain.size() - sizeof(layout::SourceEntry) - 1] = std::byte{1};  // reserved
  expect_refused(parse_plain(plain), Errc::kDamaged, "extent 0 come from");
}

// --- Headers and footers whose checksums are right.
// ------------------------------------------------

class ForgedFooter : public testing::Test {
 protected:
  using Change = std::function<void(layout::Footer&)>;

  void expect_refused(Errc code, std::string_view says, const Change& change) {
    ByteVector object = make_object(seal_);
    change_footer(object, change);
    expect_error(read_object(seal_, kId, object), code, says);
  }

  VolumeSeal seal_ = seal_with(CipherMode::kIdentity);
};

TEST_F(ForgedFooter, IsRefusedIfALaterVersionMadeIt) {
  using F = layout::Footer;
  constexpr std::string_view kUnknown = "this version does not know";
  expect_refused(Errc::kNotSupported, "has version 2 of the format",
                 [](F& f) { f.facts.header.version = 2; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.header.kind = 0; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.header.kind = 3; });
  expect_refused(Errc::kNotSupported, "cipher 6", [](F& f) { f.facts.header.cipher = 6; });
  expect_refused(Errc::kNotSupported, "codec 5", [](F& f) { f.facts.header.codec = 5; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.header.block_shift = 9; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.header.frame_shift = 5; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.header.reserved = 1; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.header.reserved_end[27] = 1; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.reserved[6] = 1; });
  expect_refused(Errc::kNotSupported, kUnknown, [](F& f) { f.facts.directory_codec = 5; });
}

TEST_F(ForgedFooter, IsRefusedForCountsWithoutTakingMemoryForThem) {
  using F = layout::Footer;
  expect_refused(Errc::kDamaged, "claims 4294967295 extents",
                 [](F& f) { f.facts.header.extents = UINT32_MAX; });
  expect_refused(Errc::kDamaged, "4294967295 frames",
                 [](F& f) { f.facts.header.frames = UINT32_MAX; });
  expect_refused(Errc::kDamaged, "blocks", [](F& f) { f.facts.header.data_blocks = UINT64_MAX; });
  expect_refused(Errc::kDamaged, "blocks", [](F& f) { f.facts.header.data_blocks = 17 + 16; });
  expect_refused(Errc::kDamaged, "claims a directory",
                 [](F& f) { f.facts.header.extents = 100000; });
}

TEST_F(ForgedFooter, IsRefusedForAPlaceThatCannotBe) {
  using F = layout::Footer;
  const std::string_view directory = "claims a directory";
  expect_refused(Errc::kDamaged, directory, [](F& f) { f.facts.directory_offset = UINT64_MAX; });
  expect_refused(Errc::kDamaged, directory, [](F& f) { f.facts.directory_offset = 127; });
  expect_refused(Errc::kDamaged, directory, [](F& f) { f.facts.directory_offset = 129; });
  expect_refused(Errc::kDamaged, directory, [](F& f) { f.facts.directory_stored = 4; });
  expect_refused(Errc::kDamaged, directory, [](F& f) { f.facts.directory_stored = UINT32_MAX; });
  expect_refused(Errc::kDamaged, directory, [](F& f) { f.facts.directory_plain = 16; });
  expect_refused(Errc::kDamaged, "truncated or extended", [](F& f) { f.facts.object_bytes = 1; });
  expect_refused(Errc::kDamaged, "checksum of its directory", [](F& f) { f.directory_crc = 1; });
  expect_refused(Errc::kDamaged, "no data object", [](F& f) { f.magic[0] = 'x'; });
  expect_refused(Errc::kDamaged, "does not begin as one",
                 [](F& f) { f.facts.header.magic[0] = 'x'; });
}

TEST(ParseHeader, TellsOtherObjects) {
  const auto says = [](Bytes start) { return parse_header(start).error().message(); };
  const ByteVector foreign(4096, std::byte{'x'});
  EXPECT_NE(says(foreign).find("this object is no data object"), std::string::npos);
  EXPECT_NE(says(Bytes(foreign).first(127)).find("only 127 bytes"), std::string::npos);
  ByteVector object = make_object(seal_with(CipherMode::kIdentity));
  object[100] ^= std::byte{1};
  EXPECT_NE(says(object).find("checksum of its header"), std::string::npos);
}

}  // namespace
}  // namespace usbd::objstore
