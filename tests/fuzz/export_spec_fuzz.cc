// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes `-export`, device names, endpoints and the URIs made of them; several lines are a device
// and the exports that go with it.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/export_spec.h"
#include "frontends/nbd/uri.h"
#include "fuzz/input.h"

using usbd::fuzz::promise;

namespace {

void check_uri(const usbd::nbd::Endpoint& endpoint, std::string_view name) {
  const std::string uri = usbd::nbd::make_uri(endpoint, name);
  promise(uri.starts_with("nbd://") || uri.starts_with("nbd+unix://"), "the scheme of a URI");
  promise(std::ranges::all_of(uri, [](char c) { return c > ' ' && c < 0x7F; }),
          "a URI of printable characters");
}

void check_plan(std::string_view text) {
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string device(text.substr(0, line));
  text.remove_prefix(line);
  std::vector<std::string> exports;
  while (!text.empty()) {
    text.remove_prefix(1);  // the newline
    const size_t end = std::min(text.find('\n'), text.size());
    exports.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  const auto plan = usbd::daemon::plan_exports(exports, device);
  if (plan) {
    promise(plan->size() == std::max<size_t>(exports.size(), 1), "each export is in the plan");
  } else {
    promise(!plan.error().context().empty(), "an error says what is allowed");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto spec = usbd::daemon::parse_export(text);
  if (spec) {
    const auto again = usbd::daemon::parse_export(usbd::daemon::to_text(*spec));
    promise(again && *again == *spec, "an export reads as it was written");
  } else {
    promise(!spec.error().context().empty(), "an error says what is allowed");
  }
  const auto endpoint = usbd::nbd::parse_endpoint(text);
  if (endpoint) {
    const auto again = usbd::nbd::parse_endpoint(usbd::nbd::to_text(*endpoint));
    promise(again && *again == *endpoint, "an endpoint reads as it was written");
    check_uri(*endpoint, text);
  }
  const auto device = usbd::daemon::parse_device_name(text);
  if (device) promise(device->path.ends_with(std::to_string(device->index)), "the device's path");
  check_plan(text);
  return 0;
}
