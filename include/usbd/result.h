// SPDX-License-Identifier: Apache-2.0
//
// Errors as values. Every operation that can fail returns a Result<T>: the value, or an Error that
// carries an errno-shaped code and, if the place that failed knew more, one sentence of context.
// The member names are those of std::expected, which g++ 12 drops without a warning.

#pragma once

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>

namespace usbd {

/// The errors a device or frontend names. Each is an errno value, so that both kernel drivers and
/// the NBD protocol can be answered without a second table.
enum class Errc : int {
  kPerm = EPERM,
  kNotFound = ENOENT,
  kIo = EIO,
  kAgain = EAGAIN,
  kNoMemory = ENOMEM,
  kAccess = EACCES,
  kBusy = EBUSY,
  kExists = EEXIST,
  kInvalid = EINVAL,
  kNoSpace = ENOSPC,
  kReadOnly = EROFS,
  kOverflow = EOVERFLOW,
  kNotSupported = EOPNOTSUPP,
  kShutdown = ESHUTDOWN,
  kTimedOut = ETIMEDOUT,
  kCanceled = ECANCELED,
  /// What is stored is not what was put there. Asking again does not help.
  kDamaged = EBADMSG,
};

/// What went wrong: a code that programs act on, and a sentence for people.
class Error {
 public:
  /// Lifetime: `context` is kept; it is allocated only here, on failure.
  explicit Error(Errc code, std::string context = {})
      : Error(std::error_code(static_cast<int>(code), std::generic_category()),
              std::move(context)) {}
  explicit Error(std::error_code code, std::string context = {}) : code_(code) {
    if (!context.empty()) context_ = std::make_shared<const std::string>(std::move(context));
  }
  /// An error from a system call. Range: `number` is a positive errno value.
  static Error from_errno(int number, std::string context = {}) {
    return Error(std::error_code(number, std::generic_category()), std::move(context));
  }

  [[nodiscard]] const std::error_code& code() const { return code_; }
  /// The errno value that a kernel driver or a wire protocol is answered with; never 0.
  [[nodiscard]] int number() const { return code_.value() > 0 ? code_.value() : EIO; }
  [[nodiscard]] bool is(Errc code) const { return code_.value() == static_cast<int>(code); }
  /// "<context>: <text of the code>", or only the latter.
  [[nodiscard]] std::string message() const {
    // The system calls EBADMSG a bad message, which tells nobody anything of a disk.
    const std::string text = is(Errc::kDamaged) ? "damaged" : code_.message();
    return context_ ? *context_ + ": " + text : text;
  }
  /// The sentence alone; empty if there is none.
  [[nodiscard]] std::string context() const { return context_ ? *context_ : std::string(); }

 private:
  std::error_code code_;
  std::shared_ptr<const std::string> context_;
};

/// A value of type T, or the Error that kept it from being made.
template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  template <typename U = T>
    requires(std::is_constructible_v<T, U &&> && !std::is_same_v<std::remove_cvref_t<U>, Result> &&
             !std::is_same_v<std::remove_cvref_t<U>, Error>)
  Result(U&& value) : state_(std::in_place_index<0>, std::forward<U>(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  Result(Errc code) : Result(Error(code)) {}

  [[nodiscard]] bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  [[nodiscard]] T& operator*() & { return *std::get_if<0>(&state_); }
  [[nodiscard]] const T& operator*() const& { return *std::get_if<0>(&state_); }
  [[nodiscard]] T&& operator*() && { return std::move(*std::get_if<0>(&state_)); }
  [[nodiscard]] T* operator->() { return std::get_if<0>(&state_); }
  [[nodiscard]] const T* operator->() const { return std::get_if<0>(&state_); }
  [[nodiscard]] const Error& error() const& { return *std::get_if<1>(&state_); }
  [[nodiscard]] Error&& error() && { return std::move(*std::get_if<1>(&state_)); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Error error) : error_(std::move(error)) {}
  Result(Errc code) : Result(Error(code)) {}

  [[nodiscard]] bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  [[nodiscard]] const Error& error() const& { return *error_; }
  [[nodiscard]] Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

}  // namespace usbd

#define USBD_INTERNAL_CAT2(a, b) a##b
#define USBD_INTERNAL_CAT(a, b) USBD_INTERNAL_CAT2(a, b)
#define USBD_INTERNAL_TRY(tmp, decl, expr, ret) \
  auto tmp = (expr);                            \
  if (!tmp) [[unlikely]]                        \
    ret std::move(tmp).error();                 \
  decl = *std::move(tmp)
#define USBD_INTERNAL_TRY_VOID(tmp, expr, ret) \
  do {                                         \
    auto tmp = (expr);                         \
    if (!tmp) [[unlikely]]                     \
      ret std::move(tmp).error();              \
  } while (false)

/// `USBD_TRY(auto x, expr);` declares x from a Result, or returns its error. A statement, never
/// part of another expression. The CO_ forms are for coroutines: `USBD_CO_TRY(auto x, co_await
/// f());`.
#define USBD_TRY(decl, expr) \
  USBD_INTERNAL_TRY(USBD_INTERNAL_CAT(usbd_try_, __LINE__), decl, expr, return)
#define USBD_TRY_VOID(expr) \
  USBD_INTERNAL_TRY_VOID(USBD_INTERNAL_CAT(usbd_try_, __LINE__), expr, return)
#define USBD_CO_TRY(decl, expr) \
  USBD_INTERNAL_TRY(USBD_INTERNAL_CAT(usbd_try_, __LINE__), decl, expr, co_return)
#define USBD_CO_TRY_VOID(expr) \
  USBD_INTERNAL_TRY_VOID(USBD_INTERNAL_CAT(usbd_try_, __LINE__), expr, co_return)
