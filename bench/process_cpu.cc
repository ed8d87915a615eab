// SPDX-License-Identifier: Apache-2.0
//
// See process_cpu.h. A process's own time comes from its CPU clock, which counts nanoseconds;
// /proc/PID/stat would count hundredths of a second.

#include "bench/process_cpu.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <time.h>
#include <unistd.h>

namespace usbd::bench {
namespace {

struct Process {
  pid_t pid = 0;
  pid_t parent = 0;
};

double seconds_of(clockid_t clock) {
  timespec time{};
  if (::clock_gettime(clock, &time) != 0) return 0;  // It has just ended.
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

double process_cpu_seconds(pid_t pid) {
  clockid_t clock{};
  return ::clock_getcpuclockid(pid, &clock) == 0 ? seconds_of(clock) : 0;
}

/// The parent of `pid`, 0 if it has ended. Ref: proc(5), /proc/pid/stat, field 4.
pid_t parent_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');  // The name may hold anything, also blanks.
  if (name_end == std::string::npos) return 0;
  std::istringstream rest(line.substr(name_end + 1));
  char state = 0;
  pid_t parent = 0;
  rest >> state >> parent;
  return parent;
}

std::vector<Process> all_processes() {
  std::vector<Process> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const char* const end = name.data() + name.size();
    if (std::from_chars(name.data(), end, pid).ptr != end || pid <= 0) continue;
    found.push_back({.pid = pid, .parent = parent_of(pid)});
  }
  return found;
}

}  // namespace

Result<TreeCpu> tree_cpu(pid_t pid) {
  clockid_t clock{};
  if (::clock_getcpuclockid(pid, &clock) != 0) {
    return Error(Errc::kNotFound, "no process " + std::to_string(pid));
  }
  const std::vector<Process> processes = all_processes();
  std::vector<pid_t> tree{pid};
  TreeCpu used;
  for (size_t i = 0; i < tree.size(); ++i) {
    used[tree[i]] = process_cpu_seconds(tree[i]);
    for (const Process& process : processes) {
      if (process.parent == tree[i]) tree.push_back(process.pid);
    }
  }
  return used;
}

double cpu_used(const TreeCpu& before, const TreeCpu& after) {
  double total = 0;
  for (const auto& [pid, seconds] : after) {
    const auto earlier = before.find(pid);
    total += seconds - (earlier == before.end() ? 0 : earlier->second);
  }
  return total;
}

double own_cpu_seconds() {
  return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

Result<MachineCpu> machine_cpu() {
  std::ifstream file("/proc/stat");
  std::string word;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, softirq = 0, steal = 0;
  file >> word >> user >> nice >> system >> idle >> wait >> irq >> softirq >> steal;
  if (!file || word != "cpu") return Error(Errc::kIo, "cannot read /proc/stat");
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  return MachineCpu{.busy = (user + nice + system + irq + softirq) / ticks,
                    .stolen = steal / ticks};
}

}  // namespace usbd::bench
