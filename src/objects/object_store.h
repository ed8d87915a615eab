// SPDX-License-Identifier: Apache-2.0
//
// ObjectStore: what usbd asks of a place that keeps named, whole objects: S3 and its kin, or a
// directory. One folder below this one is one kind; the conformance suite (tests/store) says what
// each must do. What all kinds need in common (retries, counters, faults for tests) are stores that
// stand in front of another one.
//
// Names are made of A-Z a-z 0-9 . _ - and /, start and end with none of . and /, hold no empty part
// and no part "." or "..", and are at most kObjectNameMax bytes; callers guarantee it.
//
// An answer may be lost. After kTimedOut, kAgain, kIo or kCanceled a change may have been made, may
// not have been, or may yet be made, long after the call returned. Nothing else is ever ambiguous.

#pragma once

#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "usbd/buffer.h"
#include "usbd/loop.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objects {

inline constexpr size_t kObjectNameMax = 512;
inline constexpr size_t kListPageMax = 1000;

/// On what a change depends.
struct Condition {
  enum class Kind : uint8_t {
    kAlways,
    kAbsent,   ///< There is no object of that name. Ref: RFC 9110, If-None-Match: *.
    kMatches,  ///< The object's tag is `tag`. Ref: RFC 9110, If-Match.
  };
  Kind kind = Kind::kAlways;
  std::string tag = {};

  static Condition always() { return {}; }
  static Condition absent() { return {.kind = Kind::kAbsent}; }
  static Condition matches(std::string tag) {
    return {.kind = Kind::kMatches, .tag = std::move(tag)};
  }
};

/// How long a call may take, and whether it is still wanted.
struct CallLimits {
  /// From the call on; zero: as long as the store's own limits say.
  Nanos timeout{0};
  /// Once requested the call ends soon, with kCanceled.
  std::stop_token stop = {};
};

/// Which part of an object is wanted. Units: bytes.
struct Part {
  enum class Kind : uint8_t { kRange, kTail, kWhole };
  Kind kind = Kind::kWhole;
  uint64_t offset = 0;
  /// kRange, kTail: how much; kWhole: the most that is taken.
  uint64_t length = 0;

  /// From `offset` on. Range: length > 0.
  static Part range(uint64_t offset, uint64_t length) { return {Kind::kRange, offset, length}; }
  /// The last `length` bytes, or all if there are fewer. Range: length > 0.
  static Part tail(uint64_t length) { return {Kind::kTail, 0, length}; }
  /// All of it. `most`: a larger object is kOverflow.
  static Part whole(uint64_t most) { return {Kind::kWhole, 0, most}; }
};

struct Fetched {
  /// Shorter than was asked for if the object ends before; empty if it starts beyond the end.
  std::vector<std::byte> data;
  uint64_t object_size = 0;
  /// The object's tag: changes with every change of its contents. Never empty.
  std::string tag;
};

struct ObjectInfo {
  std::string name;
  uint64_t size = 0;
  std::string tag;
};

struct ListPage {
  /// In the order of their names' bytes. `tag` may be empty.
  std::vector<ObjectInfo> objects;
  /// Whether there may be more, after the last of these.
  bool more = false;
};

/// What a kind of store can do by its documentation. Whether a given server does it is found out by
/// trying (objects/probe.h).
struct Abilities {
  bool put_if_absent = false;
  bool put_if_matches = false;
};

/// Threads:  one loop's; any number of calls outstanding at once.
/// Lifetime: memory passed in stays valid until the task has finished.
/// Order:    calls that overlap in time may take effect in either order. A get that begins after a
///           put has succeeded sees it; a listing may be late.
/// Errors:   kNotFound: no such object (or container); kAccess: the store refuses the credentials
///           or the right; kNoSpace: full, or over a quota; kReadOnly; kInvalid: a request it does
///           not take; kNotSupported; kTimedOut, kAgain (busy, throttled, a fault of its own), kIo
///           (connection broken, answer cut short or nonsense), kCanceled; kDamaged: the store
///           knows that the object is not what was put. The context names store and object, and
///           never a secret.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  /// For people: "s3://bucket/ at http://127.0.0.1:9000".
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual Abilities abilities() const = 0;

  /// Stores `data` under `name` in place of what was there, all or nothing, and returns its tag.
  /// Durable: on success.
  /// Errors:  kExists: the condition does not hold, and nothing was changed; kNotSupported: it
  ///          cannot be asked for.
  virtual Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                        CallLimits limits) = 0;

  /// Fetches a part of an object.
  /// Errors: kNotFound; kOverflow (Part::whole).
  virtual Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) = 0;

  /// What is known of an object without its contents. Errors: kNotFound.
  virtual Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) = 0;

  /// The objects whose names begin with `prefix` and come after `after` (empty: all), a page of at
  /// most `most`. Range: 1 to kListPageMax. A page that says that there are
  /// more is not empty.
  virtual Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                                      CallLimits limits) = 0;

  /// Removes an object; success if there is none.
  /// Durable: on success.
  virtual Task<Result<void>> remove(std::string name, CallLimits limits) = 0;

  /// Gives connections and threads up; the last call, and no other is outstanding.
  virtual Task<void> close() = 0;
};

/// Whether `name` is one that callers may use.
[[nodiscard]] bool is_object_name(std::string_view name);

/// Whether the same call may succeed if it is made again later: kTimedOut, kAgain, kIo.
[[nodiscard]] bool is_transient(const Error& error);

}  // namespace usbd::objects
