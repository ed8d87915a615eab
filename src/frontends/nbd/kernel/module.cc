// SPDX-License-Identifier: Apache-2.0
//
// libkmod finds the module with what it depends on, honours /etc/modprobe.d, and loads it.

#include "frontends/nbd/kernel/module.h"

#include <cstring>
#include <memory>

#include <libkmod.h>
#include <sys/utsname.h>

#include <fmt/format.h>

#include "frontends/nbd/kernel/sysfs.h"

namespace usbd::nbd {
namespace {

constexpr char kModuleName[] = "nbd";

struct KmodDeleter {
  void operator()(kmod_ctx* context) const { kmod_unref(context); }
  void operator()(kmod_list* list) const { kmod_module_unref_list(list); }
  void operator()(kmod_module* module) const { kmod_module_unref(module); }
};
template <typename T>
using Kmod = std::unique_ptr<T, KmodDeleter>;

std::string kernel_release() {
  utsname names{};
  return ::uname(&names) == 0 ? names.release : "unknown";
}

Error not_found() {
  return Error(
      Errc::kNotFound,
      fmt::format("kernel {} has no nbd module, neither built in nor below /lib/modules; "
                  "install the kernel's modules (Debian: linux-image-amd64) or export to a "
                  "unix socket instead",
                  kernel_release()));
}

/// What became of the attempt to load. Range: `status` is what libkmod returned, negative on
/// errors.
Result<ModuleState> outcome(int status) {
  if (status == 0) return ModuleState::kLoaded;
  if (status == -EEXIST) return ModuleState::kPresent;  // somebody else was faster
  if (status == -EPERM || status == -EACCES) {
    return Error(Errc::kPerm,
                 "cannot load the nbd module: this needs root (CAP_SYS_MODULE); run "
                 "`modprobe nbd` as root first");
  }
  if (status == -ENOENT) return not_found();
  // Signatures, a kernel that loads none at all, or a command that /etc/modprobe.d has put in the
  // place of loading, which ends with a status of its own: there is no driver, whatever the reason.
  return Error(Errc::kNotFound,
               status < 0 ? fmt::format("the nbd module cannot be loaded ({})", strerror(-status))
                          : "the nbd module is kept from being loaded (see /etc/modprobe.d)");
}

}  // namespace

Result<ModuleState> ensure_nbd_module(const ModuleOptions& options) {
  if (Sysfs(options.sysfs_root).has_driver()) return ModuleState::kPresent;

  const char* directory =
      options.modules_directory.empty() ? nullptr : options.modules_directory.c_str();
  const Kmod<kmod_ctx> context(kmod_new(directory, nullptr));
  if (!context) return Error(Errc::kNoMemory, "cannot set up libkmod");
  // Its own messages would go to stderr past our log; the status says all that is needed.
  kmod_set_log_priority(context.get(), 0);

  kmod_list* found = nullptr;
  const int status = kmod_module_new_from_lookup(context.get(), kModuleName, &found);
  const Kmod<kmod_list> list(found);
  if (status < 0 && status != -ENOENT) return outcome(status);
  if (!list) return not_found();

  const Kmod<kmod_module> module(kmod_module_get_module(list.get()));
  const int state = kmod_module_get_initstate(module.get());
  if (state == KMOD_MODULE_BUILTIN || state == KMOD_MODULE_LIVE) return ModuleState::kPresent;
  const std::string parameters = fmt::format("nbds_max={}", options.devices_max);
  return outcome(kmod_module_probe_insert_module(module.get(), 0, parameters.c_str(), nullptr,
                                                 nullptr, nullptr));
}

}  // namespace usbd::nbd
