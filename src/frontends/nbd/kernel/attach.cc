// SPDX-License-Identifier: Apache-2.0
//
// Making and ending an attach. What happens in between is the SocketKeeper's.

#include "frontends/nbd/kernel/attach.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "base/log.h"
#include "frontends/nbd/kernel/ioctl.h"
#include "frontends/nbd/kernel/netlink.h"
#include "frontends/nbd/kernel/sysfs.h"
#include "frontends/nbd/kernel/uapi.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;

/// NBD_ATTR_BACKEND_IDENTIFIER must fit a netlink message and a line of sysfs.
constexpr size_t kBackendMax = 1024;
constexpr std::chrono::milliseconds kTimeoutMax = std::chrono::hours(24 * 365);

template <typename Condition>
bool wait_until(std::chrono::milliseconds patience, std::chrono::milliseconds poll,
                const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(poll);
  }
  return true;
}

Error invalid(std::string what) {
  return Error(Errc::kInvalid, std::move(what));
}

Result<void> check_geometry(const KernelAttachOptions& options) {
  if (!std::has_single_bit(options.block_size) || options.block_size < uapi::kBlockSizeMin ||
      options.block_size > uapi::kBlockSizeMax) {
    return invalid(
        fmt::format("a block size of {} bytes; a kernel device has a power of two from "
                    "{} to {}",
                    options.block_size, uapi::kBlockSizeMin, uapi::kBlockSizeMax));
  }
  if (options.size == 0 || options.size % options.block_size != 0 ||
      options.size > static_cast<uint64_t>(INT64_MAX)) {
    return invalid(
        fmt::format("a size of {} bytes; a kernel device has a multiple of its block "
                    "size, {}, and is not empty",
                    options.size, options.block_size));
  }
  return {};
}

Result<void> check_timeout(const char* name, std::chrono::milliseconds timeout) {
  if (timeout >= 0ms && timeout <= kTimeoutMax) return {};
  return invalid(fmt::format("a {} of {} ms; it is from 0 to {} ms", name, timeout.count(),
                             kTimeoutMax.count()));
}

unsigned default_connections(uint16_t flags) {
  if ((flags & kTransmitMultiConn) == 0) return 1;
  return std::clamp(std::thread::hardware_concurrency(), 1U, limits::kKernelConnectionsDefaultMax);
}

Result<void> check_connections(const KernelAttachOptions& options) {
  if (options.connections > limits::kKernelConnectionsMax) {
    return invalid(fmt::format("{} connections; at most {}", options.connections,
                               limits::kKernelConnectionsMax));
  }
  if (options.connections > 1 && (options.transmission_flags & kTransmitMultiConn) == 0) {
    return invalid(
        fmt::format("{} connections, but the device allows only one", options.connections));
  }
  return {};
}

std::string process_name(pid_t pid, const std::string& proc_root) {
  std::ifstream file(fmt::format("{}/{}/comm", proc_root, pid));
  std::string name;
  return std::getline(file, name) ? name : "ended";
}

Result<std::unique_ptr<KernelDriver>> choose_driver(const KernelAttachOptions& options) {
  if (options.driver != DriverChoice::kIoctl) {
    Result<std::unique_ptr<KernelDriver>> driver = netlink::make_driver();
    const bool absent = !driver && driver.error().is(Errc::kNotFound);
    if (!absent || options.driver == DriverChoice::kNetlink) return driver;
    log::info("{}; using ioctl", driver.error().context());
  }
  return make_ioctl_driver(
      {.sysfs = Sysfs(options.sysfs_root), .device_directory = options.device_directory});
}

/// Refuses a named device that is connected, before anything is done to it.
Result<void> check_unused(uint32_t index, const KernelAttachOptions& options) {
  const std::optional<pid_t> pid = Sysfs(options.sysfs_root).pid(index);
  if (!pid) return {};
  return Error(Errc::kBusy,
               fmt::format("/dev/nbd{} is in use by process {} ({}); name another device or none",
                           index, *pid, process_name(*pid, options.proc_root)));
}

ConnectRequest connect_request(const KernelAttachOptions& options, std::optional<uint32_t> index) {
  return {.index = index,
          .size = options.size,
          .block_size = options.block_size,
          .flags = static_cast<uint16_t>(options.transmission_flags | kTransmitHasFlags),
          .timeout = std::chrono::ceil<std::chrono::seconds>(options.timeout),
          .dead_timeout = std::chrono::ceil<std::chrono::seconds>(options.dead_timeout),
          .backend = options.backend};
}

Error connect_error(const Error& error, std::optional<uint32_t> index,
                    const KernelAttachOptions& options) {
  if (error.is(Errc::kPerm) || error.is(Errc::kAccess)) {
    return Error(Errc::kPerm, "the kernel lets only root (CAP_SYS_ADMIN) connect nbd devices");
  }
  if (index && error.is(Errc::kBusy)) {
    if (Result<void> unused = check_unused(*index, options); !unused) return unused.error();
    const auto users = holders(*index, {.sysfs = Sysfs(options.sysfs_root),
                                        .proc_root = options.proc_root,
                                        .device_directory = options.device_directory});
    return Error(Errc::kBusy,
                 fmt::format("/dev/nbd{} is not free: {}", *index,
                             users.empty() ? "it is open somewhere"
                                           : fmt::format("{}", fmt::join(users, ", "))));
  }
  if (!error.context().empty()) return error;
  return Error(error.code(), index ? fmt::format("cannot connect /dev/nbd{}", *index)
                                   : std::string("cannot connect an nbd device"));
}

/// Connects, with patience for a named device that is only being looked at.
Result<uint32_t> connect(KernelDriver& driver, const ConnectRequest& request,
                         const std::vector<UniqueFd>& sockets, const KernelAttachOptions& options) {
  std::optional<Result<uint32_t>> result;
  wait_until(limits::kKernelBusyPatience, limits::kKernelBusyPoll, [&] {
    result = driver.connect(request, sockets);
    const bool passing = !*result && request.index && result->error().is(Errc::kBusy) &&
                         check_unused(*request.index, options).has_value();
    return !passing;
  });
  if (*result) return **result;
  return connect_error(result->error(), request.index, options);
}

/// The kernel makes the node by itself (devtmpfs), or udev does; in a container nobody may.
Result<void> await_node(const std::string& path) {
  const bool there = wait_until(limits::kKernelNodePatience, limits::kKernelPoll, [&] {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
  });
  if (there) return {};
  return Error(
      Errc::kNotFound,
      fmt::format("the kernel connected a device, but {} did not appear; is /dev a devtmpfs "
                  "of this machine?",
                  path));
}

}  // namespace

bool is_unavailable(const Error& error) {
  return error.is(Errc::kNotFound) || error.is(Errc::kNotSupported) || error.is(Errc::kPerm) ||
         error.is(Errc::kAccess);
}

Result<KernelAttachOptions> validated(KernelAttachOptions options) {
  USBD_TRY_VOID(check_geometry(options));
  USBD_TRY_VOID(check_timeout("request timeout", options.timeout));
  USBD_TRY_VOID(check_timeout("timeout without connections", options.dead_timeout));
  USBD_TRY_VOID(check_connections(options));
  if (options.backend.size() > kBackendMax ||
      options.backend.find_first_of(std::string_view("\0\n", 2)) != std::string::npos) {
    return invalid(fmt::format("a backend identifier of more than {} bytes, or of several lines",
                               kBackendMax));
  }
  if (options.device) USBD_TRY_VOID(parse_device_path(*options.device));
  if (options.driver == DriverChoice::kIoctl) options.connections = 1;
  if (options.connections == 0) {
    options.connections = default_connections(options.transmission_flags);
  }
  return options;
}

Result<std::unique_ptr<KernelAttach>> KernelAttach::attach(KernelAttachOptions given,
                                                           SocketSink& sink) {
  USBD_TRY(KernelAttachOptions options, validated(std::move(given)));
  USBD_TRY_VOID(ensure_nbd_module({.devices_max = options.nbds_max,
                                   .sysfs_root = options.sysfs_root,
                                   .modules_directory = {}}));
  std::optional<uint32_t> wanted;
  if (options.device) {
    USBD_TRY(wanted, parse_device_path(*options.device));
    USBD_TRY_VOID(check_unused(*wanted, options));
  }
  USBD_TRY(std::unique_ptr<KernelDriver> driver, choose_driver(options));
  if (!driver->can_replace()) options.connections = 1;

  std::vector<UniqueFd> ours;
  std::vector<UniqueFd> kernels;
  for (unsigned i = 0; i < options.connections; ++i) {
    USBD_TRY(SocketPair pair, SocketPair::make());
    ours.push_back(std::move(pair.ours));
    kernels.push_back(std::move(pair.kernels));
  }
  USBD_TRY(const uint32_t index,
           connect(*driver, connect_request(options, wanted), kernels, options));
  // Our copies would keep the connections open when the kernel gives them up.
  kernels.clear();

  std::unique_ptr<KernelAttach> attach(
      new KernelAttach(std::move(options), std::move(driver), index));
  attach->keeper_ = std::make_unique<SocketKeeper>(
      *attach->driver_, sink,
      SocketKeeper::Timing{.crowded = std::min<std::chrono::milliseconds>(
                               limits::kKernelReplaceCrowded, attach->options_.dead_timeout / 4)},
      attach->options_.on_lost);
  Result<void> ready = attach->keeper_->start(std::move(ours));
  if (ready) ready = await_node(attach->path_);
  if (ready) return attach;
  // Nobody can have begun to use it in earnest: it is ours to take away again.
  attach->keeper_->stop_replacing();
  Result<void> undone = attach->driver_->disconnect();
  attach->abandon();
  if (!undone) log::warning("{} stays connected: {}", attach->path_, undone.error().message());
  return ready.error();
}

KernelAttach::KernelAttach(KernelAttachOptions options, std::unique_ptr<KernelDriver> driver,
                           uint32_t index)
    : options_(std::move(options)),
      index_(index),
      path_(fmt::format("{}/nbd{}", options_.device_directory, index)),
      driver_(std::move(driver)) {}

KernelAttach::~KernelAttach() {
  if (!over_) abandon();
}

HolderOptions KernelAttach::holder_options() const {
  return {.sysfs = Sysfs(options_.sysfs_root),
          .proc_root = options_.proc_root,
          .device_directory = options_.device_directory};
}

Result<UniqueFd> KernelAttach::claim() const {
  UniqueFd node(::open(path_.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  if (!node) return Error::from_errno(errno, fmt::format("cannot open {}", path_));
  return node;
}

bool KernelAttach::held() const {
  if (const Result<UniqueFd> node = claim(); !node && node.error().is(Errc::kBusy)) return true;
  return !holders().empty();
}

std::vector<std::string> KernelAttach::holders() const {
  return nbd::holders(index_, holder_options());
}

Result<std::unique_ptr<SyncProcess>> KernelAttach::start_sync() const {
  return SyncProcess::start(sync_commands(index_, holder_options()));
}

Result<void> KernelAttach::resize(uint64_t size) {
  KernelAttachOptions changed = options_;
  changed.size = size;
  USBD_TRY_VOID(check_geometry(changed));
  return driver_->resize(size);
}

Error KernelAttach::held_error() const {
  const auto users = holders();
  return Error(Errc::kBusy, fmt::format("{} is in use: {}", path_,
                                        users.empty() ? "somebody holds it exclusively"
                                                      : fmt::format("{}", fmt::join(users, ", "))));
}

Result<void> KernelAttach::detach() {
  Result<UniqueFd> node = claim();
  if (!node && node.error().is(Errc::kBusy)) return held_error();
  if (!holders().empty()) return held_error();
  std::optional<Error> failure;
  // Whoever wrote to the node has closed it; what the kernel still holds of that goes out here.
  if (node && ::fsync(node->get()) != 0) {
    failure = Error::from_errno(errno, fmt::format("cannot sync {}", path_));
  }
  keeper_->stop_replacing();
  if (Result<void> ended = driver_->disconnect(); !ended && !failure) {
    failure = Error(ended.error().code(), fmt::format("cannot disconnect {}", path_));
  }
  keeper_->stop();
  if (node) node->reset();
  over_ = true;
  await_release();
  if (failure) return *failure;
  return {};
}

void KernelAttach::abandon() {
  over_ = true;
  if (keeper_) keeper_->stop();
}

/// So that whoever comes next can have the same device at once.
void KernelAttach::await_release() const {
  const Sysfs sysfs(options_.sysfs_root);
  wait_until(limits::kKernelReleasePatience, limits::kKernelPoll,
             [&] { return !driver_->can_replace() || !sysfs.pid(index_); });
}

}  // namespace usbd::nbd
