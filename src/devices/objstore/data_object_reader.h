// SPDX-License-Identifier: Apache-2.0
//
// Reading a data object without reading all of it: its end holds a footer and, unless there are
// very many extents, the whole directory; the directory says where each frame is. What is read
// belongs to the object that was asked for, whole and as it was sealed, or it is an error.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/limits.h"
#include "devices/objstore/data_object.h"

namespace usbd::objstore {

/// The plain header from the first bytes of an object, which say what it claims to be; only its
/// Directory proves that. For people who look at a bucket, and to compare the two.
/// Errors: kDamaged (not a data object, or damaged), kNotSupported (of a later version).
Result<ObjectHeader> parse_header(Bytes start);

class Directory {
 public:
  [[nodiscard]] const ObjectHeader& header() const { return header_; }
  [[nodiscard]] uint64_t first_write() const { return contents_.first_write; }
  [[nodiscard]] uint64_t last_write() const { return contents_.last_write; }
  /// In the order of the writes: of two that cover a block the later one counts.
  [[nodiscard]] const std::vector<Extent>& extents() const { return contents_.extents; }
  /// As many as extents, or none if the object is not of garbage collection.
  [[nodiscard]] const std::vector<Source>& sources() const { return contents_.sources; }
  [[nodiscard]] const std::vector<FrameInfo>& frames() const { return contents_.frames; }

  /// The blocks of frame number `index` from its stored bytes, which frames()[index].range() names.
  /// Range:   index < frames().size(); `plain` has its logical bytes; asserted.
  /// Threads: any, at the same time.
  /// Errors:  as FrameOpener::open().
  Result<void> open_frame(uint32_t index, Bytes stored, MutableBytes plain) const;
  /// The same for who keeps the FrameInfo elsewhere. Lifetime: it may outlive the Directory.
  [[nodiscard]] std::shared_ptr<const FrameOpener> opener() const { return opener_; }

 private:
  friend class TailParser;
  Directory(const ObjectHeader& header, DirectoryContents contents,
            std::shared_ptr<const FrameOpener> opener)
      : header_(header), contents_(std::move(contents)), opener_(std::move(opener)) {}

  ObjectHeader header_;
  DirectoryContents contents_;
  std::shared_ptr<const FrameOpener> opener_;
};

/// The directory; or, if it is not all in the given bytes, the range of the object to ask for,
/// which ends at the object's end: then call again with that.
struct Tail {
  std::optional<Directory> directory;
  ByteRange missing;
};

/// Reads the directory from the last bytes of an object of `object_bytes` bytes: kObjectTailBytes
/// of them are usually enough. Asks for more once or twice at most.
/// Range:  `tail` is at most the object, asserted.
/// Errors: kDamaged (no data object, damaged, truncated, extended; or another object than `id`,
///         or of another volume), kAccess (the key is another one, or somebody changed it, or it is
///         sealed with another cipher than the volume), kNotSupported (of a later version).
Result<Tail> parse_tail(const VolumeSeal& seal, const ObjectId& id, Bytes tail,
                        uint64_t object_bytes);

}  // namespace usbd::objstore
