// SPDX-License-Identifier: Apache-2.0
//
// For the journal's tests: a file that can be made to wait or to die between the journal and a
// FaultDisk, a sealer with a key, and the payload that tests write.

#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "async/block_file.h"
#include "base/crc32c.h"
#include "base/random.h"
#include "journal/sealer.h"
#include "usbd/loop.h"

namespace usbd::journal::testing {

/// What a test does to a HeldFile. Lifetime: outlives the file.
struct Hold {
  /// Calls of that kind wait until it is false.
  bool writes = false;
  bool syncs = false;
  /// The process has been killed: its calls fail and reach nothing.
  bool dead = false;
  /// Called before a write or a sync reaches the disk.
  std::function<void()> before_write = [] {};
  std::function<void()> before_sync = [] {};
};

class HeldFile final : public BlockFile {
 public:
  HeldFile(std::unique_ptr<BlockFile> file, Hold& hold) : file_(std::move(file)), hold_(hold) {}

  [[nodiscard]] std::string name() const override { return file_->name(); }
  [[nodiscard]] uint32_t block_size() const override { return file_->block_size(); }
  [[nodiscard]] Result<uint64_t> size() const override { return file_->size(); }
  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    if (hold_.dead) co_return Error(Errc::kIo, "killed");
    co_return co_await file_->read(offset, data);
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    co_await wait_while(hold_.writes);
    hold_.before_write();
    if (hold_.dead) co_return Error(Errc::kIo, "killed");
    co_return co_await file_->write(offset, data, flags);
  }
  Task<Result<void>> datasync() override {
    co_await wait_while(hold_.syncs);
    hold_.before_sync();
    if (hold_.dead) co_return Error(Errc::kIo, "killed");
    co_return co_await file_->datasync();
  }
  Task<Result<void>> allocate(ByteRange range) override { return file_->allocate(range); }
  Task<Result<void>> punch(ByteRange range) override { return file_->punch(range); }
  Task<Result<void>> zero(ByteRange range) override { return file_->zero(range); }
  Task<Result<void>> truncate(uint64_t size) override { return file_->truncate(size); }
  Task<Result<uint64_t>> next_data(uint64_t offset) override { return file_->next_data(offset); }
  Task<Result<uint64_t>> next_hole(uint64_t offset) override { return file_->next_hole(offset); }
  Task<Result<void>> close() override { return file_->close(); }

 private:
  Task<void> wait_while(const bool& held) const {
    while (held && !hold_.dead) co_await Loop::current().sleep_for(Nanos(100'000));
  }

  const std::unique_ptr<BlockFile> file_;
  Hold& hold_;
};

/// Tells another key, salt, nonce or associated data; hides nothing from anybody.
class KeySealer final : public Sealer {
 public:
  KeySealer(uint64_t key, const Salt& salt) : key_(mix64(key ^ crc32c(salt))) {}

  Tag seal(const Nonce& nonce, Bytes aad, Bytes plain, MutableBytes out) const override {
    const Tag tag = tag_of(nonce, aad, plain);
    mask(nonce, plain, out);
    return tag;
  }
  [[nodiscard]] bool open(const Nonce& nonce, Bytes aad, Bytes sealed, const Tag& tag,
                          MutableBytes out) const override {
    mask(nonce, sealed, out);
    return tag_of(nonce, aad, out) == tag;
  }

 private:
  void mask(const Nonce& nonce, Bytes from, MutableBytes to) const {
    const auto pad = static_cast<std::byte>(mix64(key_ ^ crc32c(nonce)) | 1U);
    std::ranges::transform(from, to.begin(), [pad](std::byte byte) { return byte ^ pad; });
  }
  [[nodiscard]] Tag tag_of(const Nonce& nonce, Bytes aad, Bytes plain) const {
    const uint64_t sum = mix64(key_ ^ crc32c(nonce) ^ uint64_t{crc32c(plain)} << 32U);
    const std::array<uint64_t, 2> words = {sum, mix64(sum ^ crc32c(aad))};
    Tag tag;
    std::memcpy(tag.data(), words.data(), tag.size());
    return tag;
  }

  const uint64_t key_;
};

inline SealerSource sealers_of(uint64_t key) {
  return [key](const Salt& salt) { return std::make_shared<const KeySealer>(key, salt); };
}

/// What entry `number` holds in these tests.
inline std::vector<std::byte> payload_of(uint64_t number, uint32_t blocks) {
  std::vector<std::byte> bytes(blocks * kBlock);
  SeededRng(number).fill(bytes);
  return bytes;
}

}  // namespace usbd::journal::testing
