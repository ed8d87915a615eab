// SPDX-License-Identifier: Apache-2.0
//
// Device: what a fast device implements, and what every frontend is served from. Authors who would
// rather write plain blocking functions implement BlockingDevice (usbd/blocking_device.h), which
// the framework turns into a Device.
//
// A frontend never calls a Device: it calls core's Export, which checks every request against the
// device's size and geometry, emulates what the device lacks, and keeps overlapping writes apart.
// So a device sees only requests that are in range and aligned, and asserts it.
//
// Promises every device keeps (docs/guides/write-a-device.md):
// - flush() succeeds only when every write, trim and zeroing that completed before it was called
//   is on stable storage. A device without volatile state returns success.
// - After a failed sync whose data cannot be written again, flush() and FUA go on failing with kIo:
//   the kernel forgets such an error, the device must not.
// - An error concerns the one request; the device goes on.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "usbd/buffer.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd {

/// How a device has an optional operation.
enum class Support : uint8_t {
  kNone,      ///< It has not, and clients are not told of it.
  kEmulated,  ///< It has not; core does it with other operations.
  kNative,    ///< The device does it.
};

/// Which optional operations a device has; fixed when it is opened.
struct Capabilities {
  /// kNative: trim() frees space and the range reads as zeros afterwards. kEmulated: by
  /// write_zeroes, which must be native.
  Support trim = Support::kNone;
  /// kNative: write_zeroes(). kEmulated: core writes zeros.
  Support write_zeroes = Support::kEmulated;
  /// Whether write_zeroes() is much faster than writing (NBD's FAST_ZERO may be promised).
  bool fast_zero = false;
  /// kNative: write(), trim() and write_zeroes() honour kFua. kEmulated: core flushes after.
  Support fua = Support::kEmulated;
  /// kNative: extents(). kEmulated: all is data.
  Support extents = Support::kEmulated;
  Support resize = Support::kNone;
  /// Whether flush() and FUA on one connection cover writes completed on every other one.
  bool multi_connection = true;
  /// Whether writes may be lost in a crash unless flushed; told to the kernel and to clients.
  bool volatile_cache = true;
  bool read_only = false;
  /// Whether the device holds nothing that a crash of its process could keep (memory).
  bool ephemeral = false;
  /// Whether no operation ever waits: all of them are called inline, without a coroutine where a
  /// try_ form exists.
  bool never_blocks = false;
};

/// Units: bytes. Every field but `size` and `max_io` is a power of two.
struct Geometry {
  uint64_t size = 0;
  /// The smallest unit of the device's own operations: offsets and lengths are multiples of it.
  uint32_t block_size = 1;
  /// The logical block size that a kernel sees; at least block_size. Range: 512 to 4096.
  uint32_t logical_block_size = 4096;
  /// The I/O size that costs least.
  uint32_t preferred_io = 4096;
  /// The largest single read or write; core splits larger ones. A multiple of block_size.
  uint32_t max_io = 32U << 20;
};

/// A run of a device that is one kind all through.
struct Extent {
  uint64_t length = 0;
  /// Nothing is allocated for it. Ref: NBD protocol, NBD_STATE_HOLE.
  bool hole = false;
  /// It reads as zeros. Ref: NBD protocol, NBD_STATE_ZERO.
  bool zero = false;

  friend bool operator==(const Extent&, const Extent&) = default;
};

struct WriteFlags {
  /// Success only once this very write is on stable storage.
  bool fua = false;
};

struct ZeroFlags {
  bool fua = false;
  /// Keep (or make) the space allocated. Ref: NBD protocol, NBD_CMD_FLAG_NO_HOLE.
  bool no_hole = false;
  /// Fail with kNotSupported rather than be as slow as writing. Ref: NBD_CMD_FLAG_FAST_ZERO.
  bool fast_only = false;
};

/// Threads:  unless said otherwise every function may be called from any loop thread, any number of
///           calls outstanding at once; a task's coroutine runs on the loop that called.
/// Lifetime: memory passed in stays valid until the task has finished.
/// Range:    callers guarantee ranges within size() and multiples of block_size, not empty;
/// asserted.
class Device {
 public:
  virtual ~Device() = default;

  /// What the device is called in logs and to clients, such as "mem" or "file:/var/x.bin".
  [[nodiscard]] virtual std::string name() const = 0;
  /// Fixed from opening to closing, but for `size` of a device that can resize.
  [[nodiscard]] virtual Geometry geometry() const = 0;
  [[nodiscard]] virtual Capabilities capabilities() const = 0;

  /// Fills all of `data` from `offset`, or fails.
  /// Errors: kIo; `data` then holds anything, and is not sent to anybody.
  /// Ref:    NBD protocol, NBD_CMD_READ; linux uapi ublk_cmd.h, UBLK_IO_OP_READ.
  virtual Task<Result<void>> read(uint64_t offset, MutableBytes data) = 0;

  /// Writes all of `data` at `offset`, or fails; never a partial success.
  /// Durable: only if flags.fua (where native), or after a later flush() has succeeded.
  /// Order:   core never lets overlapping writes, trims or zeroings be outstanding together.
  /// Errors:  kNoSpace, kIo; after an error the range holds old, new or mixed data, per block.
  virtual Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) = 0;

  /// Makes every write, trim and zeroing that completed before this call durable.
  /// Errors: kIo; see the promises at the top of this file.
  virtual Task<Result<void>> flush() = 0;

  /// Gives the range's space back; it reads as zeros afterwards.
  /// Range:   up to the whole device in one call; takes no lock for all of it.
  /// Durable: as write(). Default: kNotSupported.
  virtual Task<Result<void>> trim(ByteRange range, WriteFlags flags);

  /// Makes the range read as zeros.
  /// Errors:  kNotSupported if flags ask for what the device cannot do; else as write().
  /// Default: kNotSupported.
  virtual Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags);

  /// The kinds of the range's parts, from its start, at most `extents_max` of them (at least one);
  /// the last may reach beyond the range. Neighbours differ. Adds only what is true: a run that
  /// is not known to be a hole is data.
  /// Default: one extent of data.
  virtual Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max);

  /// Asks the device to have the range at hand soon. A hint. Default: success, nothing done.
  virtual Task<Result<void>> cache(ByteRange range);

  /// Changes the size. Units: bytes. Default: kNotSupported.
  virtual Task<Result<void>> resize(uint64_t size);

  /// Flushes and releases everything; the last call. No other call is outstanding or follows.
  /// Errors: what made the final flush fail; the device is closed all the same.
  virtual Task<Result<void>> close() = 0;

  /// The same as read() if it can be done without waiting; empty: would wait, ask read().
  /// Default: empty.
  virtual std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data);
  /// The same as write() if it can be done without waiting. Default: empty.
  virtual std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags flags);
  /// The same as flush() if it can be done without waiting. Default: empty.
  virtual std::optional<Result<void>> try_flush();

  /// Direct memory: the device's own bytes for `range`, from which a frontend may send, or into
  /// which it may receive; empty: there is none, use the calls above.
  /// Lifetime: the memory stays mapped until close(); its contents may change under the reader.
  /// Order:    whoever stored into it calls direct_written() for what was stored, also when the
  ///           request failed half way, and only then answers.
  /// Default:  empty.
  virtual MutableBytes direct(ByteRange range);
  /// Says that bytes of `range` were stored through direct(). Default: nothing.
  virtual void direct_written(ByteRange range);
};

}  // namespace usbd
