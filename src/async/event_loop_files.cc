// SPDX-License-Identifier: Apache-2.0
//
// The file operations of an EventLoop. Those of one round go to the kernel together: to the ring,
// or (buffered writes, and everything where there is no ring) to the pool in batches. Buffered
// writes are calls of the loop's own while they are short (docs/adr/0008).

#include <algorithm>

#include <fcntl.h>
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

/// A short write counts as a whole unit of the pace.
uint64_t paced_bytes(const FileIo& io) {
  return std::max(io.length, limits::kPacedBytes);
}

bool may_be_here(const FileIo& io) {
  return io.kind == FileIo::Kind::kWrite && io.buffered && io.flags == 0 &&
         io.length <= limits::kOwnWriteBytesMax;
}

}  // namespace

/// A chain of file operations that one thread does in a row.
struct EventLoop::FileBatch final : BlockingCall {
  FileBatch(EventLoop& owner, FileIo& head) : loop(owner), first(&head) {
    pace = &owner.write_pace_;
    Work::run = [](Work& work) {
      const std::unique_ptr<FileBatch> self(static_cast<FileBatch*>(&work));
      for (FileIo* io = self->first; io != nullptr;) {
        FileIo* const following = io->next;
        io->result = call(*io);
        self->loop.post(*io->done);  // `io` may be gone after this
        io = following;
      }
    };
  }
  EventLoop& loop;
  FileIo* first;
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
  if (pool_head != nullptr) pool_head = write_here(pool_head);
  if (pool_head != nullptr) send_to_pool(pool_head);
}

/// Makes calls of this loop of the short buffered writes of a chain, if they may be tried; returns
/// the others.
FileIo* EventLoop::write_here(FileIo* first) {
  FileIo* here = nullptr;
  FileIo** here_end = &here;
  FileIo* rest = nullptr;
  FileIo** rest_end = &rest;
  for (FileIo* io = first; io != nullptr; io = io->next) {
    FileIo**& end = may_be_here(*io) ? here_end : rest_end;
    *end = io;
    end = &io->next;
  }
  *here_end = nullptr;
  *rest_end = nullptr;
  while (here != nullptr) {
    FileBatch* const batch = next_batch(here);
    if (!call_here(*batch)) file_pool_.submit(*batch);
  }
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

/// Takes from a chain what one thread is to do in a row.
EventLoop::FileBatch* EventLoop::next_batch(FileIo*& first) {
  auto* const batch = new FileBatch(*this, *first);
  FileIo* last = first;
  batch->bytes = paced_bytes(*last);
  uint64_t bytes = last->length;
  for (unsigned count = 1;
       last->next != nullptr && count < limits::kFileBatchMax && is_short(*last) &&
       is_short(*last->next) && bytes + last->next->length <= limits::kFileBatchBytesMax;
       ++count) {
    last = last->next;
    bytes += last->length;
    batch->bytes += paced_bytes(*last);
  }
  first = std::exchange(last->next, nullptr);
  return batch;
}

void EventLoop::send_to_pool(FileIo* first) {
  while (first != nullptr) file_pool_.submit(*next_batch(first));
}

}  // namespace usbd
