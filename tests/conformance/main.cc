// SPDX-License-Identifier: Apache-2.0
//
// usbd-conformance: the conformance suite as a program, against an NBD server or a block device
// node. It overwrites what it tests.

#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>

#include <getopt.h>
#include <sys/stat.h>

#include <fmt/core.h>

#include "conformance/nbd_subject.h"
#include "conformance/node_subject.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

constexpr int kConforms = 0;
constexpr int kFails = 1;
constexpr int kUsage = 2;
constexpr uint64_t kLongOperations = 1'000'000;

constexpr const char* kHelp = R"(usage: usbd-conformance [options] TARGET

Sends random operations to TARGET, checks every answer against a model of its bytes, and prints what
was done. All data of TARGET within -span is overwritten.

TARGET is an NBD URI (nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH), the path of a unix
socket, or a block device node that nothing else uses (as root).

  -operations=N     operations to do (20000)
  -long             1000000 operations
  -seed=N           replays a run; 0 draws one (0, or USBD_CONFORMANCE_SEED)
  -depth=N          requests in flight together, at most (32)
  -span=BYTES       how much is used: half of it at each end (50331648)
  -connections=N    NBD connections, if the server promises MULTI_CONN (4)
  -simple-replies   NBD: do not ask for structured replies
  -lenient          NBD: demand what the protocol demands, not what usbd promises beyond it
  -trim-may-keep    trimmed ranges need not read as zeros
  -help             this text

Exit status: 0 conforms, 1 a fault was found or TARGET cannot be used, 2 usage.
)";

struct Settings {
  ConformanceOptions options = options_from_environment();
  std::string target;
  unsigned connections = 4;
  bool structured_replies = true;
  bool lenient = false;
  bool trim_zeroes = true;
};

enum Flag : int {
  kFlagOperations = 1,
  kFlagLong,
  kFlagSeed,
  kFlagDepth,
  kFlagSpan,
  kFlagConnections,
  kFlagSimple,
  kFlagLenient,
  kFlagTrim,
  kFlagHelp,
};

constexpr std::array<option, 11> kFlags{
    {{"operations", required_argument, nullptr, kFlagOperations},
     {"long", no_argument, nullptr, kFlagLong},
     {"seed", required_argument, nullptr, kFlagSeed},
     {"depth", required_argument, nullptr, kFlagDepth},
     {"span", required_argument, nullptr, kFlagSpan},
     {"connections", required_argument, nullptr, kFlagConnections},
     {"simple-replies", no_argument, nullptr, kFlagSimple},
     {"lenient", no_argument, nullptr, kFlagLenient},
     {"trim-may-keep", no_argument, nullptr, kFlagTrim},
     {"help", no_argument, nullptr, kFlagHelp},
     {nullptr, 0, nullptr, 0}}};

/// Reads the argument of a flag; false (and a message) if it is no number from `least` to `most`.
template <typename T>
bool take_number(const char* text, uint64_t least, uint64_t most, T& value) {
  uint64_t number = 0;
  const char* const end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, number);
  if (error == std::errc() && stopped == end && number >= least && number <= most) {
    value = static_cast<T>(number);
    return true;
  }
  fmt::print(stderr, "usbd-conformance: \"{}\" must be a number from {} to {}\n", text, least,
             most);
  return false;
}

bool take_flag(int flag, Settings& settings) {
  ConformanceOptions& options = settings.options;
  switch (flag) {
    case kFlagOperations:
      return take_number(optarg, 1, UINT64_MAX, options.operations);
    case kFlagLong:
      options.operations = kLongOperations;
      return true;
    case kFlagSeed:
      return take_number(optarg, 0, UINT64_MAX, options.seed);
    case kFlagDepth:
      return take_number(optarg, 1, 1'024, options.depth_max);
    case kFlagSpan:
      return take_number(optarg, 1U << 20, 1U << 30, options.span_max);
    case kFlagConnections:
      return take_number(optarg, 1, 64, settings.connections);
    case kFlagSimple:
      settings.structured_replies = false;
      return true;
    case kFlagLenient:
      settings.lenient = true;
      return true;
    case kFlagTrim:
      settings.trim_zeroes = false;
      return true;
    default:
      return false;
  }
}

/// The settings, or the exit status.
std::optional<int> parse(int argc, char** argv, Settings& settings) {
  for (;;) {
    const int flag = getopt_long_only(argc, argv, "", kFlags.data(), nullptr);
    if (flag == -1) break;
    if (flag == kFlagHelp) {
      fmt::print("{}", kHelp);
      return kConforms;
    }
    if (!take_flag(flag, settings)) return kUsage;
  }
  if (optind + 1 != argc) {
    fmt::print(stderr, "usbd-conformance: one TARGET is needed; -help says more\n");
    return kUsage;
  }
  settings.target = argv[optind];
  return std::nullopt;
}

bool is_node(const std::string& target) {
  struct stat status{};
  return ::stat(target.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
}

Result<std::unique_ptr<Subject>> open_subject(const Settings& settings) {
  if (is_node(settings.target)) {
    USBD_TRY(std::unique_ptr<Subject> node,
             NodeSubject::open(settings.target, settings.trim_zeroes));
    return node;
  }
  NbdSubject::Options options;
  USBD_TRY(options.address, NbdAddress::parse(settings.target));
  options.connections = settings.connections;
  options.structured_replies = settings.structured_replies;
  options.lenient = settings.lenient;
  options.trim_zeroes = settings.trim_zeroes;
  USBD_TRY(std::unique_ptr<Subject> nbd, NbdSubject::open(std::move(options)));
  return nbd;
}

int run(int argc, char** argv) {
  Settings settings;
  if (const auto status = parse(argc, argv, settings)) return *status;
  Result<std::unique_ptr<Subject>> subject = open_subject(settings);
  if (!subject) {
    fmt::print(stderr, "usbd-conformance: {}: {}\n", settings.target, subject.error().message());
    return kFails;
  }
  const ConformanceReport report = run_conformance(**subject, settings.options);
  fmt::print("{}\n", report.text());
  return report.passed() ? kConforms : kFails;
}

}  // namespace
}  // namespace usbd::testing

int main(int argc, char** argv) {
  return usbd::testing::run(argc, argv);
}
