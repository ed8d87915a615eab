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
}

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  work_available_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void WorkerPool::submit(Work& work) {
  const MutexLock lock(mutex_);
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
  } else if (threads_.size() < threads_max_ && !stopping_) {
    ++waking_;
    threads_.emplace_back([this] { main(); });
  }
}

void WorkerPool::main() {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  mutex_.lock();
  // A thread that was about to sleep may have taken this notice for its own.
  if (waking_ > 0) --waking_;
  for (;;) {
    while (head_ != nullptr) {
      Work& work = *head_;
      head_ = work.next;
      if (head_ == nullptr) tail_ = nullptr;
      wake_one();
      mutex_.unlock();
      work.run(work);  // `work` may be gone after this
      mutex_.lock();
    }
    if (stopping_) break;
    ++idle_;
    // A spurious wake-up finds waking_ at 0 and must not lower it.
    while (waking_ == 0 && !stopping_) work_available_.wait(mutex_);
    --idle_;
    if (waking_ > 0) --waking_;
  }
  mutex_.unlock();
}

}  // namespace usbd
