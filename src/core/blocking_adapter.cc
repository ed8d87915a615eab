// SPDX-License-Identifier: Apache-2.0
//
// Makes a Device of a BlockingDevice: each call runs on a pool thread, at most `concurrency_max` at
// once; the rest wait in FIFO order in the coroutines that asked. While reads and writes are short
// the loop makes the small ones itself (Loop::call_here).

#include <algorithm>
#include <bit>

#include "async/call_pace.h"
#include "async/worker_pool.h"
#include "base/assert.h"
#include "core/slots.h"
#include "usbd/blocking_device.h"

namespace usbd {
namespace {

class BlockingAdapter final : public Device {
 public:
  BlockingAdapter(std::unique_ptr<BlockingDevice> device, WorkerPool& pool,
                  unsigned concurrency_max)
      : device_(std::move(device)),
        pool_(pool),
        slots_(device_->single_threaded() ? 1 : concurrency_max),
        capabilities_(device_->capabilities()) {
    capabilities_.never_blocks = false;
    geometry_.size = device_->size();
    geometry_.block_size = device_->block_size();
    geometry_.logical_block_size = std::clamp(geometry_.block_size, 512U, 4096U);
    geometry_.preferred_io = std::max(geometry_.block_size, 4096U);
  }

  [[nodiscard]] std::string name() const override { return device_->name(); }
  [[nodiscard]] Geometry geometry() const override { return geometry_; }
  [[nodiscard]] Capabilities capabilities() const override { return capabilities_; }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    auto call = [this, offset, data] { return device_->read_at(offset, data); };
    co_return co_await on_pool(call, data.size());
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    auto call = [this, offset, data, flags] { return device_->write_at(offset, data, flags); };
    co_return co_await on_pool(call, flags.fua ? 0 : data.size());
  }
  Task<Result<void>> flush() override {
    auto call = [this] { return device_->flush(); };
    co_return co_await on_pool(call);
  }
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override {
    auto call = [this, range, flags] { return device_->trim(range, flags); };
    co_return co_await on_pool(call);
  }
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override {
    auto call = [this, range, flags] { return device_->write_zeroes(range, flags); };
    co_return co_await on_pool(call);
  }
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override {
    auto call = [this, range, extents_max] { return device_->extents(range, extents_max); };
    co_return co_await on_pool(call);
  }
  Task<Result<void>> resize(uint64_t size) override {
    auto call = [this, size] { return device_->resize(size); };
    co_return co_await on_pool(call);
  }
  Task<Result<void>> close() override {
    auto call = [this] { return device_->close(); };
    co_return co_await on_pool(call);
  }

 private:
  /// Lifetime: `call` is a local of the coroutine that awaits this.
  /// `bytes`: of a read or write that may be short; 0: of no such call.
  template <typename F>
  Task<std::invoke_result_t<F&>> on_pool(F& call, uint64_t bytes = 0) {
    const bool may_be_short = bytes > 0 && bytes <= limits::kOwnCallBytesMax;
    co_await slots_.take();
    auto result = co_await pool_.run(call, may_be_short ? &pace_ : nullptr, bytes);
    slots_.give();
    co_return result;
  }

  std::unique_ptr<BlockingDevice> device_;
  WorkerPool& pool_;
  Slots slots_;
  CallPace pace_{limits::kShortCall};
  Capabilities capabilities_;
  Geometry geometry_;
};

}  // namespace

std::unique_ptr<Device> make_device(std::unique_ptr<BlockingDevice> device, WorkerPool& pool,
                                    unsigned concurrency_max) {
  USBD_ASSERT(device != nullptr && concurrency_max > 0);
  USBD_ASSERT(std::has_single_bit(device->block_size()) && device->block_size() <= 65536);
  return std::make_unique<BlockingAdapter>(std::move(device), pool, concurrency_max);
}

}  // namespace usbd
