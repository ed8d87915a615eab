// SPDX-License-Identifier: Apache-2.0
//
// RecordMemory: the buffers of records, in sizes of powers of two blocks of payload. Under load the
// same few go round, so that no record pays for pages that the system has to clear first. What is
// free beyond a limit goes back to the system, and all of it when there is nothing to do.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "journal/format.h"
#include "usbd/buffer.h"

namespace usbd::journal {

/// Pages from the system, which get them back: what a heap holds free is not free for others.
class RecordBuffer {
 public:
  /// Contents are zeros. Range: `size` is a multiple of kBlock.
  explicit RecordBuffer(size_t size);
  ~RecordBuffer();
  RecordBuffer(const RecordBuffer&) = delete;
  RecordBuffer& operator=(const RecordBuffer&) = delete;

  [[nodiscard]] MutableBytes bytes() const { return memory_; }
  [[nodiscard]] size_t size() const { return memory_.size(); }

 private:
  MutableBytes memory_;
};

/// Threads: any, at the same time; buffers may outlive it.
class RecordMemory {
 public:
  /// `free_bytes_max`: of free buffers that are kept. Units: bytes.
  explicit RecordMemory(uint64_t free_bytes_max)
      : free_(std::make_shared<Free>()), free_bytes_max_(free_bytes_max) {}

  /// A buffer for a header of any size and `payload_blocks` blocks behind it, or more of them.
  /// Contents are not initialised. It comes back by itself when nobody has it any more.
  /// Range: payload_blocks <= kPayloadBlocksMax.
  [[nodiscard]] std::shared_ptr<RecordBuffer> take(uint32_t payload_blocks);

  /// Gives everything that is free back to the system.
  void trim();

  /// Units: bytes.
  [[nodiscard]] uint64_t free_bytes() const;

 private:
  static constexpr size_t kSizes = 9;
  static_assert(1U << (kSizes - 1) == kPayloadBlocksMax);
  struct Free {
    Mutex mutex;
    std::array<std::vector<std::unique_ptr<RecordBuffer>>, kSizes> of_size USBD_GUARDED_BY(mutex);
    uint64_t bytes USBD_GUARDED_BY(mutex) = 0;
  };

  std::shared_ptr<Free> free_;
  const uint64_t free_bytes_max_;
};

}  // namespace usbd::journal
