// SPDX-License-Identifier: Apache-2.0
//
// A hash table of chunks; a missing one is all zeros.

#include "conformance/sparse_image.h"

#include <algorithm>
#include <cstring>

namespace usbd::testing {
namespace {

const std::vector<std::byte>& zero_chunk() {
  static const std::vector<std::byte> kZeros(SparseImage::kChunkBytes);
  return kZeros;
}

/// As std::mismatch, by memcmp: blocks that agree are the rule.
size_t difference_index(const std::byte* a, const std::byte* b, size_t length) {
  if (std::memcmp(a, b, length) == 0) return length;
  return static_cast<size_t>(std::mismatch(a, a + length, b).first - a);
}

}  // namespace

SparseImage::Piece SparseImage::piece_at(ByteRange range, uint64_t done) {
  const uint64_t offset = range.offset + done;
  const uint64_t in_chunk = offset % kChunkBytes;
  const uint64_t length = std::min(kChunkBytes - in_chunk, range.length - done);
  return {.chunk = offset / kChunkBytes, .in_chunk = in_chunk, .length = length, .in_range = done};
}

const SparseImage::Chunk* SparseImage::find(uint64_t chunk) const {
  const auto found = chunks_.find(chunk);
  return found == chunks_.end() ? nullptr : &found->second;
}

SparseImage::Chunk& SparseImage::make(uint64_t chunk) {
  Chunk& made = chunks_[chunk];
  if (made.empty()) made.resize(kChunkBytes);
  return made;
}

void SparseImage::write(uint64_t offset, Bytes data) {
  const ByteRange range(offset, data.size());
  for (uint64_t done = 0; done < range.length;) {
    const Piece piece = piece_at(range, done);
    std::memcpy(make(piece.chunk).data() + piece.in_chunk, data.data() + done, piece.length);
    done += piece.length;
  }
}

void SparseImage::zero(ByteRange range) {
  for (uint64_t done = 0; done < range.length;) {
    const Piece piece = piece_at(range, done);
    if (piece.length == kChunkBytes) {
      chunks_.erase(piece.chunk);
    } else if (find(piece.chunk) != nullptr) {
      std::memset(make(piece.chunk).data() + piece.in_chunk, 0, piece.length);
    }
    done += piece.length;
  }
}

void SparseImage::read(uint64_t offset, MutableBytes data) const {
  const ByteRange range(offset, data.size());
  for (uint64_t done = 0; done < range.length;) {
    const Piece piece = piece_at(range, done);
    const Chunk* const chunk = find(piece.chunk);
    const std::byte* const from = (chunk != nullptr ? *chunk : zero_chunk()).data();
    std::memcpy(data.data() + done, from + piece.in_chunk, piece.length);
    done += piece.length;
  }
}

std::byte SparseImage::at(uint64_t offset) const {
  const Chunk* const chunk = find(offset / kChunkBytes);
  return chunk == nullptr ? std::byte{0} : (*chunk)[offset % kChunkBytes];
}

void SparseImage::copy_from(const SparseImage& other, ByteRange range) {
  for (uint64_t done = 0; done < range.length;) {
    const Piece piece = piece_at(range, done);
    const ByteRange part(range.offset + done, piece.length);
    const Chunk* const chunk = other.find(piece.chunk);
    if (chunk == nullptr) {
      zero(part);
    } else {
      write(part.offset, Bytes(*chunk).subspan(piece.in_chunk, piece.length));
    }
    done += piece.length;
  }
}

size_t SparseImage::first_difference(uint64_t offset, Bytes data) const {
  const ByteRange range(offset, data.size());
  for (uint64_t done = 0; done < range.length;) {
    const Piece piece = piece_at(range, done);
    const Chunk* const chunk = find(piece.chunk);
    const std::byte* const expected = (chunk != nullptr ? *chunk : zero_chunk()).data();
    const size_t same =
        difference_index(expected + piece.in_chunk, data.data() + done, piece.length);
    if (same < piece.length) return done + same;
    done += piece.length;
  }
  return data.size();
}

uint64_t SparseImage::first_nonzero(ByteRange range) const {
  for (uint64_t done = 0; done < range.length;) {
    const Piece piece = piece_at(range, done);
    const Chunk* const chunk = find(piece.chunk);
    if (chunk != nullptr) {
      const std::byte* const from = chunk->data() + piece.in_chunk;
      const size_t zeros = difference_index(from, zero_chunk().data(), piece.length);
      if (zeros < piece.length) return range.offset + done + zeros;
    }
    done += piece.length;
  }
  return range.end();
}

}  // namespace usbd::testing
