// SPDX-License-Identifier: Apache-2.0
//
// Reading sysfs: small files, each one value. A file that vanishes while it is read is a device
// that was disconnected meanwhile, which is no error.

#include "frontends/nbd/kernel/sysfs.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>

#include <fmt/format.h>

#include "frontends/nbd/kernel/uapi.h"
#include "frontends/nbd/text.h"

namespace usbd::nbd {
namespace {

constexpr std::string_view kDevicePrefix = "/dev/nbd";
constexpr std::string_view kDiskPrefix = "nbd";

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<uint32_t> parse_index(std::string_view text) {
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  const auto index = parse_number<uint32_t>(text);
  return index && *index <= uapi::kIndexMax ? index : std::nullopt;
}

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return std::nullopt;
  return line;
}

std::vector<std::string> entries(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

bool is_there(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

}  // namespace

Result<uint32_t> parse_device_path(std::string_view path) {
  if (path.starts_with(kDevicePrefix)) {
    if (const auto index = parse_index(path.substr(kDevicePrefix.size()))) return *index;
  }
  return Error(Errc::kInvalid, fmt::format("{} is not a kernel NBD device; expected {}N with N "
                                           "from 0 to {}, and no partition",
                                           readable(path), kDevicePrefix, uapi::kIndexMax));
}

bool Sysfs::has_driver() const {
  return is_there(root_ + "/module/nbd");
}

std::vector<uint32_t> Sysfs::indices() const {
  std::vector<uint32_t> found;
  for (const std::string& name : entries(root_ + "/block")) {
    if (!name.starts_with(kDiskPrefix)) continue;
    const auto index = parse_index(std::string_view(name).substr(kDiskPrefix.size()));
    if (index) found.push_back(*index);
  }
  std::ranges::sort(found);
  return found;
}

bool Sysfs::exists(uint32_t index) const {
  return is_there(directory(index));
}

std::optional<pid_t> Sysfs::pid(uint32_t index) const {
  const auto line = read_line(directory(index) + "/pid");
  if (!line) return std::nullopt;
  // A number we cannot read still says that somebody is there.
  return parse_number<pid_t>(*line).value_or(0);
}

std::string Sysfs::backend(uint32_t index) const {
  return read_line(directory(index) + "/backend").value_or("");
}

Result<uint64_t> Sysfs::size(uint32_t index) const {
  const std::string path = directory(index) + "/size";
  const auto line = read_line(path);
  if (!line) return Error(Errc::kNotFound, fmt::format("cannot read {}", path));
  const auto sectors = parse_number<uint64_t>(*line);
  if (!sectors || *sectors > std::numeric_limits<uint64_t>::max() / uapi::kSysfsSector) {
    return Error(Errc::kIo, fmt::format("{} holds {}, which is no size", path, readable(*line)));
  }
  return *sectors * uapi::kSysfsSector;
}

std::vector<std::string> Sysfs::device_numbers(uint32_t index) const {
  std::vector<std::string> numbers;
  for (const std::string& directory : all_directories(index)) {
    if (auto line = read_line(directory + "/dev")) numbers.push_back(std::move(*line));
  }
  return numbers;
}

std::vector<std::string> Sysfs::stacked_devices(uint32_t index) const {
  std::vector<std::string> names;
  for (const std::string& directory : all_directories(index)) {
    std::ranges::move(entries(directory + "/holders"), std::back_inserter(names));
  }
  return names;
}

std::string Sysfs::directory(uint32_t index) const {
  return fmt::format("{}/block/{}{}", root_, kDiskPrefix, index);
}

std::vector<std::string> Sysfs::all_directories(uint32_t index) const {
  const std::string disk = directory(index);
  const std::string partition_prefix = fmt::format("{}{}p", kDiskPrefix, index);
  std::vector<std::string> directories{disk};
  for (const std::string& name : entries(disk)) {
    if (name.starts_with(partition_prefix)) {
      directories.push_back(fmt::format("{}/{}", disk, name));
    }
  }
  return directories;
}

}  // namespace usbd::nbd
