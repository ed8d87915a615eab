// SPDX-License-Identifier: Apache-2.0
//
// How much may be on its way from the store at once: calls, and the memory that their answers take.
// Who finds no room waits in a line, so that a large request is not overtaken for ever.

#pragma once

#include <algorithm>
#include <coroutine>
#include <cstdint>

#include "usbd/loop.h"

namespace usbd::objstore {

/// Threads: one loop's.
class FetchBudget {
 public:
  FetchBudget(uint64_t bytes_max, unsigned calls_max)
      : bytes_max_(bytes_max), calls_max_(calls_max) {}

  /// A place for one call, given back when it is gone.
  class Lease {
   public:
    Lease(FetchBudget& owner, uint64_t bytes) : owner_(owner), bytes_(bytes) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { owner_.give_back(bytes_); }

   private:
    FetchBudget& owner_;
    const uint64_t bytes_;
  };

  /// Awaitable: a Lease, when there is room. What is larger than all of it gets all of it.
  auto take(uint64_t bytes) {
    struct Awaiter {
      FetchBudget& owner;
      Waiter waiter;
      bool await_ready() {
        if (owner.first_ != nullptr || !owner.has_room(waiter.bytes)) return false;
        owner.account(waiter.bytes);
        return true;
      }
      void await_suspend(std::coroutine_handle<> handle) {
        waiter.resume.handle = handle;
        (owner.first_ == nullptr ? owner.first_ : owner.last_->next) = &waiter;
        owner.last_ = &waiter;
      }
      [[nodiscard]] Lease await_resume() { return Lease(owner, waiter.bytes); }
    };
    return Awaiter{*this, Waiter{.bytes = std::min(bytes, bytes_max_), .resume = {}}};
  }

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] unsigned calls() const { return calls_; }

 private:
  struct Waiter {
    uint64_t bytes = 0;
    ResumeWork resume;
    Waiter* next = nullptr;
  };

  [[nodiscard]] bool has_room(uint64_t bytes) const {
    return calls_ < calls_max_ && bytes <= bytes_max_ - bytes_;
  }
  void account(uint64_t bytes) {
    bytes_ += bytes;
    ++calls_;
  }
  void give_back(uint64_t bytes) {
    bytes_ -= bytes;
    --calls_;
    while (first_ != nullptr && has_room(first_->bytes)) {
      Waiter* const next = first_;
      account(next->bytes);
      first_ = next->next;
      Loop::current().post(next->resume);
    }
  }

  const uint64_t bytes_max_;
  const unsigned calls_max_;
  uint64_t bytes_ = 0;
  unsigned calls_ = 0;
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

}  // namespace usbd::objstore
