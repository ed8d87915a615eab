// SPDX-License-Identifier: Apache-2.0
//
// A mapping for each Secret: there are a handful of them in a process, one for each key that users
// gave. To lock it in memory is tried only: unprivileged processes may lock little.

#include "crypto/secret.h"

#include <algorithm>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/assert.h"

namespace usbd::crypto {
namespace {

size_t whole_pages(size_t size) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return (size + page - 1) / page * page;
}

}  // namespace

void wipe(MutableBytes data) {
  if (!data.empty()) OPENSSL_cleanse(data.data(), data.size());
}

Secret::Secret(size_t size) : size_(size), mapped_(whole_pages(size)) {
  if (size == 0) return;
  void* const memory =
      ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  USBD_ASSERT(memory != MAP_FAILED);  // a page: the process is out of memory
  ::madvise(memory, mapped_, MADV_DONTDUMP);
  ::mlock(memory, mapped_);
  memory_ = static_cast<std::byte*>(memory);
}

Secret::Secret(Bytes bytes) : Secret(bytes.size()) {
  std::ranges::copy(bytes, memory_);
}

Secret::Secret(Secret&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Secret& Secret::operator=(Secret&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Secret::~Secret() {
  if (memory_ == nullptr) return;
  wipe({memory_, mapped_});
  ::munmap(memory_, mapped_);
}

void Secret::shrink(size_t size) {
  USBD_ASSERT(size <= size_);
  wipe(writable().subspan(size));
  size_ = size;
}

}  // namespace usbd::crypto
