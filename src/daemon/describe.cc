// SPDX-License-Identifier: Apache-2.0
//
// Sentences for the log.

#include "daemon/describe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/units.h"

namespace usbd::daemon {
namespace {

std::string places_of(const ServeOptions& options) {
  std::vector<std::string> places = options.devices;
  if (options.exports.empty() && places.empty()) return "the first free kernel device (auto)";
  for (const std::string& place : options.exports) {
    const bool named = place == "nbd" && !options.devices.empty();
    if (place == "auto" || named) continue;
    places.push_back(place == "nbd" ? "the first free kernel device" : place);
  }
  if (places.empty()) return "the first free kernel device (auto)";
  return fmt::format("{}", fmt::join(places, ", "));
}

/// For a shell: 'text', with quotes inside escaped.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? "'\\''" : std::string(1, c);
  return result + "'";
}

}  // namespace

std::string describe(const ExportInfo& info, const std::string& backing,
                     const ServeOptions& options) {
  std::string text = fmt::format("Exporting {} volume \"{}\" as {}", format_size(info.size),
                                 info.name, places_of(options));
  if (!backing.empty()) text += ", kept in " + backing;
  if (!options.layers.empty()) {
    text += fmt::format(", with layers {}", fmt::join(options.layers, ", "));
  }
  text += fmt::format(", in blocks of {} bytes", info.block_size_logical);
  if (info.read_only) text += ", read-only";
  return text;
}

std::vector<std::string> place_names(const std::vector<ServedAt>& places) {
  std::vector<std::string> names;
  for (const ServedAt& place : places) {
    names.push_back(place.kind == ServedAt::Kind::kKernelDevice ? place.name : place.uri);
  }
  return names;
}

std::string how_to_connect(const ServedAt& place, const std::string& export_name) {
  switch (place.kind) {
    case ServedAt::Kind::kKernelDevice:
      return fmt::format("use it as a disk: mkfs.ext4 {0} && mount {0} /mnt", place.name);
    case ServedAt::Kind::kUnixSocket:
      return fmt::format(
          "connect with: nbdinfo {}; or as root: nbd-client -unix {} -N {} /dev/nbd0",
          quoted(place.uri), quoted(place.name), quoted(export_name));
    case ServedAt::Kind::kTcpSocket:
      break;
  }
  return fmt::format("connect with: nbdinfo {}", quoted(place.uri));
}

std::string explain(const Error& error) {
  const bool own_words =
      error.is(Errc::kInvalid) || error.is(Errc::kNotSupported) || error.is(Errc::kBusy);
  return own_words && !error.context().empty() ? error.context() : error.message();
}

}  // namespace usbd::daemon
