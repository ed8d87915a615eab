// SPDX-License-Identifier: Apache-2.0
//
// Memory for the payloads of requests whose device has no direct memory. The Budget bounds what all
// connections hold together; a BufferPool, one per loop, keeps freed buffers for the next request.
//
// Who finds the budget used up waits, in a line of those that want about as much (within a factor
// of two). The lines take turns such that each is handed as many bytes as any other. So a small
// request waits for few large ones however many there are, and small ones cannot starve a large
// one: after one large request the next waits until the other lines have been handed as much, and
// no longer. Ref: docs/adr/0009-shared-buffers.md.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/mutex.h"
#include "usbd/loop.h"

namespace usbd {

/// Bytes that may still be handed out. Threads: any.
class Budget {
 public:
  /// A place in a line. `granted` is posted to `loop` when the bytes have been taken for the
  /// waiter.
  struct Waiter {
    uint64_t bytes = 0;
    Loop* loop = nullptr;
    Work* granted = nullptr;
    Waiter* next = nullptr;
  };

  explicit Budget(uint64_t bytes) : total_(bytes), free_(bytes) {}

  /// Takes `bytes`, unless they are not there or somebody waits. Range: at most the total.
  [[nodiscard]] bool try_take(uint64_t bytes);
  /// Puts the waiter in line; true if it was served at once (and is not in line).
  [[nodiscard]] bool take_or_wait(Waiter& waiter);
  /// Leaves the line. False: not in it any more, `granted` has been posted.
  [[nodiscard]] bool stop_waiting(Waiter& waiter);
  void give(uint64_t bytes);

  [[nodiscard]] uint64_t total() const { return total_; }
  /// How many wait.
  [[nodiscard]] size_t waiting() const;
  [[nodiscard]] uint64_t free() const;

 private:
  /// Those that want from a power of two to below the next.
  struct Line {
    Waiter* first = nullptr;
    Waiter* last = nullptr;
    /// When its first is served: the line with the lowest goes next, and moves on by what it got.
    /// Units: bytes.
    uint64_t turn = 0;
  };

  [[nodiscard]] Line& line_of(const Waiter& waiter) USBD_REQUIRES(mutex_);
  void join(Waiter& waiter) USBD_REQUIRES(mutex_);
  [[nodiscard]] Line* next_line() USBD_REQUIRES(mutex_);
  [[nodiscard]] Waiter* serve_next() USBD_REQUIRES(mutex_);
  void serve() USBD_REQUIRES(mutex_);

  const uint64_t total_;
  mutable Mutex mutex_;
  uint64_t free_ USBD_GUARDED_BY(mutex_);
  std::array<Line, 64> lines_ USBD_GUARDED_BY(mutex_);
  size_t waiting_ USBD_GUARDED_BY(mutex_) = 0;
  /// The turn that was served last; a line in which nobody waited has no claim to older ones.
  uint64_t turn_ USBD_GUARDED_BY(mutex_) = 0;
};

/// Threads: one loop's.
class BufferPool {
 public:
  /// A buffer on loan; gives buffer and budget back when destroyed. Lifetime: before its pool.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          buffer_(std::move(other.buffer_)),
          length_(other.length_),
          reserve_(other.reserve_) {}
    Lease& operator=(Lease&& other) noexcept {
      if (this != &other) {
        reset();
        pool_ = std::exchange(other.pool_, nullptr);
        buffer_ = std::move(other.buffer_);
        length_ = other.length_;
        reserve_ = other.reserve_;
      }
      return *this;
    }
    ~Lease() { reset(); }

    explicit operator bool() const { return pool_ != nullptr; }
    [[nodiscard]] MutableBytes bytes() const { return buffer_.bytes().first(length_); }
    /// Whether its bytes are the budget's, so that others may be waiting for them.
    [[nodiscard]] bool is_shared() const { return pool_ != nullptr && reserve_ == nullptr; }
    void reset();

   private:
    friend BufferPool;
    Lease(BufferPool& pool, AlignedBuffer buffer, size_t length, uint64_t* reserve)
        : pool_(&pool), buffer_(std::move(buffer)), length_(length), reserve_(reserve) {}

    BufferPool* pool_ = nullptr;
    AlignedBuffer buffer_;
    size_t length_ = 0;
    /// What counts it, if it does not come from the budget.
    uint64_t* reserve_ = nullptr;
  };

  explicit BufferPool(Budget& budget) : budget_(budget) {}

  /// What a buffer for `length` bytes takes from the budget.
  [[nodiscard]] static uint64_t cost(size_t length) { return size_of(class_of(length)); }
  /// A buffer of `length` bytes, not initialised; empty if the budget does not have it.
  [[nodiscard]] Lease try_lease(size_t length);
  /// The same for a caller that has taken cost(length) from the budget.
  [[nodiscard]] Lease lease_paid(size_t length);
  /// The same for a caller that has a reserve of its own beside the budget: cost(length) is added
  /// to `used`, and taken off when the buffer is given back. Lifetime: `used` outlives the lease.
  [[nodiscard]] Lease lease_reserved(size_t length, uint64_t& used);
  [[nodiscard]] Budget& budget() { return budget_; }

 private:
  static constexpr size_t kSmallest = 4096;
  static constexpr size_t kClasses = 14;  // 4 KiB to 32 MiB
  /// Freed buffers that are kept per loop. Units: bytes.
  static constexpr size_t kKeptMax = 8U << 20;

  static size_t class_of(size_t length);
  static constexpr size_t size_of(size_t size_class) { return kSmallest << size_class; }
  AlignedBuffer take(size_t length);
  void give_back(AlignedBuffer buffer, uint64_t* reserve);

  Budget& budget_;
  std::array<std::vector<AlignedBuffer>, kClasses> free_;
  size_t kept_ = 0;
};

}  // namespace usbd
