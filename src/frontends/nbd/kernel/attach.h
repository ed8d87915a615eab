// SPDX-License-Identifier: Apache-2.0
//
// KernelAttach: a volume as a kernel block device, /dev/nbdN. It connects a device by netlink (or,
// on kernels without, by ioctl), gives our ends of its sockets to the server, replaces those that
// die, and lets the device go: by detaching it, or by leaving it waiting for the next daemon.
//
// Nothing of the kernel's is ever deleted, and no device of somebody else is touched: a named one
// that is in use is refused, whether sysfs says so or the kernel.
//
// Ref: linux drivers/block/nbd.c.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontends/nbd/kernel/driver.h"
#include "frontends/nbd/kernel/holders.h"
#include "frontends/nbd/kernel/module.h"
#include "frontends/nbd/kernel/socket_keeper.h"
#include "frontends/nbd/kernel/socket_sink.h"
#include "frontends/nbd/kernel/sync_process.h"
#include "usbd/result.h"

namespace usbd::nbd {

enum class DriverChoice : uint8_t {
  kAuto,  ///< Netlink where there is the family, else ioctl.
  kNetlink,
  kIoctl,
};

struct KernelAttachOptions {
  /// Units: bytes. Range: a multiple of block_size, not 0.
  uint64_t size = 0;
  /// The logical block size. Range: a power of two from 512 to 4096.
  uint32_t block_size = 4096;
  /// What NBD's handshake would say of the export: protocol.h, kTransmit...
  uint16_t transmission_flags = 0;
  /// Sockets; 0: one per CPU, at most limits::kKernelConnectionsDefaultMax. More than one only if
  /// the flags have kTransmitMultiConn. The ioctl driver has always one.
  unsigned connections = 0;
  /// See ConnectRequest; rounded up to whole seconds. The ioctl driver has none.
  std::chrono::milliseconds timeout{60'000};
  std::chrono::milliseconds dead_timeout{600'000};
  /// Names the volume, for whoever takes the device over after a crash. May be empty.
  std::string backend;
  /// "/dev/nbdN" if it must be that one.
  std::optional<std::string> device;
  /// How many devices the module makes, if it is loaded here.
  unsigned nbds_max = 32;
  DriverChoice driver = DriverChoice::kAuto;
  /// Called once at most, from a thread of the attach: somebody has disconnected the device.
  std::function<void(const Error&)> on_lost;

  std::string sysfs_root = "/sys";
  std::string proc_root = "/proc";
  std::string device_directory = "/dev";
};

/// Whether an attach failed with `error` because there can be no nbd device for this process: no
/// driver, or no privilege. Whoever does not insist on one then does without. Any other error
/// (wrong options, all devices in use, what the kernel said) is one that its user must know of.
[[nodiscard]] bool is_unavailable(const Error& error);

/// Checks what can be checked without a kernel, and fills in the defaults.
/// Errors: kInvalid, with what was given and what is allowed.
Result<KernelAttachOptions> validated(KernelAttachOptions options);

/// Threads:  everything but index(), device_path() and statistics() waits for the kernel, which may
///           wait for the sessions: never call it on a loop that serves one of them.
/// Lifetime: the SocketSink outlives the attach.
class KernelAttach {
 public:
  /// Loads the module if need be, and connects a device.
  /// Errors: kInvalid: options; kNotFound, kNotSupported: no driver in this kernel; kPerm,
  ///         kAccess: no privilege; kBusy: the named device, or every device, is in use; each says
  ///         by whom or what to do.
  static Result<std::unique_ptr<KernelAttach>> attach(KernelAttachOptions options,
                                                      SocketSink& sink);

  /// As abandon(), unless detach() or abandon() came before.
  ~KernelAttach();
  KernelAttach(const KernelAttach&) = delete;
  KernelAttach& operator=(const KernelAttach&) = delete;

  [[nodiscard]] uint32_t index() const { return index_; }
  /// Such as "/dev/nbd0".
  [[nodiscard]] const std::string& device_path() const { return path_; }
  /// "netlink" or "ioctl".
  [[nodiscard]] std::string_view driver_name() const { return driver_->name(); }
  /// Whether the device waits for a new daemon after abandon(). False with ioctl, where it ends.
  [[nodiscard]] bool can_outlive_daemon() const { return driver_->can_replace(); }
  [[nodiscard]] KeeperStatistics statistics() const { return keeper_->statistics(); }

  /// Whether somebody else uses the device: has it mounted, stacked, or open.
  [[nodiscard]] bool held() const;
  /// Who does, as phrases for the log; may be empty although held() is true (another container).
  [[nodiscard]] std::vector<std::string> holders() const;
  /// Begins to sync the file systems mounted on the device, and its node.
  /// Errors: those of SyncProcess::start().
  [[nodiscard]] Result<std::unique_ptr<SyncProcess>> start_sync() const;
  /// Tells the kernel of a new size. Units: bytes. Errors: kInvalid; what the kernel said.
  Result<void> resize(uint64_t size);

  /// Disconnects the device, unless it is held; nobody can begin to use it meanwhile. Its node
  /// stays, with size 0. The last call. Syncs the node first, and waits for as long as the device
  /// takes for that: let a start_sync() end before.
  /// Errors: kBusy: it is held, and still attached; else what the kernel said, and it is over.
  Result<void> detach();

  /// Leaves the device to whoever reconnects it within the dead timeout: its sockets are shut, its
  /// requests wait. Answers that sessions have not sent yet are lost, and their requests will be
  /// sent again. The last call.
  void abandon();

  /// The command that removes a device that was left waiting.
  [[nodiscard]] std::string removal_command() const { return "nbd-client -d " + path_; }

 private:
  KernelAttach(KernelAttachOptions options, std::unique_ptr<KernelDriver> driver, uint32_t index);

  [[nodiscard]] HolderOptions holder_options() const;
  /// Opens the node so that nobody else can use it exclusively. Errors: kBusy.
  [[nodiscard]] Result<UniqueFd> claim() const;
  [[nodiscard]] Error held_error() const;
  void await_release() const;

  const KernelAttachOptions options_;
  const uint32_t index_;
  const std::string path_;
  std::unique_ptr<KernelDriver> driver_;
  std::unique_ptr<SocketKeeper> keeper_;
  bool over_ = false;
};

}  // namespace usbd::nbd
