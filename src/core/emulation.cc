// SPDX-License-Identifier: Apache-2.0
//
// The tasks of an Export, and what they do for a device that lacks an operation or has larger
// blocks than its clients: read-modify-write under the claim, FUA by a flush, zeroing by writing
// zeros, ragged edges of trims and zeroings as zeros, long trims piece by piece.

#include <algorithm>
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/limits.h"
#include "core/export.h"

namespace usbd {

Task<Result<void>> Export::read(ByteRange range, MutableBytes data) {
  if (is_aligned(range)) co_return co_await read_aligned(range, data);
  const ByteRange blocks = whole_blocks(range);
  const AlignedBuffer buffer(blocks.length);
  USBD_CO_TRY_VOID(co_await read_aligned(blocks, buffer.bytes()));
  std::memcpy(data.data(), buffer.bytes().data() + (range.offset - blocks.offset), range.length);
  co_return Result<void>();
}

Task<Result<void>> Export::read_aligned(ByteRange range, MutableBytes data) {
  for (uint64_t done = 0; done < range.length;) {
    const uint64_t part = std::min<uint64_t>(range.length - done, geometry_.max_io);
    USBD_CO_TRY_VOID(co_await device_.read(range.offset + done, data.subspan(done, part)));
    done += part;
  }
  co_return Result<void>();
}

Task<Result<void>> Export::change(Request request, Bytes data, bool claimed, Requester& requester) {
  const ByteRange claim = claim_of(request);
  if (claim.empty()) co_return co_await change_in_pieces(request, requester);
  if (!claimed) {
    co_await locks_.acquire(claim);
    if (requester.is_gone()) {
      locks_.release(claim);
      co_return Errc::kCanceled;
    }
  }
  Result<void> result = co_await apply(request, data);
  locks_.release(claim);
  if (result && request.fua && capabilities_.fua != Support::kNative) {
    result = co_await device_.flush();
  }
  co_return result;
}

Task<Result<void>> Export::change_in_pieces(Request request, Requester& requester) {
  const uint64_t end = request.range.end();
  for (uint64_t offset = request.range.offset; offset < end;) {
    // Pieces end on multiples of the chunk, so that only the first and last can be ragged.
    const uint64_t next = std::min(end, (offset / limits::kTrimChunk + 1) * limits::kTrimChunk);
    Request piece = request;
    piece.range = ByteRange(offset, next - offset);
    piece.fua = false;  // one flush at the end costs less than one for each piece
    const ByteRange claim = whole_blocks(piece.range);
    co_await locks_.acquire(claim);
    Result<void> result = Errc::kCanceled;
    if (!requester.is_gone()) result = co_await apply(piece, {});
    locks_.release(claim);
    if (!result) co_return result;
    request.fast_only = false;  // a refusal after this would come with a part changed
    offset = next;
    co_await Loop::current().schedule();  // others on this loop have their turn
  }
  if (request.fua) co_return co_await device_.flush();
  co_return Result<void>();
}

Task<Result<void>> Export::apply(Request request, Bytes data) {
  if (request.op == Op::kWrite) co_return co_await apply_write(request, data);
  co_return co_await apply_clearing(request);
}

Task<Result<void>> Export::apply_write(Request request, Bytes data) {
  if (is_aligned(request.range)) co_return co_await write_aligned(request.range, data, request.fua);
  const uint64_t block = geometry_.block_size;
  ByteRange rest = request.range;
  while (!rest.empty()) {
    const Bytes rest_data = data.last(rest.length);
    uint64_t part = block - rest.offset % block;  // to the end of the block it begins in
    if (rest.offset % block == 0 && rest.length >= block) {
      part = rest.length / block * block;
      const ByteRange middle(rest.offset, part);
      USBD_CO_TRY_VOID(co_await write_aligned(middle, rest_data.first(part), request.fua));
    } else {
      part = std::min(part, rest.length);
      const ByteRange edge(rest.offset, part);
      USBD_CO_TRY_VOID(co_await modify_block(edge, rest_data.first(part)));
    }
    rest = ByteRange(rest.offset + part, rest.length - part);
  }
  co_return Result<void>();
}

Task<Result<void>> Export::write_aligned(ByteRange range, Bytes data, bool fua) {
  const WriteFlags flags{.fua = fua && capabilities_.fua == Support::kNative};
  for (uint64_t done = 0; done < range.length;) {
    const uint64_t part = std::min<uint64_t>(range.length - done, geometry_.max_io);
    USBD_CO_TRY_VOID(co_await device_.write(range.offset + done, data.subspan(done, part), flags));
    done += part;
  }
  co_return Result<void>();
}

/// Puts `data` (zeros if empty) into the one block that holds `part`. The caller holds the block.
Task<Result<void>> Export::modify_block(ByteRange part, Bytes data) {
  const ByteRange block = whole_blocks(part);
  USBD_ASSERT(block.length == geometry_.block_size);
  const AlignedBuffer buffer(block.length);
  USBD_CO_TRY_VOID(co_await device_.read(block.offset, buffer.bytes()));
  std::byte* const target = buffer.bytes().data() + (part.offset - block.offset);
  if (data.empty()) {
    std::memset(target, 0, part.length);
  } else {
    std::memcpy(target, data.data(), part.length);
  }
  // Durable at once where the device can: the request may have asked for FUA, and this is rare.
  const WriteFlags flags{.fua = capabilities_.fua == Support::kNative};
  co_return co_await device_.write(block.offset, buffer.bytes(), flags);
}

Task<Result<void>> Export::apply_clearing(Request piece) {
  const uint64_t block = geometry_.block_size;
  const ByteRange range = piece.range;
  const uint64_t head = std::min((block - range.offset % block) % block, range.length);
  const uint64_t tail = (range.length - head) % block;
  // The whole blocks first: if they are refused (fast_only), nothing may have changed.
  piece.range = ByteRange(range.offset + head, range.length - head - tail);
  if (!piece.range.empty()) USBD_CO_TRY_VOID(co_await clear_aligned(piece));
  if (head > 0) {
    const ByteRange edge(range.offset, head);
    USBD_CO_TRY_VOID(co_await modify_block(edge, {}));
  }
  if (tail > 0) {
    const ByteRange edge(range.end() - tail, tail);
    USBD_CO_TRY_VOID(co_await modify_block(edge, {}));
  }
  co_return Result<void>();
}

Task<Result<void>> Export::clear_aligned(Request piece) {
  const bool fua = piece.fua && capabilities_.fua == Support::kNative;
  if (piece.op == Op::kTrim && capabilities_.trim == Support::kNative) {
    const WriteFlags flags{.fua = fua};
    co_return co_await device_.trim(piece.range, flags);
  }
  if (capabilities_.write_zeroes == Support::kNative) {
    const ZeroFlags flags{.fua = fua, .no_hole = piece.no_hole, .fast_only = piece.fast_only};
    Result<void> result = co_await device_.write_zeroes(piece.range, flags);
    if (result || piece.fast_only || !result.error().is(Errc::kNotSupported)) co_return result;
  }
  if (piece.fast_only) co_return Errc::kNotSupported;
  co_return co_await write_zero_bytes(piece.range, fua);
}

Task<Result<void>> Export::write_zero_bytes(ByteRange range, bool fua) {
  const uint64_t unit = std::max<uint64_t>(
      geometry_.block_size,
      std::min<uint64_t>({limits::kZeroBufferBytes, geometry_.max_io, range.length}));
  const AlignedBuffer zeros(unit);
  std::memset(zeros.bytes().data(), 0, unit);
  for (uint64_t done = 0; done < range.length;) {
    const uint64_t part = std::min(range.length - done, unit);
    const WriteFlags flags{.fua = fua};
    USBD_CO_TRY_VOID(co_await device_.write(range.offset + done, zeros.bytes().first(part), flags));
    done += part;
  }
  co_return Result<void>();
}

Task<Result<void>> Export::flush() {
  return device_.flush();
}

Task<Result<void>> Export::cache(ByteRange range) {
  return device_.cache(whole_blocks(range));
}

Task<Result<std::vector<Extent>>> Export::extents(ByteRange range, size_t extents_max) {
  if (capabilities_.extents != Support::kNative) {
    const Extent all{.length = range.length, .hole = false, .zero = false};
    co_return std::vector<Extent>{all};
  }
  co_await extents_slots_.take();
  Result<std::vector<Extent>> result = co_await find_extents(range, extents_max);
  extents_slots_.give();
  co_return result;
}

Task<Result<std::vector<Extent>>> Export::find_extents(ByteRange range, size_t extents_max) {
  const ByteRange blocks = whole_blocks(range);
  USBD_CO_TRY(std::vector<Extent> found, co_await device_.extents(blocks, extents_max));
  USBD_ASSERT(!found.empty() && found.size() <= extents_max);
  uint64_t position = blocks.offset;
  std::vector<Extent> clipped;
  for (Extent& extent : found) {
    const uint64_t begin = std::max(position, range.offset);
    position += extent.length;
    const uint64_t end = std::min(position, range.end());
    if (begin >= end) continue;
    extent.length = end - begin;
    clipped.push_back(extent);
  }
  co_return clipped;
}

}  // namespace usbd
