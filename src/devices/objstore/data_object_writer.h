// SPDX-License-Identifier: Apache-2.0
//
// DataObjectWriter: makes one data object. Extents are added in the order of the writes; a frame is
// compressed and sealed as soon as it is full, at its place in the object, so that the object and
// one frame are all the memory there is to it. The same calls with the same salt give the same
// bytes.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/objstore/data_object.h"

namespace usbd::objstore {

namespace layout {
struct Footer;
}  // namespace layout

class DataObjectWriter {
 public:
  struct Facts {
    ObjectId id = {};
    /// From the system's entropy, for this object alone, and for this sealing of it: to make the
    /// same object again with other contents and the same salt gives the contents of both away.
    ObjectSalt salt{};
    codec::Codec codec = {};
    uint64_t first_write = 0;
    uint64_t last_write = 0;
  };

  /// Range:  first_write <= last_write, asserted.
  /// Errors: kInvalid (the key's size), kNotSupported (the installed OpenSSL lacks the cipher).
  static Result<DataObjectWriter> create(const VolumeSeal& seal, const Facts& facts);

  /// Reserves memory for an object of so much. Range: within the limits, asserted; nothing was
  /// added.
  void expect(uint64_t extents, uint64_t data_blocks);

  /// Whether one more extent of so many data blocks is within the limits of an object.
  [[nodiscard]] bool has_room(uint64_t data_blocks) const;

  /// Adds the blocks from `block` on. Compresses and seals every frame that gets full by it.
  /// Range:   whole blocks, at least one, below kBlockEnd; has_room(); asserted. Blocks that the
  ///          object has already are the caller's to leave out: readers take the last.
  /// Threads: one at a time; as for all of this class.
  /// Returns: where they are.
  Position add_data(uint64_t block, Bytes data);
  /// The same for an object of garbage collection, and only for one; asserted.
  Position add_moved(uint64_t block, Bytes data, const Source& source);
  /// Adds blocks without data. Range: `kind` is not kData; the rest as of add_data().
  void add_empty(uint64_t block, uint32_t blocks, ExtentKind kind);

  /// That are sealed; after finish(): all.
  [[nodiscard]] uint32_t frames() const { return static_cast<uint32_t>(contents_.frames.size()); }
  [[nodiscard]] uint32_t extents() const { return static_cast<uint32_t>(contents_.extents.size()); }
  /// The whole object. Called once, last.
  [[nodiscard]] std::vector<std::byte> finish();

  /// The most bytes that an object of so many extents and data blocks can have.
  [[nodiscard]] static uint64_t stored_max(ObjectKind kind, crypto::CipherMode cipher,
                                           uint64_t extents, uint64_t data_blocks);
  /// The most bytes of memory that a writer of it takes until finish() has returned, its result
  /// included, if it was told what to expect(): the object, one frame before and after compression,
  /// and the directory as it is made, packed and added.
  [[nodiscard]] static uint64_t memory_max(ObjectKind kind, crypto::CipherMode cipher,
                                           uint64_t extents, uint64_t data_blocks) {
    return stored_max(kind, cipher, extents, data_blocks) + 4 * kFrameBytes +
           4 * stored_max(kind, cipher, extents, 0);
  }

  /// The extents as readers will see them.
  [[nodiscard]] const std::vector<Extent>& extent_list() const { return contents_.extents; }

 private:
  DataObjectWriter(const VolumeSeal& seal, const Facts& facts,
                   std::unique_ptr<const crypto::Sealer> sealer);
  Position add(uint64_t block, Bytes data);
  void add_extent(uint64_t block, uint64_t blocks, ExtentKind kind);
  void seal_frame(Bytes plain);
  /// `plain`, compressed if that gains enough, behind what there is, with room for a tag.
  MutableBytes pack(Bytes plain, codec::CodecKind& used);
  /// Fills the footer too.
  void add_directory(layout::Footer& footer);

  ObjectHeader header_;
  codec::Codec codec_;
  std::unique_ptr<const crypto::Sealer> sealer_;
  /// Of the frame that is not full yet.
  std::vector<std::byte> partial_;
  /// Header (filled last), then the frames that are sealed.
  std::vector<std::byte> object_;
  DirectoryContents contents_;
};

}  // namespace usbd::objstore
