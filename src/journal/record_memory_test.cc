// SPDX-License-Identifier: Apache-2.0
//
// Which buffers come back, how many are kept, and what becomes of those that nobody waits for.

#include "journal/record_memory.h"

#include <cstdint>
#include <optional>

#include <gtest/gtest.h>

namespace usbd::journal {
namespace {

TEST(RecordMemory, GivesABufferForTheNextPowerOfTwoOfBlocks) {
  RecordMemory memory(0);
  EXPECT_EQ(memory.take(0)->size(), (kHeaderBlocksMax + 1) * kBlock);
  EXPECT_EQ(memory.take(5)->size(), (kHeaderBlocksMax + 8) * kBlock);
  EXPECT_EQ(memory.take(8)->size(), (kHeaderBlocksMax + 8) * kBlock);
  EXPECT_EQ(memory.take(kPayloadBlocksMax)->size(), kRecordBytesMax);
}

TEST(RecordMemory, AlignsBuffersForDirectIo) {
  RecordMemory memory(0);
  const auto buffer = memory.take(1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->bytes().data()) % kBlock, 0U);
}

TEST(RecordMemory, GivesTheSameBufferAgain) {
  RecordMemory memory(1U << 20);
  auto buffer = memory.take(4);
  const std::byte* const place = buffer->bytes().data();
  const size_t size = buffer->size();
  buffer = nullptr;
  EXPECT_EQ(memory.free_bytes(), size);
  EXPECT_EQ(memory.take(3)->bytes().data(), place);
  EXPECT_NE(memory.take(5)->bytes().data(), place);  // another size
}

TEST(RecordMemory, KeepsNoMoreThanItMay) {
  const size_t one = (kHeaderBlocksMax + 1) * kBlock;
  RecordMemory memory(2 * one);
  {
    const auto a = memory.take(1);
    const auto b = memory.take(1);
    const auto c = memory.take(1);
  }
  EXPECT_EQ(memory.free_bytes(), 2 * one);
  memory.trim();
  EXPECT_EQ(memory.free_bytes(), 0U);
}

TEST(RecordMemory, MayGoBeforeItsBuffers) {
  std::optional<RecordMemory> memory(1U << 20);
  const auto buffer = memory->take(1);
  memory.reset();
  buffer->bytes()[0] = std::byte(1);
}

}  // namespace
}  // namespace usbd::journal
