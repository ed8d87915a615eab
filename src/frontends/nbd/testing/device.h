// SPDX-License-Identifier: Apache-2.0
//
// For tests and the fuzzer: a device whose pace and failures the test decides while it runs, and
// which asserts what core promises to a device: requests in range, and never two changes of one
// byte outstanding together.

#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/assert.h"
#include "core/stats.h"
#include "usbd/device.h"
#include "usbd/loop.h"

namespace usbd::nbd {

/// Threads: one loop's.
class ScriptedDevice final : public Device {
 public:
  struct Options {
    uint64_t size = 1U << 20;
    uint32_t block_size = 1;
    Capabilities capabilities = {.trim = Support::kNative,
                                 .write_zeroes = Support::kNative,
                                 .fast_zero = true,
                                 .fua = Support::kNative,
                                 .extents = Support::kNative};
    /// Offers direct memory.
    bool direct = false;
    /// Answers try_ calls, while the pace is kAtOnce.
    bool tries = false;
    /// Has no bytes behind it: any size costs nothing, reads give anything.
    bool hollow = false;
    /// Bytes to begin with, if they have the right size; else zeros.
    std::vector<std::byte> memory = {};
  };
  enum class Pace : uint8_t {
    kAtOnce,  ///< Calls finish before they return.
    kYield,   ///< Calls let other work of the loop go first.
    kPark,    ///< Calls wait for unpark().
  };
  struct Call {
    Op op;
    ByteRange range;
    bool fua = false;
    friend bool operator==(const Call&, const Call&) = default;
  };
  using Failure = std::function<std::optional<Errc>(Op, ByteRange)>;

  explicit ScriptedDevice(Options options) : options_(std::move(options)) {
    bytes = std::move(options_.memory);
    if (!options_.hollow) bytes.resize(options_.size);
  }

  Pace pace = Pace::kAtOnce;
  /// Decides, when a call has waited, whether it fails. Empty: none does.
  Failure failure;
  std::vector<std::byte> bytes;
  /// Every call but direct(), in order.
  std::vector<Call> calls;
  /// What direct_written() was told.
  std::vector<ByteRange> stored;
  /// What extents() answers; empty: one extent of data.
  std::vector<Extent> kinds;

  [[nodiscard]] size_t parked() const { return parked_.size(); }
  /// Lets one of those that wait go on. Range: index < parked().
  void unpark(size_t index) {
    Parked& chosen = *parked_[index];
    parked_.erase(parked_.begin() + static_cast<std::ptrdiff_t>(index));
    chosen.loop->post(chosen.resume);
  }
  void unpark_all() {
    while (!parked_.empty()) unpark(0);
  }
  [[nodiscard]] size_t count(Op op) const {
    return static_cast<size_t>(std::ranges::count(calls, op, &Call::op));
  }

  std::string name() const override { return "scripted"; }
  Geometry geometry() const override {
    return {.size = options_.size, .block_size = options_.block_size};
  }
  Capabilities capabilities() const override { return options_.capabilities; }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    const ByteRange range(offset, data.size());
    begin({Op::kRead, range});
    co_await wait();
    if (const std::optional<Errc> error = fails(Op::kRead, range)) co_return *error;
    load(range, data);
    co_return Result<void>();
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    const ByteRange range(offset, data.size());
    begin({Op::kWrite, range, flags.fua});
    enter(range);
    co_await wait();
    leave(range);
    if (const std::optional<Errc> error = fails(Op::kWrite, range)) co_return *error;
    store(range, data);
    co_return Result<void>();
  }
  Task<Result<void>> flush() override {
    begin({Op::kFlush, {}});
    co_await wait();
    if (const std::optional<Errc> error = fails(Op::kFlush, {})) co_return *error;
    co_return Result<void>();
  }
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override {
    begin({Op::kTrim, range, flags.fua});
    co_return co_await clear(Op::kTrim, range);
  }
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override {
    begin({Op::kWriteZeroes, range, flags.fua});
    co_return co_await clear(Op::kWriteZeroes, range);
  }
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override {
    begin({Op::kExtents, range});
    co_await wait();
    if (const std::optional<Errc> error = fails(Op::kExtents, range)) co_return *error;
    std::vector<Extent> found = kinds;
    if (found.empty()) found.push_back({.length = range.length});
    if (found.size() > extents_max) found.resize(extents_max);
    co_return found;
  }
  Task<Result<void>> cache(ByteRange range) override {
    begin({Op::kCache, range});
    co_await wait();
    if (const std::optional<Errc> error = fails(Op::kCache, range)) co_return *error;
    co_return Result<void>();
  }
  Task<Result<void>> close() override { co_return Result<void>(); }

  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override {
    if (!options_.tries || pace != Pace::kAtOnce) return std::nullopt;
    const ByteRange range(offset, data.size());
    begin({Op::kRead, range});
    if (const std::optional<Errc> error = fails(Op::kRead, range)) return Result<void>(*error);
    load(range, data);
    return Result<void>();
  }
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags) override {
    if (!options_.tries || pace != Pace::kAtOnce) return std::nullopt;
    const ByteRange range(offset, data.size());
    begin({Op::kWrite, range, flags.fua});
    enter(range);
    leave(range);
    if (const std::optional<Errc> error = fails(Op::kWrite, range)) return Result<void>(*error);
    store(range, data);
    return Result<void>();
  }
  std::optional<Result<void>> try_flush() override {
    if (!options_.tries || pace != Pace::kAtOnce) return std::nullopt;
    begin({Op::kFlush, {}});
    if (const std::optional<Errc> error = fails(Op::kFlush, {})) return Result<void>(*error);
    return Result<void>();
  }
  MutableBytes direct(ByteRange range) override {
    if (!options_.direct) return {};
    return MutableBytes(bytes).subspan(range.offset, range.length);
  }
  void direct_written(ByteRange range) override { stored.push_back(range); }

 private:
  struct Parked {
    Loop* loop = nullptr;
    ResumeWork resume;
  };
  struct Wait : Parked {
    explicit Wait(ScriptedDevice& d) : device(d) {}
    bool await_ready() const { return device.pace == Pace::kAtOnce; }
    void await_suspend(std::coroutine_handle<> handle) {
      loop = &Loop::current();
      resume.handle = handle;
      if (device.pace == Pace::kPark) {
        device.parked_.push_back(this);
      } else {
        loop->post(resume);
      }
    }
    void await_resume() const {}
    ScriptedDevice& device;
  };
  Wait wait() { return Wait(*this); }

  void begin(Call call) {
    const uint64_t block = options_.block_size;
    if (call.op != Op::kFlush) {
      USBD_ASSERT(call.range.length > 0 && call.range.end() <= options_.size);
      USBD_ASSERT(call.range.offset % block == 0 && call.range.length % block == 0);
    }
    calls.push_back(call);
  }
  void enter(ByteRange range) {
    for (const ByteRange& other : changing_) USBD_ASSERT(!other.overlaps(range));
    changing_.push_back(range);
  }
  void leave(ByteRange range) { changing_.erase(std::ranges::find(changing_, range)); }
  std::optional<Errc> fails(Op op, ByteRange range) const {
    return failure ? failure(op, range) : std::nullopt;
  }
  void load(ByteRange range, MutableBytes data) const {
    if (!options_.hollow) std::memcpy(data.data(), bytes.data() + range.offset, data.size());
  }
  void store(ByteRange range, Bytes data) {
    if (!options_.hollow) std::memcpy(bytes.data() + range.offset, data.data(), data.size());
  }
  Task<Result<void>> clear(Op op, ByteRange range) {
    enter(range);
    co_await wait();
    leave(range);
    if (const std::optional<Errc> error = fails(op, range)) co_return *error;
    if (!options_.hollow) std::memset(bytes.data() + range.offset, 0, range.length);
    co_return Result<void>();
  }

  Options options_;
  std::vector<Parked*> parked_;
  std::vector<ByteRange> changing_;
};

}  // namespace usbd::nbd
