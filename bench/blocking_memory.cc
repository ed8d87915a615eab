// SPDX-License-Identifier: Apache-2.0
//
// blocking_memory SIZE [flags of usbd::serve]: serves a BlockingDevice over plain memory, so that
// what is measured is the price of writing a device in the easy way.

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "bench/aligned_buffer.h"
#include "bench/arguments.h"
#include "usbd/serve.h"

namespace usbd::bench {
namespace {

class BlockingMemory final : public BlockingDevice {
 public:
  explicit BlockingMemory(uint64_t size) : size_(size), memory_(make_aligned_buffer(size)) {}

  [[nodiscard]] std::string name() const override { return "blocking-memory"; }
  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] uint32_t block_size() const override { return 512; }
  [[nodiscard]] Capabilities capabilities() const override {
    Capabilities can;
    can.ephemeral = true;
    can.volatile_cache = false;
    return can;
  }

  Result<void> read_at(uint64_t offset, MutableBytes data) override {
    std::memcpy(data.data(), memory_.get() + offset, data.size());
    return {};
  }
  Result<void> write_at(uint64_t offset, Bytes data, WriteFlags) override {
    std::memcpy(memory_.get() + offset, data.data(), data.size());
    return {};
  }

 private:
  const uint64_t size_;
  const AlignedBuffer memory_;
};

}  // namespace
}  // namespace usbd::bench

int main(int argc, char** argv) {
  const auto size = usbd::bench::parse_size(argc > 1 ? argv[1] : "");
  if (!size || *size == 0 || *size % 512 != 0) {
    std::fprintf(stderr, "usage: blocking_memory SIZE [flags]; SIZE such as 1GiB\n");
    return 2;
  }
  argv[1] = argv[0];
  return usbd::serve(std::make_unique<usbd::bench::BlockingMemory>(*size), argc - 1, argv + 1);
}
