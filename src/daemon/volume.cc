// SPDX-License-Identifier: Apache-2.0
//
// The table of device types. Locks, size mismatches and creation are the devices' own business:
// they know what is there.

#include "daemon/volume.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/units.h"
#include "daemon/objstore_volume.h"
#include "devices/file/file_device.h"
#include "devices/memory/memory_device.h"

namespace usbd::daemon {
namespace {

using OpenFunction = Task<Result<OpenedVolume>> (*)(VolumeSettings, Runtime&);

Task<Result<OpenedVolume>> open_memory(VolumeSettings settings, Runtime& runtime) {
  static_cast<void>(runtime);
  if (settings.create == VolumeSettings::Create::kNever) {
    co_return Error(
        Errc::kNotFound,
        "a mem volume is always a new one, so -create=never cannot be met; leave it out, "
        "or serve a kept volume with -dev-type=file");
  }
  USBD_CO_TRY(const uint64_t size, round_up(settings.size, settings.block_size));
  const MemoryDevice::Options options{.size = size, .logical_block_size = settings.block_size};
  USBD_CO_TRY(std::unique_ptr<MemoryDevice> device, MemoryDevice::open(options));
  log::info("created a volume of {} in memory", format_size(size));
  OpenedVolume volume;
  volume.device = std::move(device);
  volume.description = "memory (its contents end with this process)";
  co_return volume;
}

Task<Result<OpenedVolume>> open_file(VolumeSettings settings, Runtime& runtime) {
  static_cast<void>(runtime);
  FileDevice::Options options;
  options.path = std::filesystem::path(settings.directory) / (settings.name + ".bin");
  options.create = policy_of(settings.create);
  options.size = settings.size;
  options.size_is_explicit = settings.size_given;
  options.read_only = settings.read_only;
  options.direct = settings.direct;
  options.logical_block_size = settings.block_size;
  const std::string description =
      fmt::format("the file \"{}\"{}", options.path, settings.direct ? " (direct I/O)" : "");
  USBD_CO_TRY(std::unique_ptr<FileDevice> device, co_await FileDevice::open(options));
  OpenedVolume volume;
  volume.description = description;
  volume.id = device->volume_id();
  volume.device = std::move(device);
  co_return volume;
}

/// For the types that later builds have.
Task<Result<OpenedVolume>> refuse(VolumeSettings settings, Runtime& runtime) {
  static_cast<void>(runtime);
  co_return Error(Errc::kNotSupported,
                  fmt::format("-dev-type={}: this build has no {} device yet; it has mem, file and "
                              "objstore",
                              settings.type, settings.type));
}

struct DeviceType {
  std::string_view name;
  OpenFunction open;
};
constexpr std::array<DeviceType, 4> kDeviceTypes = {{
    {"mem", open_memory},
    {"file", open_file},
    {"dedup", refuse},
    {"objstore", open_objstore},
}};

}  // namespace

Task<Result<OpenedVolume>> open_volume(VolumeSettings settings, Runtime& runtime) {
  const auto* const type = std::ranges::find(kDeviceTypes, settings.type, &DeviceType::name);
  USBD_ASSERT(type != kDeviceTypes.end());
  return type->open(std::move(settings), runtime);
}

CreatePolicy policy_of(VolumeSettings::Create create) {
  switch (create) {
    case VolumeSettings::Create::kNever:
      return CreatePolicy::kNever;
    case VolumeSettings::Create::kOnly:
      return CreatePolicy::kOnly;
    case VolumeSettings::Create::kAuto:
      break;
  }
  return CreatePolicy::kAuto;
}

Result<uint64_t> round_up(uint64_t size, uint32_t block_size) {
  const uint64_t rest = size % block_size;
  if (rest == 0) return size;
  if (size > uint64_t{INT64_MAX} - block_size) {
    return Error(Errc::kOverflow, "-store-size: more than 8 EiB when rounded up to a block");
  }
  return size + (block_size - rest);
}

}  // namespace usbd::daemon
