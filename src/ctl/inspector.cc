// SPDX-License-Identifier: Apache-2.0
//
// Types of devices by name; another one is another line in the table.

#include "ctl/inspector.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "ctl/objstore/objstore_inspector.h"

namespace usbd::ctl {
namespace {

struct Type {
  std::string_view name;
  Task<Result<std::unique_ptr<VolumeInspector>>> (*open)(daemon::VolumeSettings, Runtime&);
};
constexpr std::array<Type, 1> kTypes = {{{"objstore", ObjstoreInspector::open}}};

}  // namespace

Result<void> check_inspectable(const std::string& device_type) {
  if (std::ranges::find(kTypes, device_type, &Type::name) != kTypes.end()) return {};
  std::string names;
  for (const Type& type : kTypes)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", type.name);
  return Error(
      Errc::kNotSupported,
      fmt::format("-dev-type={}: this build cannot look at volumes of that type; it can at "
                  "those of {}",
                  device_type, names));
}

Task<Result<std::unique_ptr<VolumeInspector>>> open_inspector(daemon::VolumeSettings settings,
                                                              Runtime& runtime) {
  USBD_CO_TRY_VOID(check_inspectable(settings.type));
  const auto* const found = std::ranges::find(kTypes, settings.type, &Type::name);
  co_return co_await found->open(std::move(settings), runtime);
}

}  // namespace usbd::ctl
