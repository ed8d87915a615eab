// SPDX-License-Identifier: Apache-2.0
//
// with_disk EXPORT COMMAND: serves a scratch disk while COMMAND runs, then takes it away. Shows how
// a program that has a life of its own attaches, serves and stops a device. COMMAND finds the name
// of the disk in $DISK (/dev/nbd0, or a socket) and, of a socket, its URI in $DISK_URI:
//
//   with_disk unix:/tmp/scratch.sock 'nbdcopy image.raw "$DISK_URI" && nbdinfo --map "$DISK_URI"'
//   with_disk nbd 'mkfs.ext4 -q "$DISK" && mount "$DISK" /mnt && do_something; umount /mnt'

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>

#include <usbd/serve.h>

namespace {

/// 1 GiB of which only what was written takes memory; trim gives it back.
class ScratchDisk final : public usbd::BlockingDevice {
 public:
  std::string name() const override { return "scratch"; }
  uint64_t size() const override { return 1U << 30; }
  uint32_t block_size() const override { return kBlock; }
  bool single_threaded() const override { return true; }
  usbd::Capabilities capabilities() const override {
    usbd::Capabilities can;
    can.trim = usbd::Support::kNative;
    can.ephemeral = true;
    return can;
  }

  usbd::Result<void> read_at(uint64_t offset, usbd::MutableBytes data) override {
    for (size_t at = 0; at < data.size(); at += kBlock) {
      const auto found = blocks_.find(offset + at);
      const usbd::Bytes block = found == blocks_.end() ? usbd::Bytes(kZeros) : found->second;
      std::ranges::copy(block, data.subspan(at).begin());
    }
    return {};
  }

  usbd::Result<void> write_at(uint64_t offset, usbd::Bytes data, usbd::WriteFlags) override {
    for (size_t at = 0; at < data.size(); at += kBlock) {
      std::ranges::copy(data.subspan(at, kBlock), blocks_[offset + at].begin());
    }
    return {};
  }

  usbd::Result<void> trim(usbd::ByteRange range, usbd::WriteFlags) override {
    blocks_.erase(blocks_.lower_bound(range.offset), blocks_.lower_bound(range.end()));
    return {};
  }

 private:
  static constexpr size_t kBlock = 4096;
  using Block = std::array<std::byte, kBlock>;
  static constexpr Block kZeros{};

  std::map<uint64_t, Block> blocks_;  // by offset
};

int report(const char* what, const usbd::Error& error) {
  std::fprintf(stderr, "with_disk: %s: %s\n", what, error.message().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: with_disk EXPORT COMMAND\n");
    return 2;
  }
  usbd::ServeOptions options;
  options.name = "scratch";
  options.exports = {argv[1]};
  options.devices_max = 8;  // if the kernel's module has to be loaded for us

  auto server = usbd::Server::start(std::make_unique<ScratchDisk>(), options);
  if (!server) return report("cannot serve", server.error());

  const usbd::ServedAt& place = (*server)->served_at().front();
  setenv("DISK", place.name.c_str(), 1);
  setenv("DISK_URI", place.uri.c_str(), 1);
  const int status = std::system(argv[2]);

  const auto stopped = (*server)->stop();
  if (!stopped) return report("cannot stop", stopped.error());
  const usbd::ServeStatistics& done = stopped->statistics;
  std::printf("with_disk: %s: %ju reads, %ju writes, %ju flushes\n", place.name.c_str(),
              static_cast<uintmax_t>(done.read.operations),
              static_cast<uintmax_t>(done.write.operations),
              static_cast<uintmax_t>(done.flush.operations));
  return status == 0 ? 0 : 1;
}
