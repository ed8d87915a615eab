// SPDX-License-Identifier: Apache-2.0
//
// The threads of a WorkerPool: one queue, one condition, chained waking.

#include "async/worker_pool.h"

#include <pthread.h>

#include "base/assert.h"

namespace usbd {

WorkerPool::WorkerPool(std::string name, unsigned threads_max)
    : name_(std::move(name)), threads_max_(threads_max) {
  USBD_ASSERT(threads_max_ > 0);
  threads_.reserve(threads_max_);
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_available_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::submit(Work& work) {
  const std::lock_guard lock(mutex_);
  USBD_ASSERT(!stopping_);
  work.next = nullptr;
  if (tail_ != nullptr) {
    tail_->next = &work;
  } else {
    head_ = &work;
  }
  tail_ = &work;
  wake_one();
}

void WorkerPool::wake_one() {
  if (head_ == nullptr || waking_ > 0) return;
  if (idle_ > 0) {
    ++waking_;
    work_available_.notify_one();
  } else if (threads_.size() < threads_max_) {
    ++waking_;
    threads_.emplace_back([this] { main(); });
  }
}

void WorkerPool::main() {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  std::unique_lock lock(mutex_);
  --waking_;
  for (;;) {
    while (head_ != nullptr) {
      Work& work = *head_;
      head_ = work.next;
      if (head_ == nullptr) tail_ = nullptr;
      wake_one();
      lock.unlock();
      work.run(work);  // `work` may be gone after this
      lock.lock();
    }
    if (stopping_) return;
    ++idle_;
    // A spurious wake-up finds waking_ at 0 and must not lower it.
    work_available_.wait(lock, [this] { return waking_ > 0 || stopping_; });
    --idle_;
    if (waking_ > 0) --waking_;
  }
}

}  // namespace usbd
