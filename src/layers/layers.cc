// SPDX-License-Identifier: Apache-2.0
//
// The table of layers: a name, help, and how it is made. A new layer is one line here.

#include "layers/layers.h"

#include <array>

#include <fmt/format.h>

#include "layers/delay_layer.h"
#include "layers/fault_layer.h"
#include "layers/read_only_layer.h"
#include "layers/spec.h"
#include "layers/stats_layer.h"

namespace usbd {
namespace {

/// Checks the spec; with a device makes the layer, without one returns null.
using Make = Result<std::unique_ptr<Device>> (*)(const LayerSpec&, std::unique_ptr<Device>);

/// For a layer with rules of its own.
template <typename Layer>
Result<std::unique_ptr<Device>> make_ruled(const LayerSpec& spec, std::unique_ptr<Device> below) {
  USBD_TRY(auto rules, Layer::parse(spec));
  if (below == nullptr) return std::unique_ptr<Device>();
  return std::unique_ptr<Device>(std::make_unique<Layer>(std::move(below), std::move(rules)));
}

/// For a layer without any.
template <typename Layer>
Result<std::unique_ptr<Device>> make_plain(const LayerSpec& spec, std::unique_ptr<Device> below) {
  USBD_TRY_VOID(spec.check_keys({}));
  if (below == nullptr) return std::unique_ptr<Device>();
  return std::unique_ptr<Device>(std::make_unique<Layer>(std::move(below)));
}

struct Kind {
  const char* name;
  Make make;
  const char* help;
};

constexpr std::array<Kind, 4> kKinds{{
    {"delay", make_ruled<DelayLayer>,
     "delay:OP=DURATION,...[,after=DURATION][,for=DURATION]\n"
     "    Requests of kind OP (read, write, flush, trim, write_zeroes, cache, extents, all) wait.\n"
     "    With after and for only those that come in that time after the first request. OP=stall:\n"
     "    they wait until it is over, like a device that hangs.\n"},
    {"fault", make_ruled<FaultLayer>,
     "fault:[op=OP+OP...][,error=EIO][,rate=0..1][,after=N][,count=N][,range=OFFSET+LEN][,seed=N]\n"
     "    Requests fail with `error`: of those of kind op (default all) that touch `range`, the\n"
     "    share `rate` (default 1), not before N have gone well, not more than `count`. The same\n"
     "    seed fails the same ones.\n"},
    {"readonly", make_plain<ReadOnlyLayer>,
     "readonly\n"
     "    Nothing can be changed.\n"},
    {"stats", make_plain<StatsLayer>,
     "stats\n"
     "    Counts what reaches the device, and logs it at the end.\n"},
}};

Result<std::unique_ptr<Device>> make(std::string_view text, std::unique_ptr<Device> below) {
  USBD_TRY(const LayerSpec spec, LayerSpec::parse(text));
  std::string names;
  for (const Kind& kind : kKinds) {
    if (spec.name() == kind.name) return kind.make(spec, std::move(below));
    names += names.empty() ? "" : ", ";
    names += kind.name;
  }
  return Error(Errc::kInvalid,
               fmt::format("there is no layer \"{}\": there are {}", spec.name(), names));
}

}  // namespace

Result<void> check_layer(std::string_view spec) {
  USBD_TRY(const std::unique_ptr<Device> nothing, make(spec, nullptr));
  return {};
}

Result<std::unique_ptr<Device>> make_layer(std::string_view spec, std::unique_ptr<Device> below) {
  return make(spec, std::move(below));
}

std::string layer_help() {
  std::string text;
  for (const Kind& kind : kKinds) text += kind.help;
  return text;
}

}  // namespace usbd
