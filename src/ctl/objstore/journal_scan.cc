// SPDX-License-Identifier: Apache-2.0
//
// Every block of the ring may begin a record. Those of earlier laps have lower numbers.

#include "ctl/objstore/journal_scan.h"

#include <algorithm>

#include "base/aligned_buffer.h"
#include "base/limits.h"

namespace usbd::ctl {
namespace {

constexpr uint64_t kHeaderBytesMax = journal::kHeaderBlocksMax * journal::kBlock;

}  // namespace

Task<Result<ChangesBehind>> find_changes_behind(BlockFile& file, journal::Superblock superblock,
                                                uint64_t number) {
  ChangesBehind found;
  objstore::BlockSet numbers;
  uint64_t last = number;
  AlignedBuffer memory(limits::kCheckFetchBytes + kHeaderBytesMax);
  for (uint64_t start = 0; start < superblock.ring_bytes; start += limits::kCheckFetchBytes) {
    const uint64_t length = std::min<uint64_t>(memory.size(), superblock.ring_bytes - start);
    const MutableBytes piece = memory.bytes().first(length);
    USBD_CO_TRY_VOID(co_await file.read(journal::kRingStart + start, piece));
    const uint64_t end = std::min<uint64_t>(length, limits::kCheckFetchBytes);
    for (uint64_t at = 0; at < end; at += journal::kBlock) {
      const Bytes from = Bytes(piece).subspan(at, std::min(kHeaderBytesMax, length - at));
      const Result<journal::Header> header = journal::parse_header(from, superblock.journal);
      if (!header) continue;
      for (const journal::Entry& entry : header->entries) {
        if (entry.number <= number) continue;
        found.blocks.add({entry.block, entry.blocks});
        numbers.add({entry.number, 1});
        last = std::max(last, entry.number);
      }
    }
  }
  const std::vector<objstore::BlockRange> runs = numbers.within({number + 1, last - number});
  found.complete = runs.size() == 1 && runs.front().first == number + 1;
  co_return found;
}

}  // namespace usbd::ctl
