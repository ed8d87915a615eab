// SPDX-License-Identifier: Apache-2.0
//
// A frame is a plain buffer until it is sealed, and a sealed one after that. Its place in the
// object is known only when all frames before it are sealed, so it is not part of what is sealed.

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

/// `plain`, compressed if that gains enough, with room for a tag behind.
std::vector<std::byte> packed_with_room(const codec::Codec& codec, Bytes plain, size_t tag_size,
                                        codec::CodecKind& used) {
  std::optional<std::vector<std::byte>> packed = codec::compress(codec, plain);
  used = packed ? codec.kind : codec::CodecKind::kIdentity;
  std::vector<std::byte> bytes;
  bytes.reserve((packed ? packed->size() : plain.size()) + tag_size);
  append(bytes, packed ? Bytes(*packed) : plain);
  bytes.resize(bytes.size() + tag_size);
  return bytes;
}

void seal_in_place(const crypto::Sealer& sealer, uint64_t index, Bytes binding,
                   std::vector<std::byte>& bytes) {
  const MutableBytes all(bytes);
  const MutableBytes text = all.first(all.size() - sealer.tag_size());
  sealer.seal(index, {binding}, text, text, all.last(sealer.tag_size()));
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
      sealer_(std::move(sealer)) {
  contents_.first_write = facts.first_write;
  contents_.last_write = facts.last_write;
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
    if (frames_.empty() || frames_.back().plain.size() == kFrameBytes) {
      frames_.emplace_back().plain.reserve(std::min<size_t>(kFrameBytes, data.size()));
    }
    std::vector<std::byte>& frame = frames_.back().plain;
    const size_t size = std::min(data.size(), kFrameBytes - frame.size());
    append(frame, data.first(size));
    data = data.subspan(size);
  }
  return contents_.extents.back().position;
}

void DataObjectWriter::add_extent(uint64_t block, uint64_t blocks, ExtentKind kind) {
  USBD_ASSERT(blocks > 0);
  USBD_ASSERT(block < kBlockEnd);
  USBD_ASSERT(blocks <= kBlockEnd - block);
  USBD_ASSERT(has_room(0));
  USBD_ASSERT(contents_.frames.empty());  // none is sealed yet
  const bool data = kind == ExtentKind::kData;
  contents_.extents.push_back(
      {.block = block,
       .blocks = static_cast<uint32_t>(blocks),
       .kind = kind,
       .position = {data ? static_cast<uint32_t>(header_.data_blocks) : 0}});
}

void DataObjectWriter::seal_frame(uint32_t index) {
  Frame& frame = frames_.at(index);
  USBD_ASSERT(!frame.plain.empty());  // not sealed before
  frame.info.logical = static_cast<uint32_t>(frame.plain.size());
  frame.sealed = packed_with_room(codec_, frame.plain, sealer_->tag_size(), frame.info.codec);
  frame.info.stored = static_cast<uint32_t>(frame.sealed.size());
  std::vector<std::byte>().swap(frame.plain);
  const layout::FrameBinding binding = layout::bind(header_.volume, header_.id, index, frame.info);
  seal_in_place(*sealer_, index, wire_bytes(binding), frame.sealed);
  frame.info.crc = crc32c(frame.sealed);
}

std::vector<std::byte> DataObjectWriter::finish() {
  uint64_t offset = sizeof(layout::Header);
  for (uint32_t i = 0; i < frames(); ++i) {
    if (frames_[i].sealed.empty()) seal_frame(i);
    frames_[i].info.offset = offset;
    offset += frames_[i].info.stored;
    contents_.frames.push_back(frames_[i].info);
  }
  header_.frames = frames();
  header_.extents = extents();
  layout::Footer footer{};
  footer.facts.header = layout::encode(header_);
  footer.facts.directory_offset = offset;
  const std::vector<std::byte> directory = sealed_directory(footer);

  std::vector<std::byte> object;
  object.reserve(footer.facts.object_bytes);
  append(object, wire_bytes(footer.facts.header));
  for (Frame& frame : frames_) {
    append(object, frame.sealed);
    std::vector<std::byte>().swap(frame.sealed);
  }
  append(object, directory);
  append(object, wire_bytes(footer));
  USBD_ASSERT(object.size() == footer.facts.object_bytes);
  return object;
}

std::vector<std::byte> DataObjectWriter::sealed_directory(layout::Footer& footer) const {
  const std::vector<std::byte> plain = layout::encode(contents_);
  codec::CodecKind used{};
  std::vector<std::byte> sealed = packed_with_room(codec_, plain, sealer_->tag_size(), used);
  footer.facts.directory_plain = static_cast<uint32_t>(plain.size());
  footer.facts.directory_stored = static_cast<uint32_t>(sealed.size());
  footer.facts.directory_codec = static_cast<uint8_t>(used);
  footer.facts.object_bytes =
      footer.facts.directory_offset + sealed.size() + sizeof(layout::Footer);
  seal_in_place(*sealer_, layout::kDirectoryIndex, wire_bytes(footer.facts), sealed);
  footer.directory_crc = crc32c(sealed);
  footer.magic = layout::kFooterMagic;
  footer.crc = crc32c(wire_bytes(footer).first(offsetof(layout::Footer, crc)));
  return sealed;
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
