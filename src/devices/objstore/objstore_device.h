// SPDX-License-Identifier: Apache-2.0
//
// ObjstoreDevice: a Volume as a Device. The engine knows whole blocks of 4 KiB; what is smaller
// (volumes with a logical block size of 512, and the last block of those whose size is no multiple
// of 4 KiB) is read, modified and written here, each block held meanwhile, because core keeps apart
// only what overlaps. Beyond the end of the volume its last block is zeros.
//
// The device owns what the engine is lent, and looks after the engine: it notices that the volume
// was taken over, and says while it is closed how much is still to be published. README.md here has
// the operations and what each promises.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "async/folder.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/mutex.h"
#include "base/random.h"
#include "core/range_locks.h"
#include "crypto/secret.h"
#include "devices/objstore/volume.h"
#include "objects/object_store.h"
#include "usbd/device.h"

namespace usbd::objstore {

class ObjstoreDevice final : public Device {
 public:
  /// What the device is opened with, and owns.
  struct Parts {
    std::unique_ptr<Rng> rng = nullptr;
    std::unique_ptr<objects::ObjectStore> store = nullptr;
    /// For journal, cache and map. Null only if read-only.
    std::unique_ptr<Folder> folder = nullptr;
    /// The volume's key; empty if it is not encrypted.
    crypto::Secret key = {};
    /// Where what is read is opened; null: on the device's loop. Lifetime: outlives the device.
    WorkerPool* workers = nullptr;
  };
  /// How it ended.
  enum class Ending : uint8_t {
    kPublished,    ///< All is in the store, and the head says so.
    kUnpublished,  ///< The journal is still needed.
    kTakenOver,    ///< Another process owns the volume; the journal is kept.
  };

  /// Opens the volume, or makes it. All that goes on in the background does so on this loop.
  /// Errors: as Volume::open(). The store is closed then.
  static Task<Result<std::unique_ptr<ObjstoreDevice>>> open(Parts parts, VolumeOptions options);
  ~ObjstoreDevice() override;

  [[nodiscard]] std::string name() const override { return "objstore:" + options_.name; }
  [[nodiscard]] Geometry geometry() const override { return geometry_; }
  [[nodiscard]] Capabilities capabilities() const override;

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override;
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override;
  /// Durable: with fua, as flush(). Errors: also kPerm: the volume was taken over; kShutdown.
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override;
  /// Durable: on the local journal, or in the store, as the volume's flush mode says.
  /// Errors:  kIo; kPerm: taken over; kTimedOut: the store did not answer in time (remote mode).
  Task<Result<void>> flush() override;
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override;
  /// Nothing can be kept allocated in a log, so no_hole changes nothing.
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override;
  Task<Result<std::vector<usbd::Extent>>> extents(ByteRange range, size_t extents_max) override;
  /// Publishes everything; until hurry(), for as long as it takes, and says in the log how far it
  /// is.
  /// Errors: kAgain: unpublished data is kept in the journal; kPerm: taken over.
  Task<Result<void>> close() override;

  /// Has the device give up waiting for the store: calls that wait fail, and what is not published
  /// stays in the journal. close() is still to be called. Threads: any.
  void hurry();
  /// Has `function` called, once, when the volume has been taken over: nothing works any more.
  /// Threads: any; `function` is called from any thread, also from within this call.
  void on_taken_over(std::function<void()> function);

  /// Units: bytes written and not yet in the store, as of a moment ago. Threads: any.
  [[nodiscard]] uint64_t unpublished_bytes() const { return unpublished_bytes_; }
  /// Range: after close().
  [[nodiscard]] Ending ending() const { return ending_; }
  [[nodiscard]] const VolumeId& volume_id() const { return volume_id_; }
  /// Volume::created().
  [[nodiscard]] bool created() const { return volume_->created(); }

 private:
  /// A range taken apart: whole blocks, and the parts of blocks before and after them.
  struct Pieces {
    ByteRange before;
    BlockRange whole{0, 0};
    ByteRange after;
  };

  ObjstoreDevice(Parts parts, VolumeOptions options);

  void adopt(std::unique_ptr<Volume> volume);
  void check(ByteRange range) const;
  [[nodiscard]] Pieces take_apart(ByteRange range) const;
  /// The bytes of the volume that lie in this block.
  [[nodiscard]] ByteRange bytes_of(uint64_t block) const;
  Task<Result<void>> read_part(ByteRange part, MutableBytes data);
  /// Puts `data` (zeros if empty) into the one block that has `part`.
  Task<Result<void>> modify_block(ByteRange part, Bytes data);
  Task<Result<void>> modify_held_block(ByteRange part, Bytes data);
  Task<Result<void>> clear(ByteRange range, ExtentKind kind, bool fua);
  Task<Result<void>> flush_if(bool fua);
  Task<void> watch();
  Task<void> report_closing();
  void look();
  void tell_taken_over();
  Task<Result<void>> close_at_home();

  Parts parts_;
  const VolumeOptions options_;
  Loop& home_;
  Geometry geometry_;
  VolumeId volume_id_{};
  std::unique_ptr<Volume> volume_;
  /// Blocks of which a part is being changed.
  RangeLocks locks_;

  Scope scope_;
  std::stop_source watched_;
  std::stop_source closed_;
  std::stop_source hurry_;
  std::atomic<uint64_t> unpublished_bytes_{0};
  bool journal_failure_told_ = false;
  bool given_up_ = false;
  std::atomic<Ending> ending_{Ending::kPublished};

  Mutex mutex_;
  bool taken_over_ USBD_GUARDED_BY(mutex_) = false;
  std::function<void()> on_taken_over_ USBD_GUARDED_BY(mutex_);
};

}  // namespace usbd::objstore
