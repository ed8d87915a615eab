// SPDX-License-Identifier: Apache-2.0
//
// VolumeImage: a volume as its head publishes it, read and never changed: where each block is, and
// what is known of each data object. It is the last checkpoint, if there is one, and the
// directories of the data objects behind it (docs/formats/checkpoint.md, data-object.md).
//
// What cannot be read does not end it: who loads it is told, and what is known of the rest stands.
// Blocks whose place is not known any more count as uncertain.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "devices/objstore/block_map.h"
#include "devices/objstore/checkpoint.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/head.h"
#include "devices/objstore/object_table.h"
#include "objects/object_store.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objstore {

/// Where a volume is read from. Lifetime: store and key outlive who uses this.
struct ImagePlace {
  ImagePlace(objects::ObjectStore& object_store, std::string volume_name, Bytes volume_key)
      : store(&object_store), volume(std::move(volume_name)), key(volume_key) {}

  objects::ObjectStore* store;
  /// The prefix of its names.
  std::string volume;
  /// Empty if the volume is not encrypted.
  Bytes key;
  /// For each call to the store.
  objects::CallLimits limits = {};
};

/// A directory, and how large its object is.
struct FetchedDirectory {
  Directory directory;
  uint64_t object_bytes = 0;
};
/// Reads the directory of a data object from its end.
/// Errors: as parse_tail() and ObjectStore::get; the context names the object.
Task<Result<FetchedDirectory>> fetch_directory(ImagePlace place, VolumeSeal seal, ObjectId id);

/// Blocks, as ranges that neither overlap nor touch.
class BlockSet {
 public:
  void add(BlockRange range);
  void remove(BlockRange range);
  [[nodiscard]] std::vector<BlockRange> within(BlockRange range) const;
  [[nodiscard]] bool empty() const { return ranges_.empty(); }

 private:
  /// From the first block of each to the one behind its last.
  std::map<uint64_t, uint64_t> ranges_;
};

/// A part of the volume's description that cannot be read.
struct LostPart {
  /// The name of its object.
  std::string object = {};
  Error error = Error(Errc::kIo);
  /// Where blocks may be elsewhere than the image says.
  BlockRange blocks = {};
};

/// What is known of a data object, whether from the checkpoint or from its own directory.
struct ImageObject {
  ObjectFacts facts = {};
  /// Blocks that the map points at.
  uint64_t live = 0;
  /// None: only the object itself knows.
  std::optional<uint32_t> extents = {};
  /// Its directory could not be read.
  bool lost = false;

  [[nodiscard]] uint64_t live_bytes() const {
    return facts.blocks == 0 ? 0 : facts.stored_bytes * live / facts.blocks;
  }
};

/// Threads: one loop's.
class VolumeImage {
 public:
  /// Told of each part that cannot be read.
  using OnLost = std::function<void(const LostPart&)>;

  /// Reads the image that `head` names. An empty `on_lost`: the first part that cannot be read ends
  /// it with that error.
  /// Lifetime: place and `on_lost` until the task has finished.
  /// Errors:   kInvalid: the head names more objects than a volume has, or a larger size;
  ///           kTimedOut, kAgain, kAccess, kCanceled: of the store, which say nothing of the
  ///           object.
  static Task<Result<std::unique_ptr<VolumeImage>>> load(ImagePlace place, Head head,
                                                         OnLost on_lost);

  [[nodiscard]] const Head& head() const { return head_; }
  /// None: there is no checkpoint, or it cannot be read.
  [[nodiscard]] const std::optional<CheckpointRoot>& root() const { return root_; }
  [[nodiscard]] const BlockMap& map() const { return *map_; }
  [[nodiscard]] VolumeSeal seal() const {
    return {.volume = head_.volume, .cipher = head_.cipher, .key = place_.key};
  }

  /// All slots that mean an object are below it; the first is not used.
  [[nodiscard]] uint32_t slots_end() const { return static_cast<uint32_t>(objects_.size()); }
  /// nullptr: the slot means no object.
  [[nodiscard]] const ImageObject* object(uint32_t slot) const;
  /// 0: the image does not know it.
  [[nodiscard]] uint32_t find(const ObjectId& id) const;
  /// Blocks of which a part that was lost may have said something else.
  [[nodiscard]] const BlockSet& uncertain() const { return uncertain_; }

 private:
  VolumeImage(ImagePlace place, Head head, OnLost on_lost);
  [[nodiscard]] BlockRange all_blocks() const { return {0, map_->blocks()}; }
  /// Takes note, or returns the error if nobody wants to go on.
  Result<void> lose(LostPart part);
  Task<Result<void>> read_checkpoint();
  Task<Result<void>> read_pages_one_by_one();
  Task<Result<std::vector<std::byte>>> read_page(PageRef ref, PieceKind kind);
  Task<Result<void>> read_map_page(PageRef ref, BlockMap& map);
  Task<Result<void>> read_table_page(PageRef ref, ObjectTable& table);
  void adopt(const ObjectTable& table);
  Task<Result<void>> read_directories();
  Task<void> read_directory(uint64_t seq, std::optional<Result<FetchedDirectory>>& out);
  Result<void> take(const ObjectId& id, const Result<FetchedDirectory>& fetched);
  Task<void> count_live();

  ImagePlace place_;
  Head head_;
  OnLost on_lost_;
  std::optional<CheckpointRoot> root_;
  std::unique_ptr<BlockMap> map_;
  /// By slot.
  std::vector<ImageObject> objects_;
  /// Behind the slots of the checkpoint: the objects behind it, in order.
  uint32_t first_later_ = 1;
  std::map<ObjectId, uint32_t> slots_;
  BlockSet uncertain_;
};

}  // namespace usbd::objstore
