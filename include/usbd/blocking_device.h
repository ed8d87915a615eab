// SPDX-License-Identifier: Apache-2.0
//
// BlockingDevice: the easy way to write a device: plain functions that may wait. The framework
// calls them from a bounded pool of threads and makes a Device of them (make_device). While its
// reads and writes prove short, a loop makes them on its own thread; should one wait after all,
// another thread goes on with the loop.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "usbd/buffer.h"
#include "usbd/device.h"
#include "usbd/result.h"

namespace usbd {

/// Threads:  called from threads of the pool and of the loops, several at once unless
///           single_threaded() says true. None of them is a loop's during the call.
/// Lifetime: memory passed in is valid during the call.
/// Range:    offsets and lengths are within size() and multiples of block_size(), not empty.
class BlockingDevice {
 public:
  virtual ~BlockingDevice() = default;

  [[nodiscard]] virtual std::string name() const { return "device"; }
  /// Units: bytes; a multiple of block_size().
  [[nodiscard]] virtual uint64_t size() const = 0;
  /// The unit of reads and writes: a power of two from 1 to 65536; core does read-modify-write for
  /// clients that use less.
  [[nodiscard]] virtual uint32_t block_size() const { return 512; }
  /// Asked once, before the first request. Default: writes only, everything else emulated by core.
  [[nodiscard]] virtual Capabilities capabilities() const { return {}; }
  /// Whether calls must never overlap. Default: they may.
  [[nodiscard]] virtual bool single_threaded() const { return false; }

  /// Fills all of `data`, or fails. Errors: kIo.
  virtual Result<void> read_at(uint64_t offset, MutableBytes data) = 0;
  /// Writes all of `data`, or fails.
  /// Durable: only if flags.fua and capabilities().fua is native, or after a flush().
  /// Errors:  kNoSpace, kIo; the range then holds old, new or mixed data, per block.
  virtual Result<void> write_at(uint64_t offset, Bytes data, WriteFlags flags) = 0;
  /// Makes everything that completed before durable. Default: success (nothing is volatile).
  virtual Result<void> flush() { return {}; }
  /// Frees the range, which then reads as zeros; called only if capabilities().trim is native.
  virtual Result<void> trim(ByteRange range, WriteFlags flags);
  /// Called only if capabilities().write_zeroes is native. Errors: kNotSupported for flags it
  /// lacks.
  virtual Result<void> write_zeroes(ByteRange range, ZeroFlags flags);
  /// See Device::extents; called only if capabilities().extents is native.
  virtual Result<std::vector<Extent>> extents(ByteRange range, size_t extents_max);
  /// Called only if capabilities().resize is native. Units: bytes.
  virtual Result<void> resize(uint64_t size);
  /// The last call. Default: flush().
  virtual Result<void> close() { return flush(); }
};

class WorkerPool;

/// Makes a Device of a BlockingDevice.
/// Threads:  its calls run on `pool` or, while short, on the loop's thread, at most
///           `concurrency_max` at once.
/// Lifetime: `pool` outlives the device.
std::unique_ptr<Device> make_device(std::unique_ptr<BlockingDevice> device, WorkerPool& pool,
                                    unsigned concurrency_max);

}  // namespace usbd
