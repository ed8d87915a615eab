// SPDX-License-Identifier: Apache-2.0
//
// What an Export checks, claims and says; how it emulates stands in emulation.cc.

#include "core/export.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd {
namespace {

ExportInfo describe(const Export::Options& options, const Geometry& geometry,
                    const Capabilities& capabilities) {
  ExportInfo info;
  info.name = options.name;
  info.description = options.description;
  info.size = geometry.size;
  info.block_size_min = options.strict_alignment ? geometry.block_size : 1;
  info.block_size_logical = std::max(geometry.logical_block_size, geometry.block_size);
  info.block_size_preferred = std::max({geometry.preferred_io, geometry.block_size, 512U});
  info.payload_max = limits::kRequestMax;
  info.read_only = options.read_only || capabilities.read_only;
  info.can_trim = capabilities.trim != Support::kNone;
  info.can_write_zeroes = capabilities.write_zeroes != Support::kNone;
  info.can_fast_zero = capabilities.write_zeroes == Support::kNative && capabilities.fast_zero;
  info.can_multi_connection = capabilities.multi_connection;
  return info;
}

}  // namespace

Export::Export(Device& device, const Options& options)
    : device_(device),
      geometry_(device.geometry()),
      capabilities_(device.capabilities()),
      has_direct_(geometry_.size >= geometry_.block_size &&
                  !device.direct(ByteRange(0, geometry_.block_size)).empty()),
      info_(describe(options, geometry_, capabilities_)),
      stats_(options.loops) {
  USBD_ASSERT(std::has_single_bit(geometry_.block_size));
  USBD_ASSERT(geometry_.size % geometry_.block_size == 0);
  USBD_ASSERT(geometry_.max_io > 0 && geometry_.max_io % geometry_.block_size == 0);
  USBD_ASSERT(capabilities_.trim != Support::kEmulated ||
              capabilities_.write_zeroes == Support::kNative);
}

int Export::check(const Request& request) const {
  if (request.op == Op::kFlush) return 0;
  const bool is_change = changes(request.op);
  if (is_change && info_.read_only) return EPERM;
  if ((request.op == Op::kTrim && !info_.can_trim) ||
      (request.op == Op::kWriteZeroes && !info_.can_write_zeroes)) {
    return EINVAL;
  }
  const auto [offset, length] = request.range;
  if (length == 0 || ((offset | length) & (info_.block_size_min - 1)) != 0) return EINVAL;
  const bool has_payload = request.op == Op::kRead || request.op == Op::kWrite;
  if (has_payload && length > info_.payload_max) return EINVAL;
  if (offset > info_.size || length > info_.size - offset) {
    return request.op == Op::kWrite || request.op == Op::kWriteZeroes ? ENOSPC : EINVAL;
  }
  return 0;
}

ByteRange Export::whole_blocks(ByteRange range) const {
  const uint64_t mask = geometry_.block_size - 1;
  const uint64_t begin = range.offset & ~mask;
  return {begin, ((range.end() + mask) & ~mask) - begin};
}

ByteRange Export::claim_of(const Request& request) const {
  if (request.op != Op::kWrite && request.range.length > limits::kTrimChunk) return {};
  return whole_blocks(request.range);
}

void Export::log_failure(Op op, ByteRange range, const Error& error, Nanos now) {
  uint64_t held_back = 0;
  if (!failure_log_.allow(now, held_back)) return;
  log::error("{}: {} of {} bytes at {} failed: {}{}", device_.name(), op_name(op), range.length,
             range.offset, error.message(),
             held_back > 0 ? fmt::format(" ({} more failures were not logged)", held_back) : "");
}

}  // namespace usbd
