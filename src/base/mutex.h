// SPDX-License-Identifier: Apache-2.0
//
// A mutex, a lock and a condition that clang's thread-safety analysis understands: which member is
// guarded by which mutex is written at the member and checked in the clang preset. The standard
// ones, underneath, carry no such annotations.

#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define USBD_INTERNAL_TSA(x) __attribute__((x))
#else
#define USBD_INTERNAL_TSA(x)
#endif
#define USBD_GUARDED_BY(mutex) USBD_INTERNAL_TSA(guarded_by(mutex))
#define USBD_REQUIRES(mutex) USBD_INTERNAL_TSA(requires_capability(mutex))

namespace usbd {

class USBD_INTERNAL_TSA(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() USBD_INTERNAL_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() USBD_INTERNAL_TSA(release_capability()) { mutex_.unlock(); }

 private:
  friend class Condition;
  std::mutex mutex_;
};

/// Holds a Mutex for a block.
class USBD_INTERNAL_TSA(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) USBD_INTERNAL_TSA(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() USBD_INTERNAL_TSA(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// Wakes may be spurious: wait in a loop that looks at what is waited for.
class Condition {
 public:
  void wait(Mutex& mutex) USBD_REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  /// Returns after `time` at the latest.
  template <typename Rep, typename Period>
  void wait_for(Mutex& mutex, std::chrono::duration<Rep, Period> time) USBD_REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    condition_.wait_for(lock, time);
    lock.release();
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace usbd
