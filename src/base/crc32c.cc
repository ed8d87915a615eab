// SPDX-License-Identifier: Apache-2.0
//
// The instruction takes three cycles and can begin anew in each, so long data goes through it in
// three lanes at once. What the lanes hold is joined by a table that moves a checksum past the
// bytes of one lane. The portable way looks eight bytes up at once in as many tables.

#include "base/crc32c.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "base/assert.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define USBD_CRC32C_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define USBD_CRC32C_TARGET
#endif

namespace usbd {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // 0x1EDC6F41, its bits reversed
constexpr size_t kWord = sizeof(uint64_t);
constexpr size_t kBytesOfCrc = 4;

using Table = std::array<uint32_t, 256>;

/// Table i gives what a byte does to the checksum when i zero bytes follow it.
constexpr std::array<Table, kWord> byte_tables() {
  std::array<Table, kWord> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t i = 1; i < kWord; ++i) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables[i - 1][byte];
      tables[i][byte] = (crc >> 8U) ^ tables[0][crc & 0xFFU];
    }
  }
  return tables;
}

constexpr std::array<Table, kWord> kTables = byte_tables();

uint32_t add_byte(uint32_t crc, std::byte byte) {
  return (crc >> 8U) ^ kTables[0][(crc ^ std::to_integer<uint32_t>(byte)) & 0xFFU];
}

/// Eight bytes as the checksum takes them: the first is the lowest.
uint64_t load_word(const std::byte* from) {
  uint64_t word = 0;
  std::memcpy(&word, from, kWord);
  return std::endian::native == std::endian::little ? word : std::byteswap(word);
}

uint32_t add_word(uint32_t crc, uint64_t word) {
  word ^= crc;
  uint32_t sum = 0;
  for (size_t i = 0; i < kWord; ++i) sum ^= kTables[kWord - 1 - i][(word >> (8 * i)) & 0xFFU];
  return sum;
}

#if defined(USBD_CRC32C_TARGET)

/// Three lanes of this many bytes are 16 short of 1 KiB, so that 4 KiB leave little over.
constexpr size_t kLaneBytes = 336;
static_assert(kLaneBytes % kWord == 0);

/// Table i gives what byte i of a checksum becomes when kLaneBytes zero bytes follow.
constexpr std::array<Table, kBytesOfCrc> lane_tables() {
  std::array<uint32_t, 32> bits{};
  for (size_t i = 0; i < bits.size(); ++i) {
    uint32_t crc = 1U << i;
    for (size_t n = 0; n < kLaneBytes; ++n) crc = (crc >> 8U) ^ kTables[0][crc & 0xFFU];
    bits[i] = crc;
  }
  std::array<Table, kBytesOfCrc> tables{};
  for (size_t i = 0; i < kBytesOfCrc; ++i) {
    for (size_t byte = 1; byte < 256; ++byte) {
      const size_t lowest = static_cast<size_t>(std::countr_zero(byte));
      tables[i][byte] = tables[i][byte & (byte - 1)] ^ bits[8 * i + lowest];
    }
  }
  return tables;
}

constexpr std::array<Table, kBytesOfCrc> kLaneTables = lane_tables();

uint32_t past_lane(uint32_t crc) {
  return kLaneTables[0][crc & 0xFFU] ^ kLaneTables[1][(crc >> 8U) & 0xFFU] ^
         kLaneTables[2][(crc >> 16U) & 0xFFU] ^ kLaneTables[3][crc >> 24U];
}

#if defined(__x86_64__)
USBD_CRC32C_TARGET uint64_t step(uint64_t crc, uint64_t word) {
  return _mm_crc32_u64(crc, word);
}
USBD_CRC32C_TARGET uint32_t step_byte(uint32_t crc, std::byte byte) {
  return _mm_crc32_u8(crc, std::to_integer<uint8_t>(byte));
}
#else
uint64_t step(uint64_t crc, uint64_t word) {
  return __crc32cd(static_cast<uint32_t>(crc), word);
}
uint32_t step_byte(uint32_t crc, std::byte byte) {
  return __crc32cb(crc, std::to_integer<uint8_t>(byte));
}
#endif

USBD_CRC32C_TARGET uint32_t add_lanes(uint32_t crc, const std::byte* from) {
  uint64_t first = crc;
  uint64_t second = 0;
  uint64_t third = 0;
  for (const std::byte* const end = from + kLaneBytes; from != end; from += kWord) {
    first = step(first, load_word(from));
    second = step(second, load_word(from + kLaneBytes));
    third = step(third, load_word(from + 2 * kLaneBytes));
  }
  const uint32_t two = past_lane(static_cast<uint32_t>(first)) ^ static_cast<uint32_t>(second);
  return past_lane(two) ^ static_cast<uint32_t>(third);
}

USBD_CRC32C_TARGET uint32_t with_instruction(uint32_t crc, Bytes data) {
  for (; data.size() >= 3 * kLaneBytes; data = data.subspan(3 * kLaneBytes)) {
    crc = add_lanes(crc, data.data());
  }
  uint64_t words = crc;
  for (; data.size() >= kWord; data = data.subspan(kWord)) {
    words = step(words, load_word(data.data()));
  }
  crc = static_cast<uint32_t>(words);
  for (const std::byte byte : data) crc = step_byte(crc, byte);
  return crc;
}

#else

uint32_t with_instruction(uint32_t crc, Bytes) {
  return crc;
}

#endif

bool find_instruction() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2") != 0;
#elif defined(USBD_CRC32C_TARGET)
  return true;
#else
  return false;
#endif
}

}  // namespace

namespace detail {

uint32_t crc32c_portable(Bytes data, uint32_t before) {
  uint32_t crc = ~before;
  for (; data.size() >= kWord; data = data.subspan(kWord)) {
    crc = add_word(crc, load_word(data.data()));
  }
  for (const std::byte byte : data) crc = add_byte(crc, byte);
  return ~crc;
}

bool has_crc32c_instruction() {
  static const bool kFound = find_instruction();
  return kFound;
}

uint32_t crc32c_hardware(Bytes data, uint32_t before) {
  USBD_ASSERT(has_crc32c_instruction());
  return ~with_instruction(~before, data);
}

}  // namespace detail

uint32_t crc32c(Bytes data, uint32_t before) {
  return detail::has_crc32c_instruction() ? ~with_instruction(~before, data)
                                          : detail::crc32c_portable(data, before);
}

}  // namespace usbd
