// SPDX-License-Identifier: Apache-2.0
//
// RangeLocks: keeps overlapping changes of one device apart. Every write, trim and zeroing holds
// the range it changes, from before it starts until it is done; one that overlaps waits for the
// earlier. This one table gives three promises:
// - overlapping writes that are in flight together never mix;
// - read-modify-write of a block (a client writes less than the device's own unit) is atomic,
//   because what is held is rounded out to whole blocks;
// - a request that a kernel has sent again on another socket (its first copy may still sit unread
//   in the old one) is never followed by its own first copy: see frontends/nbd/session.h.
//
// A range is held by value: nothing points at its holder. The
// exception is a Loan: its holder may keep it for long (a client's payload is under way, straight
// into the device's memory), so it is asked to give the range back as soon as another wants it.

#pragma once

#include <coroutine>
#include <cstddef>
#include <span>
#include <vector>

#include "base/mutex.h"
#include "usbd/buffer.h"
#include "usbd/loop.h"

namespace usbd {

/// Threads: any.
class RangeLocks {
 public:
  /// A range that is wanted, and whether it is held.
  struct Claim {
    ByteRange range;
    bool held = false;
  };

  /// A held range that its holder gives back when it is asked.
  struct Loan {
    ByteRange range;
    Loop* loop = nullptr;
    /// Posted to `loop`, at most once for each time the range is taken, when something waits.
    Work* wanted = nullptr;
    bool held = false;

   private:
    friend class RangeLocks;
    bool asked_ = false;
  };

  /// Takes every range of `claims` that nothing held or waited for overlaps (an earlier one of the
  /// same batch counts too), and sets `held` in those. Never waits.
  void try_acquire(std::span<Claim> claims);
  /// Gives up those of `claims` that are held, and clears `held`.
  void release(std::span<Claim> claims);
  void release(ByteRange range);

  /// Takes loan.range if nothing held or waited for overlaps it, and sets `loan.held`.
  /// Lifetime: `loan` stays where it is until it is given back.
  void try_acquire(Loan& loan);
  /// True: `loan.wanted` has been posted. It may not have run yet, and then runs later.
  [[nodiscard]] bool give_back(Loan& loan);

  /// Awaitable: takes `range`, after everything that overlaps it and came earlier.
  /// Threads: on a loop; resumes there.
  auto acquire(ByteRange range) { return Awaiter{*this, range}; }

  /// For tests: how many ranges are held.
  [[nodiscard]] size_t held_count() const;

 private:
  struct Waiter {
    Loop* loop = nullptr;
    ResumeWork resume;
  };
  /// A range that is waited for. `blockers`: how many ranges that overlap it are held, or have been
  /// waited for longer. Whatever overlaps it and comes later waits behind it, so each of them is
  /// given up while this one waits.
  struct Waiting {
    ByteRange range;
    size_t blockers;
    Waiter* waiter;
  };
  struct Awaiter : Waiter {
    Awaiter(RangeLocks& l, ByteRange r) : locks(l), range(r) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> handle) {
      loop = &Loop::current();
      resume.handle = handle;
      return locks.enqueue(*this, range);
    }
    void await_resume() const noexcept {}
    RangeLocks& locks;
    ByteRange range;
  };

  /// Takes the range at once (false) or queues the waiter (true).
  bool enqueue(Waiter& waiter, ByteRange range);
  [[nodiscard]] size_t first_ending_after(uint64_t offset) const USBD_REQUIRES(mutex_);
  [[nodiscard]] size_t blockers_of(ByteRange range) const USBD_REQUIRES(mutex_);
  void insert(ByteRange range) USBD_REQUIRES(mutex_);
  void erase(ByteRange range) USBD_REQUIRES(mutex_);
  void grant_waiters(ByteRange released) USBD_REQUIRES(mutex_);
  void ask_back(ByteRange range) USBD_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<ByteRange> held_ USBD_GUARDED_BY(mutex_);   // disjoint, in order of offset
  std::vector<Loan*> loans_ USBD_GUARDED_BY(mutex_);      // those in held_
  std::vector<Waiting> waiting_ USBD_GUARDED_BY(mutex_);  // in order of arrival
};

}  // namespace usbd
