// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the reading of data objects, in four ways:
//   - any bytes, as an object or as the end of one;
//   - a directory of any bytes, rightly sealed: what is read of it must be possible;
//   - a frame of any bytes, rightly sealed: an error, or as many bytes as it should have;
//   - a right object that is changed and whose checksums are then made right again: reading it
//     gives an error, or exactly what was written (without a key: an error or something possible).

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/random.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/data_object_testing.h"
#include "devices/objstore/data_object_writer.h"
#include "fuzz/input.h"

using usbd::Bytes;
using usbd::MutableBytes;
using usbd::codec::CodecKind;
using usbd::crypto::CipherMode;
using usbd::fuzz::FuzzInput;
using usbd::fuzz::promise;

namespace usbd::objstore {
namespace {

const ByteVector& volume_key() {
  static const ByteVector kKey(32, std::byte{1});
  return kKey;
}

VolumeSeal seal_with(CipherMode cipher) {
  return {.volume = {std::byte{9}}, .cipher = cipher, .key = volume_key()};
}

constexpr ObjectId id_of(ObjectKind kind) {
  return {.epoch = 3, .seq = 7, .kind = kind};
}

/// One block's length of data that compresses, and one's that does not.
ByteVector blocks(size_t count, bool random) {
  ByteVector data(count * kBlockBytes, std::byte{0x42});
  SeededRng rng(count);
  if (random) rng.fill(MutableBytes(data).first(kBlockBytes));
  return data;
}

struct Sample {
  CipherMode cipher{};
  ObjectKind kind{};
  ByteVector object;
  Contents contents;
};

Sample make_sample(CipherMode cipher, CodecKind codec, ObjectKind kind) {
  Sample sample{.cipher = cipher, .kind = kind, .object = {}, .contents = {}};
  DataObjectWriter writer = *DataObjectWriter::create(
      seal_with(cipher), {.id = id_of(kind), .codec = {.kind = codec}, .last_write = 4});
  for (const bool random : {false, true}) {
    const ByteVector data = blocks(random ? 2 : 15, random);
    if (kind == ObjectKind::kGc) {
      writer.add_moved(10, data, {.object = id_of(ObjectKind::kData), .position = {3}});
    } else {
      writer.add_data(10, data);
    }
    writer.add_empty(70, 3, random ? ExtentKind::kTrim : ExtentKind::kZero);
  }
  sample.object = writer.finish();
  const auto read = read_object(seal_with(cipher), id_of(kind), sample.object);
  promise(read.has_value(), "a right object is read");
  sample.contents = *read;
  return sample;
}

const std::vector<Sample>& samples() {
  static const std::vector<Sample> kSamples = {
      make_sample(CipherMode::kIdentity, CodecKind::kLz4, ObjectKind::kData),
      make_sample(CipherMode::kAesGcm, CodecKind::kLz4, ObjectKind::kData),
      make_sample(CipherMode::kAesGcm, CodecKind::kIdentity, ObjectKind::kGc),
      make_sample(CipherMode::kChaCha20Poly1305, CodecKind::kS2, ObjectKind::kData),
      make_sample(CipherMode::kAesCtr, CodecKind::kZstd, ObjectKind::kGc),
      make_sample(CipherMode::kAesCfb, CodecKind::kGzip, ObjectKind::kData),
      make_sample(CipherMode::kAesOfb, CodecKind::kLz4, ObjectKind::kGc),
  };
  return kSamples;
}

void check_any_bytes(FuzzInput& input) {
  const Sample& sample = samples()[input.byte() % samples().size()];
  const uint64_t before = input.word();
  const std::string text = input.take(SIZE_MAX);
  const Bytes bytes = std::as_bytes(std::span(text));
  const auto header = parse_header(bytes);
  promise(header || !header.error().context().empty(), "an error says what is wrong");
  const VolumeSeal seal = seal_with(sample.cipher);
  const auto tail = parse_tail(seal, id_of(sample.kind), bytes, bytes.size() + before);
  const bool asks = tail && !tail->directory;
  promise(!asks ||
              (tail->missing.end() == bytes.size() + before && tail->missing.length > bytes.size()),
          "what is missing is more of the same object");
}

/// The sums that a directory must keep to, whoever has made it.
void check_directory(const Directory& directory, uint64_t frames_end) {
  uint64_t offset = sizeof(layout::Header);
  uint64_t data_blocks = 0;
  for (const FrameInfo& frame : directory.frames()) {
    promise(frame.offset == offset && frame.logical <= kFrameBytes && frame.logical > 0,
            "frames follow each other");
    offset += frame.stored;
    data_blocks += frame.logical / kBlockBytes;
  }
  promise(offset == frames_end, "frames end where the directory begins");
  for (const Extent& extent : directory.extents()) {
    promise(extent.blocks > 0 && extent.block + extent.blocks <= kBlockEnd, "blocks of a volume");
    if (extent.kind != ExtentKind::kData) continue;
    promise(extent.position.value + uint64_t{extent.blocks} <= data_blocks,
            "an extent is inside the frames");
  }
}

void open_all(const Directory& directory, Bytes object) {
  for (uint32_t i = 0; i < directory.frames().size(); ++i) {
    const FrameInfo& info = directory.frames()[i];
    ByteVector plain(info.logical, std::byte{7});
    const auto opened = directory.open_frame(i, object.subspan(info.offset, info.stored), plain);
    promise(opened || plain == ByteVector(info.logical), "no byte that is not verified");
  }
}

void check_forged_directory(FuzzInput& input) {
  const CipherMode cipher = input.flip() ? CipherMode::kIdentity : CipherMode::kAesGcm;
  const VolumeSeal seal = seal_with(cipher);
  ObjectHeader header{.volume = seal.volume,
                      .id = id_of(input.flip() ? ObjectKind::kData : ObjectKind::kGc)};
  header.cipher = cipher;
  header.extents = input.byte() % 8;
  header.data_blocks = input.byte() % 40;
  header.frames = static_cast<uint32_t>((header.data_blocks + kFrameBlocks - 1) / kFrameBlocks);
  const size_t frames_bytes = input.word();
  const std::string text = input.take(SIZE_MAX);
  ByteVector plain(layout::directory_bytes(header.id.kind, header.extents, header.frames));
  const Bytes given = std::as_bytes(std::span(text));
  std::ranges::copy(given.first(std::min(given.size(), plain.size())), plain.begin());
  const ByteVector object = forge_object(seal, header, ByteVector(frames_bytes), plain);
  const auto tail = parse_tail(seal, header.id, object, object.size());
  if (!tail) {
    promise(!tail.error().context().empty(), "an error says what is wrong");
    return;
  }
  promise(tail->directory.has_value(), "all of it was given");
  check_directory(*tail->directory, sizeof(layout::Header) + frames_bytes);
  open_all(*tail->directory, object);
}

void check_forged_frame(FuzzInput& input) {
  const CipherMode cipher = input.flip() ? CipherMode::kIdentity : CipherMode::kAesGcm;
  const VolumeSeal seal = seal_with(cipher);
  const ObjectId id = id_of(input.flip() ? ObjectKind::kData : ObjectKind::kGc);
  const uint64_t logical = (1U + input.byte() % kFrameBlocks) * kBlockBytes;
  FrameInfo info{.logical = static_cast<uint32_t>(logical)};
  info.codec = static_cast<CodecKind>(input.byte() % codec::kCodecKinds);
  const bool full = input.flip();
  const std::string text = input.take(kFrameBytes);
  const Bytes given = std::as_bytes(std::span(text));
  ByteVector packed(given.begin(), given.end());
  packed.resize(full ? info.logical : std::max<size_t>(packed.size(), 1));
  const auto sealer = *layout::make_object_sealer(seal, id, {});
  ByteVector stored(packed.size() + sealer->tag_size());
  info.stored = static_cast<uint32_t>(stored.size());
  const layout::FrameBinding binding = layout::bind(seal.volume, id, 1, info);
  sealer->seal(1, {wire_bytes(binding)}, packed, MutableBytes(stored).first(packed.size()),
               MutableBytes(stored).subspan(packed.size()));
  info.crc = crc32c(stored);
  ByteVector out(info.logical, std::byte{7});
  const auto opener = FrameOpener::create(seal, id, {});
  const auto opened = opener->open(1, info, stored, out);
  promise(opened || out == ByteVector(info.logical), "no byte that is not verified");
  promise(!opener->open(1, info, Bytes(stored).first(stored.size() / 2), out), "half a frame");
  promise(!opener->open(2, info, stored, out), "a frame of another place");
}

/// Makes the checksums right, also that of the directory where it is.
void repair(ByteVector& object) {
  change_footer(object, [&object](layout::Footer& footer) {
    const uint64_t offset = footer.facts.directory_offset;
    const uint64_t stored = footer.facts.directory_stored;
    if (offset > object.size() || stored > object.size() - offset) return;
    footer.directory_crc = crc32c(Bytes(object).subspan(offset, stored));
  });
}

/// Where a change is made: near the end, near the start, or anywhere.
size_t place(FuzzInput& input, size_t size) {
  const size_t offset = input.word();
  switch (input.byte() % 3) {
    case 0:
      return size - 1 - std::min(size - 1, offset % 512);
    case 1:
      return std::min(size - 1, offset % 256);
    default:
      return offset % size;
  }
}

void change(FuzzInput& input, ByteVector& object) {
  const size_t at = place(input, object.size());
  const auto here = object.begin() + static_cast<ptrdiff_t>(at);
  const size_t length = std::min<size_t>(input.byte(), object.size() - at);
  const auto end = here + static_cast<ptrdiff_t>(length);
  switch (input.byte() % 6) {
    case 0:
      *here = static_cast<std::byte>(input.byte());
      break;
    case 1:
      *here ^= static_cast<std::byte>(1U << input.byte() % 8U);
      break;
    case 2:
      object.erase(here, end);
      break;
    case 3:
      object.insert(here, length, static_cast<std::byte>(input.byte()));
      break;
    case 4:
      std::reverse(here, end);
      break;
    default:
      std::swap_ranges(here, here + static_cast<ptrdiff_t>(length / 2),
                       end - static_cast<ptrdiff_t>(length / 2));
  }
}

void check_changed_object(FuzzInput& input) {
  const Sample& sample = samples()[input.byte() % samples().size()];
  ByteVector object = sample.object;
  const bool repaired = input.flip();
  while (!input.empty() && !object.empty()) change(input, object);
  if (repaired && object.size() >= sizeof(layout::Footer)) repair(object);
  const auto read = read_object(seal_with(sample.cipher), id_of(sample.kind), object);
  promise(read || !read.error().context().empty(), "an error says what is wrong");
  // Without a key whoever makes the checksums right may say what he likes.
  const bool proven = sample.cipher != CipherMode::kIdentity || !repaired;
  promise(!read || !proven || *read == sample.contents, "an error, or exactly what was written");
}

}  // namespace
}  // namespace usbd::objstore

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input({data, size});
  switch (input.byte() % 4) {
    case 0:
      usbd::objstore::check_any_bytes(input);
      break;
    case 1:
      usbd::objstore::check_forged_directory(input);
      break;
    case 2:
      usbd::objstore::check_changed_object(input);
      break;
    default:
      usbd::objstore::check_forged_frame(input);
  }
  return 0;
}
