// SPDX-License-Identifier: Apache-2.0
//
// Layers: devices on top of a device, named on the command line and stacked in the order given, the
// first directly on the device. What each does stands at its class, and for users in layer_help().

#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "usbd/device.h"

namespace usbd {

/// Whether make_layer() would take `spec`; to be asked before a device is opened.
/// Errors: kInvalid: what is wrong, what was given, what is allowed.
Result<void> check_layer(std::string_view spec);

/// Puts the layer that `spec` describes on top of `below`, which it closes when it is closed.
/// Errors: kInvalid; `below` is then destroyed without being closed.
Result<std::unique_ptr<Device>> make_layer(std::string_view spec, std::unique_ptr<Device> below);

/// What users may write, a few lines for each layer, each ending in a newline.
std::string layer_help();

}  // namespace usbd
