// SPDX-License-Identifier: Apache-2.0
//
// The file operations of an EventLoop. Those of one round go to the kernel together: to the ring,
// or (buffered writes, and everything where there is no ring) to the pool in batches. Short
// buffered writes are done here, as long as they do not wait (inline_writes.h).

#include <algorithm>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "async/event_loop.h"
#include "base/assert.h"
#include "base/limits.h"

namespace usbd {
namespace {

int64_t call(FileIo& io) {
  iovec vector{io.data, io.length};
  const auto offset = static_cast<off_t>(io.offset);
  int64_t result = -1;
  switch (io.kind) {
    case FileIo::Kind::kRead:
      result = preadv(io.fd, &vector, 1, offset);
      break;
    case FileIo::Kind::kWrite:
      result = pwritev2(io.fd, &vector, 1, offset, io.flags);
      break;
    case FileIo::Kind::kDataSync:
      result = fdatasync(io.fd);
      break;
    case FileIo::Kind::kAllocate:
      result = fallocate(io.fd, io.flags, offset, static_cast<off_t>(io.length));
      break;
  }
  return result < 0 ? -errno : result;
}

/// The ring would give these to kernel threads one by one, at several times the cost.
bool better_in_pool(const FileIo& io) {
  return io.kind != FileIo::Kind::kRead && (io.buffered || io.kind != FileIo::Kind::kWrite);
}

/// Whether others may wait behind it: not behind a sync, a synchronous write or an allocation.
bool is_short(const FileIo& io) {
  return io.kind == FileIo::Kind::kRead || (io.kind == FileIo::Kind::kWrite && io.flags == 0);
}

bool may_be_inline(const FileIo& io) {
  return io.kind == FileIo::Kind::kWrite && io.buffered && io.flags == 0 &&
         io.length <= limits::kInlineWriteMax;
}

/// How often this thread has waited for something, rather than for the processor.
long voluntary_switches() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

}  // namespace

/// A chain of file operations that one pool thread does in a row.
struct EventLoop::PoolBatch final : Work {
  EventLoop* loop = nullptr;
  FileIo* first = nullptr;
};

void EventLoop::submit(FileIo& io) {
  USBD_ASSERT(io.done != nullptr);
  io.next = nullptr;
  if (files_tail_ != nullptr) {
    files_tail_->next = &io;
  } else {
    files_head_ = &io;
  }
  files_tail_ = &io;
}

bool EventLoop::prepare(FileIo& io) {
  if (in_ring_ >= limits::kFileIosInRingMax) return false;
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) {
    io_uring_submit(&ring_);
    sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return false;
  }
  const auto length = static_cast<unsigned>(io.length);
  if (io.kind == FileIo::Kind::kRead) {
    io_uring_prep_read(sqe, io.fd, io.data, length, io.offset);
  } else {
    io_uring_prep_write(sqe, io.fd, io.data, length, io.offset);
    sqe->rw_flags = io.flags;
  }
  io_uring_sqe_set_data(sqe, &io);
  ++in_ring_;
  return true;
}

void EventLoop::submit_files() {
  FileIo* pool_head = nullptr;
  FileIo** pool_end = &pool_head;
  bool in_ring = false;
  while (files_head_ != nullptr) {
    FileIo& io = *files_head_;
    if (!ring_ok_ || better_in_pool(io)) {
      files_head_ = io.next;
      *pool_end = &io;
      pool_end = &io.next;
    } else {
      FileIo* const next = io.next;
      if (!prepare(io)) break;  // the ring is full: the rest waits for completions
      files_head_ = next;
      in_ring = true;
    }
  }
  if (files_head_ == nullptr) files_tail_ = nullptr;
  *pool_end = nullptr;
  if (in_ring) {
    io_uring_submit(&ring_);
    reap_ring();
  }
  if (pool_head != nullptr) pool_head = write_inline(pool_head);
  if (pool_head != nullptr) send_to_pool(pool_head);
}

/// Does the short buffered writes of a chain here, if they may be tried; returns the others. Those
/// beyond the limits of a round stay submitted, so that the answers to the first leave before.
FileIo* EventLoop::write_inline(FileIo* first) {
  Nanos time = now();
  if (!may_be_inline(*first) || !inline_writes_.may_try(time)) return first;
  const long switches = voluntary_switches();
  FileIo* rest = nullptr;
  FileIo** rest_end = &rest;
  unsigned count = 0;
  uint64_t bytes = 0;
  bool slow = false;
  for (FileIo* io = first; io != nullptr;) {
    FileIo* const next = io->next;
    if (slow || !may_be_inline(*io)) {
      *rest_end = io;
      rest_end = &io->next;
    } else if (count == limits::kInlineWritesPerRound || bytes >= limits::kInlineBytesPerRound) {
      submit(*io);
    } else {
      ++count;
      io->result = call(*io);
      bytes += io->length;
      ready_.push(*io->done);
      const Nanos before = std::exchange(time, now());
      slow = time - before > limits::kInlineStall;
    }
    io = next;
  }
  *rest_end = nullptr;
  if (slow && voluntary_switches() != switches) inline_writes_.stalled(time);
  return rest;
}

void EventLoop::reap_ring() {
  io_uring_cqe* cqe = nullptr;
  unsigned head = 0;
  unsigned seen = 0;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    auto& io = *static_cast<FileIo*>(io_uring_cqe_get_data(cqe));
    io.result = cqe->res;
    ready_.push(*io.done);
    ++seen;
  }
  io_uring_cq_advance(&ring_, seen);
  in_ring_ -= seen;
}

void EventLoop::send_to_pool(FileIo* first) {
  while (first != nullptr) {
    auto* const batch = new PoolBatch;
    batch->loop = this;
    batch->first = first;
    FileIo* last = first;
    uint64_t bytes = first->length;
    for (unsigned count = 1;
         last->next != nullptr && count < limits::kFileBatchMax && is_short(*last) &&
         is_short(*last->next) && bytes + last->next->length <= limits::kFileBatchBytesMax;
         ++count) {
      last = last->next;
      bytes += last->length;
    }
    first = std::exchange(last->next, nullptr);
    batch->run = [](Work& work) {
      const std::unique_ptr<PoolBatch> self(static_cast<PoolBatch*>(&work));
      for (FileIo* io = self->first; io != nullptr;) {
        FileIo* const next = io->next;
        io->result = call(*io);
        self->loop->post(*io->done);  // `io` may be gone after this
        io = next;
      }
    };
    file_pool_.submit(*batch);
  }
}

}  // namespace usbd
