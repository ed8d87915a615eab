// SPDX-License-Identifier: Apache-2.0
//
// A buffer finds its way back by the deleter of what points to it.

#include "journal/record_memory.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include <sys/mman.h>

#include "base/assert.h"

namespace usbd::journal {

RecordBuffer::RecordBuffer(size_t size) {
  void* const memory =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = MutableBytes(static_cast<std::byte*>(memory), size);
}

RecordBuffer::~RecordBuffer() {
  ::munmap(memory_.data(), memory_.size());
}

std::shared_ptr<RecordBuffer> RecordMemory::take(uint32_t payload_blocks) {
  USBD_ASSERT(payload_blocks <= kPayloadBlocksMax);
  const uint32_t blocks = std::bit_ceil(std::max<uint32_t>(payload_blocks, 1));
  const auto which = static_cast<size_t>(std::countr_zero(blocks));
  std::unique_ptr<RecordBuffer> buffer;
  {
    const MutexLock lock(free_->mutex);
    auto& fitting = free_->of_size.at(which);
    if (!fitting.empty()) {
      buffer = std::move(fitting.back());
      fitting.pop_back();
      free_->bytes -= buffer->size();
    }
  }
  if (!buffer) buffer = std::make_unique<RecordBuffer>((kHeaderBlocksMax + blocks) * kBlock);
  auto give_back = [free = free_, max = free_bytes_max_, which](RecordBuffer* returned) {
    std::unique_ptr<RecordBuffer> owned(returned);
    const MutexLock lock(free->mutex);
    if (free->bytes + owned->size() > max) return;
    free->bytes += owned->size();
    free->of_size.at(which).push_back(std::move(owned));
  };
  return {buffer.release(), std::move(give_back)};
}

void RecordMemory::trim() {
  std::array<std::vector<std::unique_ptr<RecordBuffer>>, kSizes> unused;
  const MutexLock lock(free_->mutex);
  std::swap(unused, free_->of_size);
  free_->bytes = 0;
}

uint64_t RecordMemory::free_bytes() const {
  const MutexLock lock(free_->mutex);
  return free_->bytes;
}

}  // namespace usbd::journal
