// SPDX-License-Identifier: Apache-2.0
//
// Task<T>: the return type of a coroutine. Lazy (nothing runs before it is awaited), move-only,
// with one awaiter. A finished task resumes its awaiter from a trampoline, not by symmetric
// transfer, which overflows the stack in long chains at -O0 and under sanitizers: a task that
// finishes while it is being started lets its awaiter go on in place; one that finishes later hands
// its awaiter to the loop that resumed it (detail::resume). Frames come from a pool of the thread.
//
// Rules for authors (docs/STYLE.md, section 6): parameters by value, or references whose lifetime
// the contract states; name aggregates and lambdas before a co_await expression (g++ 12 destroys
// such temporaries twice); an exception that leaves a task ends the process.

#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

namespace usbd {

template <typename T>
class Task;

namespace detail {

/// Memory for a coroutine frame, from a pool of the calling thread. Threads: any.
void* allocate_frame(size_t size);
/// Gives a frame back to the pool of the calling thread, which need not be the one it came from.
void free_frame(void* frame, size_t size) noexcept;

/// The awaiter that the innermost running resume() continues with.
inline thread_local std::coroutine_handle<> next_to_resume;

/// Resumes `handle`, and after it every awaiter whose task finishes by that, one after the other.
/// The only way to resume a coroutine from outside.
inline void resume(std::coroutine_handle<> handle) {
  const std::coroutine_handle<> outer = std::exchange(next_to_resume, nullptr);
  while (handle) {
    handle.resume();
    handle = std::exchange(next_to_resume, nullptr);
  }
  next_to_resume = outer;
}

class PromiseBase {
 public:
  static void* operator new(size_t size) { return allocate_frame(size); }
  static void operator delete(void* frame, size_t size) noexcept { free_frame(frame, size); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { std::terminate(); }

  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <typename Promise>
    void await_suspend(std::coroutine_handle<Promise> self) noexcept {
      PromiseBase& promise = self.promise();
      if (promise.starting_) {
        promise.finished_while_starting_ = true;
      } else {
        next_to_resume = promise.awaiter_;
      }
    }
    void await_resume() noexcept {}
  };
  FinalAwaiter final_suspend() noexcept { return {}; }

  /// Starts the task for `awaiter`. Returns true if the awaiter must stay suspended.
  bool start(std::coroutine_handle<> self, std::coroutine_handle<> awaiter) {
    awaiter_ = awaiter;
    starting_ = true;
    self.resume();
    starting_ = false;
    return !finished_while_starting_;
  }

 private:
  std::coroutine_handle<> awaiter_;
  bool starting_ = false;
  bool finished_while_starting_ = false;
};

template <typename T>
class Promise final : public PromiseBase {
 public:
  Task<T> get_return_object() noexcept;
  template <typename U>
  void return_value(U&& value) {
    value_.emplace(std::forward<U>(value));
  }
  T take() { return std::move(*value_); }

 private:
  std::optional<T> value_;
};

template <>
class Promise<void> final : public PromiseBase {
 public:
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
  void take() noexcept {}
};

}  // namespace detail

/// A coroutine that will make a T once it is awaited.
/// Threads:  started, resumed and destroyed on one loop thread.
/// Lifetime: owns its frame. Destroying a task that has not started is allowed; destroying one that
///           is suspended in the middle is a bug: await it to its end.
template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      destroy();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() { destroy(); }

  struct Awaiter {
    Handle handle;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiter) const {
      return handle.promise().start(handle, awaiter);
    }
    T await_resume() const { return handle.promise().take(); }
  };
  Awaiter operator co_await() const noexcept { return Awaiter{handle_}; }

 private:
  friend promise_type;
  explicit Task(Handle handle) : handle_(handle) {}
  void destroy() noexcept {
    if (handle_) handle_.destroy();
    handle_ = nullptr;
  }

  Handle handle_;
};

template <typename T>
Task<T> detail::Promise<T>::get_return_object() noexcept {
  return Task<T>(Task<T>::Handle::from_promise(*this));
}
inline Task<void> detail::Promise<void>::get_return_object() noexcept {
  return Task<void>(Task<void>::Handle::from_promise(*this));
}

}  // namespace usbd
