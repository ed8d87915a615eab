// SPDX-License-Identifier: Apache-2.0
//
// What is behind a frame in the object is not known when it is sealed, so it is not part of what is
// sealed; the header, which counts everything, is filled in at the end.

#include "devices/objstore/data_object_writer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "devices/objstore/data_object_layout.h"

namespace usbd::objstore {
namespace {

void append(std::vector<std::byte>& to, Bytes bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void seal_in_place(const crypto::Sealer& sealer, uint64_t index, Bytes binding,
                   MutableBytes with_tag) {
  const MutableBytes text = with_tag.first(with_tag.size() - sealer.tag_size());
  sealer.seal(index, {binding}, text, text, with_tag.last(sealer.tag_size()));
}

}  // namespace

Result<DataObjectWriter> DataObjectWriter::create(const VolumeSeal& seal, const Facts& facts) {
  USBD_ASSERT(facts.first_write <= facts.last_write);
  USBD_TRY(std::unique_ptr<const crypto::Sealer> sealer,
           layout::make_object_sealer(seal, facts.id, facts.salt));
  return DataObjectWriter(seal, facts, std::move(sealer));
}

DataObjectWriter::DataObjectWriter(const VolumeSeal& seal, const Facts& facts,
                                   std::unique_ptr<const crypto::Sealer> sealer)
    : header_{.volume = seal.volume,
              .id = facts.id,
              .salt = facts.salt,
              .cipher = seal.cipher,
              .codec = facts.codec.kind},
      codec_(facts.codec),
      sealer_(std::move(sealer)),
      object_(sizeof(layout::Header)) {
  contents_.first_write = facts.first_write;
  contents_.last_write = facts.last_write;
}

void DataObjectWriter::expect(uint64_t extents, uint64_t data_blocks) {
  USBD_ASSERT(contents_.extents.empty());
  object_.reserve(stored_max(header_.id.kind, header_.cipher, extents, data_blocks));
  contents_.extents.reserve(extents);
}

bool DataObjectWriter::has_room(uint64_t data_blocks) const {
  return contents_.extents.size() < limits::kObjectExtentsMax &&
         data_blocks <= limits::kObjectBlocksMax - header_.data_blocks;
}

Position DataObjectWriter::add_data(uint64_t block, Bytes data) {
  USBD_ASSERT(header_.id.kind == ObjectKind::kData);
  return add(block, data);
}

Position DataObjectWriter::add_moved(uint64_t block, Bytes data, const Source& source) {
  USBD_ASSERT(header_.id.kind == ObjectKind::kGc);
  contents_.sources.push_back(source);
  return add(block, data);
}

void DataObjectWriter::add_empty(uint64_t block, uint32_t blocks, ExtentKind kind) {
  USBD_ASSERT(kind != ExtentKind::kData);
  if (header_.id.kind == ObjectKind::kGc) contents_.sources.emplace_back();
  add_extent(block, blocks, kind);
}

Position DataObjectWriter::add(uint64_t block, Bytes data) {
  USBD_ASSERT(data.size() % kBlockBytes == 0);
  USBD_ASSERT(has_room(data.size() / kBlockBytes));
  add_extent(block, data.size() / kBlockBytes, ExtentKind::kData);
  header_.data_blocks += data.size() / kBlockBytes;
  while (!data.empty()) {
    const size_t size = std::min(data.size(), kFrameBytes - partial_.size());
    if (size == kFrameBytes) {
      seal_frame(data.first(size));
    } else {
      append(partial_, data.first(size));
    }
    data = data.subspan(size);
    if (partial_.size() < kFrameBytes) continue;
    seal_frame(partial_);
    partial_.clear();
  }
  return contents_.extents.back().position;
}

void DataObjectWriter::add_extent(uint64_t block, uint64_t blocks, ExtentKind kind) {
  USBD_ASSERT(blocks > 0);
  USBD_ASSERT(block < kBlockEnd);
  USBD_ASSERT(blocks <= kBlockEnd - block);
  USBD_ASSERT(has_room(0));
  const bool data = kind == ExtentKind::kData;
  contents_.extents.push_back(
      {.block = block,
       .blocks = static_cast<uint32_t>(blocks),
       .kind = kind,
       .position = {data ? static_cast<uint32_t>(header_.data_blocks) : 0}});
}

MutableBytes DataObjectWriter::pack(Bytes plain, codec::CodecKind& used) {
  const size_t start = object_.size();
  const std::optional<std::vector<std::byte>> packed = codec::compress(codec_, plain);
  used = packed ? codec_.kind : codec::CodecKind::kIdentity;
  append(object_, packed ? Bytes(*packed) : plain);
  object_.resize(object_.size() + sealer_->tag_size());
  return MutableBytes(object_).subspan(start);
}

void DataObjectWriter::seal_frame(Bytes plain) {
  const auto index = static_cast<uint32_t>(contents_.frames.size());
  FrameInfo info{.offset = object_.size()};
  const MutableBytes sealed = pack(plain, info.codec);
  info.logical = static_cast<uint32_t>(plain.size());
  info.stored = static_cast<uint32_t>(sealed.size());
  const layout::FrameBinding binding = layout::bind(header_.volume, header_.id, index, info);
  seal_in_place(*sealer_, index, wire_bytes(binding), sealed);
  info.crc = crc32c(sealed);
  contents_.frames.push_back(info);
}

std::vector<std::byte> DataObjectWriter::finish() {
  if (!partial_.empty()) seal_frame(partial_);
  header_.frames = static_cast<uint32_t>(contents_.frames.size());
  header_.extents = extents();
  layout::Footer footer{};
  footer.facts.header = layout::encode(header_);
  footer.facts.directory_offset = object_.size();
  add_directory(footer);
  append(object_, wire_bytes(footer));
  std::ranges::copy(wire_bytes(footer.facts.header), object_.begin());
  USBD_ASSERT(object_.size() == footer.facts.object_bytes);
  return std::move(object_);
}

void DataObjectWriter::add_directory(layout::Footer& footer) {
  const std::vector<std::byte> plain = layout::encode(contents_);
  codec::CodecKind used{};
  const MutableBytes sealed = pack(plain, used);
  footer.facts.directory_plain = static_cast<uint32_t>(plain.size());
  footer.facts.directory_stored = static_cast<uint32_t>(sealed.size());
  footer.facts.directory_codec = static_cast<uint8_t>(used);
  footer.facts.object_bytes = object_.size() + sizeof(layout::Footer);
  seal_in_place(*sealer_, layout::kDirectoryIndex, wire_bytes(footer.facts), sealed);
  footer.directory_crc = crc32c(sealed);
  footer.magic = layout::kFooterMagic;
  footer.crc = crc32c(wire_bytes(footer).first(offsetof(layout::Footer, crc)));
}

uint64_t DataObjectWriter::stored_max(ObjectKind kind, crypto::CipherMode cipher, uint64_t extents,
                                      uint64_t data_blocks) {
  USBD_ASSERT(extents <= limits::kObjectExtentsMax);
  USBD_ASSERT(data_blocks <= limits::kObjectBlocksMax);
  const uint64_t frames = (data_blocks + kFrameBlocks - 1) / kFrameBlocks;
  const size_t directory =
      layout::directory_bytes(kind, static_cast<uint32_t>(extents), static_cast<uint32_t>(frames));
  return sizeof(layout::Header) + data_blocks * kBlockBytes +
         (frames + 1) * crypto::tag_bytes(cipher) + directory + sizeof(layout::Footer);
}

}  // namespace usbd::objstore
