// SPDX-License-Identifier: Apache-2.0
//
// Parsing of export specifications. A path's length is checked here, where the flag can be named,
// rather than when the socket is bound.

#include "daemon/export_spec.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <sys/un.h>

#include <fmt/format.h>

namespace usbd::daemon {
namespace {

using Kind = ExportSpec::Kind;

constexpr std::string_view kAllowed =
    "allowed are auto, nbd, ublk, unix:PATH, tcp:HOST:PORT and none";
constexpr uint32_t kDeviceIndexMax = (1U << 20) - 1;  // the kernel's minor numbers: MINORBITS

template <typename T>
std::optional<T> parse_number(std::string_view text, T greatest) {
  T number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || at != end || number > greatest) return std::nullopt;
  return number;
}

Result<ExportSpec> parse_socket(std::string_view text) {
  USBD_TRY(nbd::Endpoint endpoint, nbd::parse_endpoint(text));
  if (endpoint.kind == nbd::Endpoint::Kind::kTcp) {
    return ExportSpec{.kind = Kind::kTcp, .endpoint = std::move(endpoint)};
  }
  const size_t length = endpoint.path.size();
  if (length >= sizeof(sockaddr_un::sun_path)) {
    return Error(Errc::kInvalid,
                 fmt::format("the path has {} bytes, and a unix socket's has at most {}", length,
                             sizeof(sockaddr_un::sun_path) - 1));
  }
  return ExportSpec{.kind = Kind::kUnix, .endpoint = std::move(endpoint)};
}

}  // namespace

Result<ExportSpec> parse_export(std::string_view text) {
  if (text == "auto") return ExportSpec{.kind = Kind::kAuto};
  if (text == "nbd") return ExportSpec{.kind = Kind::kNbd};
  if (text == "ublk") return ExportSpec{.kind = Kind::kUblk};
  if (text == "none") return ExportSpec{.kind = Kind::kNone};
  if (text.starts_with("unix:") || text.starts_with("tcp:")) return parse_socket(text);
  return Error(Errc::kInvalid, std::string(kAllowed));
}

std::string to_text(const ExportSpec& spec) {
  switch (spec.kind) {
    case Kind::kAuto:
      return "auto";
    case Kind::kNbd:
      return "nbd";
    case Kind::kUblk:
      return "ublk";
    case Kind::kUnix:
    case Kind::kTcp:
      return nbd::to_text(spec.endpoint);
    case Kind::kNone:
      break;
  }
  return "none";
}

Result<DeviceName> parse_device_name(std::string_view text) {
  std::string_view name = text;
  if (name.starts_with("/dev/")) name.remove_prefix(5);
  DeviceName device;
  std::string_view number;
  if (name.starts_with("nbd")) {
    number = name.substr(3);
  } else if (name.starts_with("ublkb")) {
    device.driver = Kind::kUblk;
    number = name.substr(5);
  }
  const std::optional<uint32_t> index = parse_number<uint32_t>(number, kDeviceIndexMax);
  if (!index || std::to_string(*index) != number) {
    return Error(Errc::kInvalid, "a device is named /dev/nbdN or /dev/ublkbN, such as /dev/nbd0");
  }
  device.index = *index;
  device.path = fmt::format("/dev/{}", name);
  return device;
}

Result<std::vector<ExportSpec>> plan_exports(const std::vector<std::string>& exports,
                                             const std::string& device) {
  std::vector<ExportSpec> plan;
  for (const std::string& text : exports) {
    USBD_TRY(ExportSpec spec, parse_export(text));
    if (std::ranges::find(plan, spec) != plan.end()) {
      return Error(Errc::kInvalid, fmt::format("-export={} is given twice", text));
    }
    plan.push_back(std::move(spec));
  }
  for (const ExportSpec& spec : plan) {
    if (plan.size() > 1 && (spec.kind == Kind::kAuto || spec.kind == Kind::kNone)) {
      return Error(Errc::kInvalid,
                   fmt::format("-export={} stands alone: name each place instead, such as "
                               "-export=nbd -export=unix:PATH",
                               to_text(spec)));
    }
  }
  if (plan.empty()) plan.push_back({.kind = Kind::kAuto});
  if (device.empty()) return plan;
  USBD_TRY(const DeviceName name, parse_device_name(device));
  if (plan.front().kind == Kind::kAuto) plan.front().kind = name.driver;
  if (std::ranges::find(plan, name.driver, &ExportSpec::kind) == plan.end()) {
    return Error(Errc::kInvalid,
                 fmt::format("{} is named, but -export={} does not use it: add "
                             "-export={}",
                             name.path, to_text(plan.front()), to_text({.kind = name.driver})));
  }
  return plan;
}

}  // namespace usbd::daemon
