// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes what checkpoints are read from: leaves and pages of the map, pages of the object table,
// roots, and the objects they lie in. What is accepted must be what is written for it, byte for
// byte, and can be worked with; an error says what is wrong and has changed nothing. An object that
// was made and then changed, with its checksums made right again, gives an error or what was put
// in.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/endian.h"
#include "devices/objstore/block_map.h"
#include "devices/objstore/checkpoint_root.h"
#include "devices/objstore/object_table.h"
#include "devices/objstore/sealed_pieces.h"
#include "fuzz/input.h"

using usbd::Bytes;
using usbd::fuzz::FuzzInput;
using usbd::fuzz::promise;

namespace usbd::objstore {
namespace {

using ByteVector = std::vector<std::byte>;

constexpr uint64_t kSizes[] = {kLeafBlocks, 1, 700, 40 * kLeafBlocks + 5};

bool same(const ByteVector& encoded, Bytes input) {
  return encoded.size() == input.size() &&
         (input.empty() || std::memcmp(encoded.data(), input.data(), input.size()) == 0);
}

void check_error(const Error& error) {
  promise(!error.context().empty(), "an error says what is wrong");
}

void leaf(uint64_t blocks, Bytes input) {
  BlockMap map(blocks);
  const auto ignore = [](uint32_t /*slot*/, uint32_t /*blocks*/) {};
  map.set({0, 1}, {1, 0}, ignore);
  map.set({0, 1}, {}, ignore);
  const uint64_t empty = map.memory();
  const Result<void> read = map.decode_leaf(0, input);
  if (!read) {
    check_error(read.error());
    promise(map.memory() == empty, "a leaf that is refused is not taken");
    return;
  }
  promise(same(map.encode_leaf(0), input), "a leaf is written as it was read");
  map.set({blocks / 2, blocks / 4}, {UINT32_MAX, 0}, ignore);
  const uint64_t moved =
      map.move({blocks / 2, blocks - blocks / 2}, {UINT32_MAX, 0}, {7, 1}, ignore);
  promise(moved == blocks / 4, "what is at its source is moved");
  map.set({blocks - 1, 1}, {9, 9}, ignore);
  map.set({0, blocks / 2}, {}, ignore);
  BlockMap copy(blocks);
  promise(copy.decode_leaf(0, map.encode_leaf(0)).has_value(), "a changed leaf is read");
  promise(same(copy.encode_leaf(0), map.encode_leaf(0)), "a changed leaf is written");
  uint64_t mapped = 0;
  uint64_t told = 0;
  for (const MappedRun& run : map.find({0, blocks})) {
    if (run.location.slot != 0) mapped += run.blocks.count;
  }
  map.set({0, blocks}, {}, [&told](uint32_t /*slot*/, uint32_t count) { told += count; });
  promise(mapped == told, "what is mapped can be unmapped");
  for (uint64_t i = 0; i < map.leaves(); ++i) map.clear_changed(i);
  promise(map.memory() == empty, "memory is given back");
}

void map_page(uint64_t blocks, uint32_t page, Bytes input) {
  BlockMap map(blocks);
  page %= map_pages(map);
  const Result<void> read = decode_map_page(map, page, input);
  if (!read) return check_error(read.error());
  const ByteVector encoded = encode_map_page(map, page);
  promise(encoded.empty() || same(encoded, input), "a page of the map is written as it was read");
}

/// Deletes all objects and puts another one in the place of the first.
void empty(ObjectTable& table, uint32_t page) {
  uint32_t first = 0;
  const uint32_t before = table.end_generation();
  for (uint32_t slot = 1; slot < table.slots_end(); ++slot) {
    const ObjectFacts* facts = table.facts(slot);
    if (facts == nullptr) continue;
    const ObjectFacts was = *facts;
    if (first == 0) first = slot;
    table.drop_live(slot, was.live);
    if (was.state == ObjectState::kInUse) {
      table.add_live(slot, was.blocks);
      table.drop_live(slot, was.blocks);
      table.set_pending(slot, 1);
    }
    table.remove(slot);
  }
  promise(table.totals(ObjectState::kPending) == ObjectTotals(), "nothing is counted any more");
  promise(table.encode_page(page).empty(), "nothing is left");
  table.clear_changed(page, before);
  promise(table.changed(page), "a later change is not forgotten");
  const Result<uint32_t> other = table.add({.object_bytes = 1});
  promise(other && *other != first, "a slot is not given again too early");
  promise(table.add({.object_bytes = 1}).error().is(Errc::kExists), "an object has one slot");
  table.reuse_removed();
  for (uint64_t seq = 0;; ++seq) {
    const Result<uint32_t> next = table.add({.id = {.epoch = 9, .seq = seq}});
    promise(next.has_value(), "a slot that was taken back is given in the end");
    if (*next == first) return;
  }
}

void table_page(uint32_t page, Bytes input) {
  ObjectTable table(16 * kTablePageSlots);
  const Result<void> read = table.decode_page(page, input);
  if (!read) {
    check_error(read.error());
    promise(table.slots_end() == 0, "a page that is refused is not taken");
    return;
  }
  if (input.empty()) return;
  promise(same(table.encode_page(page), input), "a page of the table is written as it was read");
  uint64_t objects = 0;
  table.for_each([&](uint32_t slot, const ObjectFacts& facts) {
    ++objects;
    promise(table.find(facts.id) == slot, "an object has its slot");
    promise(facts.live_bytes() <= facts.stored_bytes, "no more is live than is stored");
  });
  promise(objects == table.totals(ObjectState::kInUse).objects +
                         table.totals(ObjectState::kPending).objects,
          "objects are counted");
  empty(table, page);
}

void root(Bytes input) {
  const Result<CheckpointRoot> read = decode_root(input);
  if (!read) return check_error(read.error());
  const Result<ByteVector> encoded = encode_root(*read);
  promise(encoded && same(*encoded, input), "a root is written as it was read");
}

VolumeSeal keyed_seal(crypto::CipherMode cipher) {
  static const ByteVector kKey(16, std::byte{1});
  return {.volume = {std::byte{5}}, .cipher = cipher, .key = kKey};
}

/// An object of two pieces, changed where the input says, with the checksums made right.
void changed_object(bool encrypted, FuzzInput input) {
  const VolumeSeal seal =
      keyed_seal(encrypted ? crypto::CipherMode::kAesGcm : crypto::CipherMode::kIdentity);
  const MapObjectId id{.epoch = 1, .id = 2};
  PieceWriter writer = *PieceWriter::create(seal, id, {});
  const PieceLabel label{.kind = PieceKind::kMapPage, .page = 7};
  const codec::Codec lz4{.kind = codec::CodecKind::kLz4, .level = 1};
  const size_t change = input.word();
  const std::byte flip{input.byte()};
  const std::string text = input.take(10'000);
  ByteVector content(1, std::byte{1});
  const Bytes bytes = std::as_bytes(std::span(text));
  content.insert(content.end(), bytes.begin(), bytes.end());
  writer.add({.kind = PieceKind::kTablePage, .page = 3}, lz4, content);
  const PiecePointer pointer = writer.add(label, lz4, content);
  promise(writer.pieces() == 2 && writer.object() == id && writer.salt() == ObjectSalt(), "facts");
  promise(*from_disk(to_disk(pointer)) == pointer, "a pointer is read as it was written");
  ByteVector object(writer.bytes().begin(), writer.bytes().end());
  promise(parse_map_header(seal, id, object).has_value(), "a right header is read");
  const MutableBytes piece = MutableBytes(object).subspan(pointer.offset, pointer.stored);
  piece[change % piece.size()] ^= flip;
  const Le32 crc(crc32c(piece.subspan(24), crc32c(piece.first(20))));
  std::memcpy(piece.data() + 20, &crc, sizeof(crc));
  const Result<ByteVector> plain = PieceReader::create(seal, id, {})->open(label, pointer, piece);
  if (!plain) return check_error(plain.error());
  promise(*plain == content, "a piece is read as it was written");
}

/// An object of any bytes, whose checksums are made right if `fix`.
void object(PieceKind kind, bool fix, ByteVector bytes) {
  const VolumeSeal seal;
  const MapObjectId id{.epoch = 1, .id = 2};
  if (fix && bytes.size() >= kMapHeaderBytes) {
    const Le32 crc(crc32c(Bytes(bytes).first(92)));
    std::memcpy(bytes.data() + 92, &crc, sizeof(crc));
  }
  const Result<MapHeader> header = parse_map_header(seal, id, bytes);
  if (!header) check_error(header.error());
  if (bytes.size() <= kMapHeaderBytes + kPiecePrefixBytes) return;
  const MutableBytes piece = MutableBytes(bytes).subspan(kMapHeaderBytes);
  if (fix) {
    const Le32 crc(crc32c(piece.subspan(24), crc32c(piece.first(20))));
    std::memcpy(piece.data() + 20, &crc, sizeof(crc));
  }
  const PiecePointer pointer{.object = id,
                             .offset = kMapHeaderBytes,
                             .stored = static_cast<uint32_t>(piece.size()),
                             .logical = wire_read<Le32>(piece.subspan(8)) % 70'000,
                             .number = 0};
  if (!check(pointer).empty()) return;
  const Result<PieceReader> reader =
      PieceReader::create(seal, id, header ? header->salt : ObjectSalt());
  const Result<ByteVector> plain = reader->open({.kind = kind, .page = 0}, pointer, piece);
  if (!plain) return check_error(plain.error());
  promise(plain->size() == pointer.logical, "a piece has the size that it should have");
}

void run(FuzzInput input) {
  const uint8_t what = input.byte() % 6;
  const uint8_t choice = input.byte();
  if (what == 5) return changed_object(choice % 2 == 0, input);
  const std::string rest = input.take(SIZE_MAX);
  const Bytes bytes = std::as_bytes(std::span(rest));
  const uint64_t blocks = kSizes[choice % std::size(kSizes)];
  if (what == 0) return leaf(blocks, bytes.first(std::min<size_t>(bytes.size(), 10'000)));
  if (what == 1) return map_page(blocks, choice / 4U, bytes);
  if (what == 2) return table_page(choice % 20U, bytes);
  if (what == 3) return root(bytes);
  constexpr PieceKind kKinds[] = {PieceKind::kRoot, PieceKind::kMapPage, PieceKind::kTablePage};
  object(kKinds[choice / 2U % 3U], choice % 2 == 0, {bytes.begin(), bytes.end()});
}

}  // namespace
}  // namespace usbd::objstore

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  usbd::objstore::run(FuzzInput({data, size}));
  return 0;
}
