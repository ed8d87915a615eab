// SPDX-License-Identifier: Apache-2.0
//
// Reading /proc: mountinfo, swaps, and the descriptors of all processes.

#include "frontends/nbd/kernel/holders.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/unique_fd.h"

namespace usbd::nbd {
namespace {

/// Whether `path` is the device's node or that of a partition of it.
bool is_node_of(const std::string& path, const std::string& node) {
  if (!path.starts_with(node)) return false;
  const std::string rest = path.substr(node.size());
  if (rest.empty()) return true;
  return rest.size() > 1 && rest.front() == 'p' &&
         std::all_of(rest.begin() + 1, rest.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string node_path(uint32_t index, const HolderOptions& options) {
  return fmt::format("{}/nbd{}", options.device_directory, index);
}

/// Undoes the kernel's "\040" for characters that would break its tables.
std::string unescape(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(digits, digits + 3, value, 8).ptr == digits + 3 && value < 256) {
      plain.push_back(static_cast<char>(value));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

struct Mount {
  std::string device_number;
  std::string point;
  std::string source;
};

/// Ref: Documentation/filesystems/proc.rst, /proc/<pid>/mountinfo.
std::optional<Mount> parse_mount(const std::string& line) {
  std::istringstream words(line);
  std::string id, parent, root, word;
  Mount mount;
  if (!(words >> id >> parent >> mount.device_number >> root >> mount.point)) return std::nullopt;
  while (words >> word && word != "-") {
  }
  std::string type;
  if (!(words >> type >> mount.source)) return std::nullopt;
  mount.point = unescape(mount.point);
  mount.source = unescape(mount.source);
  return mount;
}

void add_swaps(const std::string& node, const HolderOptions& options,
               std::vector<std::string>& found) {
  std::ifstream file(options.proc_root + "/swaps");
  for (std::string line; std::getline(file, line);) {
    if (is_node_of(unescape(line.substr(0, line.find_first_of(" \t"))), node)) {
      found.push_back("used as swap");
    }
  }
}

/// Whether the process whose directory this is has the node open, as far as we may know.
bool has_open(const std::filesystem::path& process, const std::string& node) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(process / "fd", error), end; !error && it != end;
       it.increment(error)) {
    std::error_code unreadable;
    const auto target = std::filesystem::read_symlink(it->path(), unreadable);
    if (!unreadable && is_node_of(target.string(), node)) return true;
  }
  return false;
}

void add_processes(const std::string& node, const HolderOptions& options,
                   std::vector<std::string>& found) {
  const std::string self = std::to_string(::getpid());
  std::error_code error;
  for (std::filesystem::directory_iterator it(options.proc_root, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos || name == self) continue;
    if (!has_open(it->path(), node)) continue;
    std::string command;
    std::ifstream comm(it->path() / "comm");
    std::getline(comm, command);
    found.push_back(fmt::format("open in process {} ({})", name, command));
  }
}

}  // namespace

std::vector<std::string> mount_points(uint32_t index, const HolderOptions& options) {
  const std::vector<std::string> numbers = options.sysfs.device_numbers(index);
  const std::string node = node_path(index, options);
  std::vector<std::string> points;
  std::ifstream file(options.proc_root + "/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::optional<Mount> mount = parse_mount(line);
    if (!mount) continue;
    // btrfs mounts have a number of their own, but name the node.
    if (std::ranges::find(numbers, mount->device_number) != numbers.end() ||
        is_node_of(mount->source, node)) {
      points.push_back(mount->point);
    }
  }
  return points;
}

std::vector<std::string> holders(uint32_t index, const HolderOptions& options) {
  const std::string node = node_path(index, options);
  std::vector<std::string> found;
  for (const std::string& point : mount_points(index, options)) {
    found.push_back("mounted on " + point);
  }
  for (const std::string& device : options.sysfs.stacked_devices(index)) {
    found.push_back("used by " + device);
  }
  add_swaps(node, options, found);
  add_processes(node, options, found);
  return found;
}

std::vector<std::vector<std::string>> sync_commands(uint32_t index, const HolderOptions& options) {
  std::vector<std::vector<std::string>> commands = {{"sync", node_path(index, options)}};
  const std::vector<std::string> points = mount_points(index, options);
  if (points.empty()) return commands;
  // Each names a file; the option makes it the file system that the file is on.
  std::vector<std::string> file_systems = {"sync", "--file-system", "--"};
  file_systems.insert(file_systems.end(), points.begin(), points.end());
  commands.push_back(std::move(file_systems));
  return commands;
}

}  // namespace usbd::nbd
