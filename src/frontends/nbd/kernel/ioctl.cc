// SPDX-License-Identifier: Apache-2.0
//
// One thread owns the device: the kernel lets only the task that set the first socket set it up,
// and keeps that task inside NBD_DO_IT for as long as the device lives.

#include "frontends/nbd/kernel/ioctl.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <future>
#include <thread>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "frontends/nbd/kernel/uapi.h"

namespace usbd::nbd {
namespace {

Result<void> control(int node, unsigned long request, unsigned long argument, const char* what) {
  if (::ioctl(node, request, argument) == 0) return {};
  return Error::from_errno(errno, what);
}

/// Signals belong to the threads that expect them; one here would end the device.
void block_all_signals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

class IoctlDriver final : public KernelDriver {
 public:
  explicit IoctlDriver(IoctlOptions options) : options_(std::move(options)) {}

  ~IoctlDriver() override {
    // Without its socket the device is over, and NBD_DO_IT returns once sessions have closed
    // theirs.
    if (owner_.joinable()) owner_.join();
  }

  [[nodiscard]] std::string_view name() const override { return "ioctl"; }

  Result<uint32_t> connect(const ConnectRequest& request,
                           const std::vector<UniqueFd>& sockets) override {
    USBD_ASSERT(sockets.size() == 1);
    USBD_ASSERT(!owner_.joinable());
    std::promise<Result<uint32_t>> started;
    std::future<Result<uint32_t>> result = started.get_future();
    owner_ = std::thread(
        [this, &request, socket = sockets.front().get(), started = std::move(started)]() mutable {
          block_all_signals();
          own_device(request, socket, std::move(started));
        });
    // `request` and the socket are used only before the result is set.
    Result<uint32_t> index = result.get();
    if (index) return await_start(*index);
    owner_.join();
    return index;
  }

  [[nodiscard]] bool can_replace() const override { return false; }
  Result<void> replace(int) override { return Errc::kNotSupported; }

  Result<void> resize(uint64_t size) override {
    return control(node_.get(), uapi::kSetSizeBlocks, size / block_size_, "NBD_SET_SIZE_BLOCKS");
  }

  Result<void> disconnect() override {
    if (over_) return {};
    return control(node_.get(), uapi::kDisconnect, 0, "NBD_DISCONNECT");
  }

 private:
  /// The life of the owning thread: claims and sets up a device, then is inside the kernel with it.
  void own_device(const ConnectRequest& request, int socket,
                  std::promise<Result<uint32_t>> started) {
    Result<uint32_t> index = request.index ? claim(*request.index, socket) : claim_any(socket);
    if (index) {
      if (Result<void> ready = set_up(request); !ready) {
        // The claim is ours, so it is ours to give up.
        ::ioctl(node_.get(), uapi::kClearSock, 0);
        index = ready.error();
      }
    }
    if (!index) {
      node_.reset();
      started.set_value(std::move(index));
      return;
    }
    const uint32_t number = *index;
    started.set_value(std::move(index));
    const int status = ::ioctl(node_.get(), uapi::kDoIt, 0);
    if (status < 0)
      log::warning("/dev/nbd{} ended: {}", number, Error::from_errno(errno).message());
    over_ = true;
    ::ioctl(node_.get(), uapi::kClearSock, 0);
  }

  Result<uint32_t> claim_any(int socket) {
    for (const uint32_t index : options_.sysfs.indices()) {
      if (options_.sysfs.pid(index)) continue;
      Result<uint32_t> claimed = claim(index, socket);
      if (claimed || !claimed.error().is(Errc::kBusy)) return claimed;
    }
    return Error(Errc::kBusy, "every nbd device is in use; load the module with a larger nbds_max");
  }

  /// Leaves the open node in node_ on success, and does nothing to a device that is somebody
  /// else's.
  Result<uint32_t> claim(uint32_t index, int socket) {
    const std::string path = fmt::format("{}/nbd{}", options_.device_directory, index);
    UniqueFd node(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!node) return Error::from_errno(errno, fmt::format("cannot open {}", path));
    struct stat status{};
    if (::fstat(node.get(), &status) != 0 || !S_ISBLK(status.st_mode)) {
      return Error(Errc::kInvalid, fmt::format("{} is not a block device", path));
    }
    if (Result<void> claimed =
            control(node.get(), uapi::kSetSock, static_cast<unsigned long>(socket), "NBD_SET_SOCK");
        !claimed) {
      // EINVAL is what a device that netlink has connected answers.
      if (claimed.error().is(Errc::kInvalid) && options_.sysfs.pid(index)) return Errc::kBusy;
      return claimed.error();
    }
    node_ = std::move(node);
    return index;
  }

  Result<void> set_up(const ConnectRequest& request) {
    block_size_ = request.block_size;
    const unsigned long flags = request.flags & uapi::kKnownFlags;
    USBD_TRY_VOID(control(node_.get(), uapi::kSetFlags, flags, "NBD_SET_FLAGS"));
    USBD_TRY_VOID(control(node_.get(), uapi::kSetBlockSize, request.block_size, "NBD_SET_BLKSIZE"));
    USBD_TRY_VOID(control(node_.get(), uapi::kSetSizeBlocks, request.size / request.block_size,
                          "NBD_SET_SIZE_BLOCKS"));
    return control(node_.get(), uapi::kSetTimeout, 0, "NBD_SET_TIMEOUT");
  }

  /// NBD_DO_IT does not say when it has begun; the pid in sysfs does.
  Result<uint32_t> await_start(uint32_t index) {
    const auto deadline = std::chrono::steady_clock::now() + limits::kKernelStartPatience;
    while (!options_.sysfs.pid(index)) {
      if (over_ || std::chrono::steady_clock::now() > deadline) {
        return Error(Errc::kIo, fmt::format("the kernel did not start /dev/nbd{}", index));
      }
      std::this_thread::sleep_for(limits::kKernelPoll);
    }
    return index;
  }

  const IoctlOptions options_;
  UniqueFd node_;
  uint32_t block_size_ = 0;
  std::atomic<bool> over_{false};
  std::thread owner_;
};

}  // namespace

std::unique_ptr<KernelDriver> make_ioctl_driver(IoctlOptions options) {
  return std::make_unique<IoctlDriver>(std::move(options));
}

}  // namespace usbd::nbd
