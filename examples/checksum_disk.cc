// SPDX-License-Identifier: Apache-2.0
//
// A whole block device in 60 lines: a disk in memory that checks itself. Each block is kept with a
// checksum; one that has changed behind its back (bad memory, a stray pointer) is answered with an
// error instead of wrong bytes. docs/guides/write-a-device.md goes through it.

#include <algorithm>
#include <vector>

#include <usbd/serve.h>

class ChecksumDisk final : public usbd::BlockingDevice {
 public:
  explicit ChecksumDisk(uint64_t size)
      : bytes_(size), sums_(size / kBlock, checksum(usbd::Bytes(bytes_).first(kBlock))) {}

  std::string name() const override { return "checksum-disk"; }
  uint64_t size() const override { return bytes_.size(); }
  uint32_t block_size() const override { return kBlock; }
  // A block and its checksum change together: no call may see one without the other.
  bool single_threaded() const override { return true; }

  usbd::Result<void> read_at(uint64_t offset, usbd::MutableBytes data) override {
    const usbd::Bytes stored = usbd::Bytes(bytes_).subspan(offset, data.size());
    for (size_t at = 0; at < stored.size(); at += kBlock) {
      if (checksum(stored.subspan(at, kBlock)) != sums_[(offset + at) / kBlock]) {
        return usbd::Error(usbd::Errc::kIo, "block at " + std::to_string(offset + at) + " decayed");
      }
    }
    std::ranges::copy(stored, data.begin());
    return {};
  }

  usbd::Result<void> write_at(uint64_t offset, usbd::Bytes data, usbd::WriteFlags) override {
    std::ranges::copy(data, bytes_.begin() + static_cast<ptrdiff_t>(offset));
    for (size_t at = 0; at < data.size(); at += kBlock) {
      sums_[(offset + at) / kBlock] = checksum(data.subspan(at, kBlock));
    }
    return {};
  }

 private:
  static constexpr size_t kBlock = 4096;

  static uint64_t checksum(usbd::Bytes block) {  // FNV-1a
    uint64_t sum = 0xcbf29ce484222325;
    for (const std::byte byte : block) sum = (sum ^ static_cast<uint64_t>(byte)) * 0x100000001b3;
    return sum;
  }

  std::vector<std::byte> bytes_;
  std::vector<uint64_t> sums_;
};

int main(int argc, char** argv) {
  return usbd::serve(std::make_unique<ChecksumDisk>(64U << 20), argc, argv);
}
