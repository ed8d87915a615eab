// SPDX-License-Identifier: Apache-2.0
//
// Memory for coroutine frames: per thread, one free list per 64 bytes of size. In steady state a
// request takes its frames from there and gives them back, and no allocator is asked. Under
// AddressSanitizer every frame is allocated, so that a use after free is seen.

#include <array>
#include <cstdlib>
#include <new>

#include "base/limits.h"
#include "usbd/task.h"

#if defined(__SANITIZE_ADDRESS__)
#define USBD_INTERNAL_POOL_FRAMES false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define USBD_INTERNAL_POOL_FRAMES false
#endif
#endif
#ifndef USBD_INTERNAL_POOL_FRAMES
#define USBD_INTERNAL_POOL_FRAMES true
#endif

namespace usbd::detail {
namespace {

constexpr size_t kStep = 64;
constexpr size_t kClasses = limits::kPooledFrameMax / kStep;

struct FreeFrame {
  FreeFrame* next;
};

struct FreeLists {
  struct List {
    FreeFrame* head = nullptr;
    size_t count = 0;
  };
  std::array<List, kClasses> lists{};

  ~FreeLists() {
    for (List& list : lists) {
      while (list.head != nullptr) ::operator delete(std::exchange(list.head, list.head->next));
    }
  }
};

thread_local FreeLists free_lists;

size_t class_of(size_t size) {
  return (size - 1) / kStep;
}

}  // namespace

void* allocate_frame(size_t size) {
  if (!USBD_INTERNAL_POOL_FRAMES || size > limits::kPooledFrameMax) return ::operator new(size);
  FreeLists::List& list = free_lists.lists[class_of(size)];
  if (list.head == nullptr) return ::operator new((class_of(size) + 1) * kStep);
  --list.count;
  return std::exchange(list.head, list.head->next);
}

void free_frame(void* frame, size_t size) noexcept {
  if (!USBD_INTERNAL_POOL_FRAMES || size > limits::kPooledFrameMax) {
    ::operator delete(frame);
    return;
  }
  FreeLists::List& list = free_lists.lists[class_of(size)];
  if (list.count >= limits::kPooledFramesPerClassMax) {
    ::operator delete(frame);
    return;
  }
  list.head = new (frame) FreeFrame{list.head};
  ++list.count;
}

}  // namespace usbd::detail
