// SPDX-License-Identifier: Apache-2.0
//
// For tests of sessions: the kinds of devices that they are tried with, in as many words as a test
// has room for.

#pragma once

#include <cstddef>
#include <cstdint>

#include "frontends/nbd/testing/session_kit.h"

namespace usbd::nbd {

inline constexpr uint32_t kMiB = 1U << 20;

inline ScriptedDevice::Options tries() {
  ScriptedDevice::Options options;
  options.tries = true;
  return options;
}
inline ScriptedDevice::Options direct() {
  ScriptedDevice::Options options = tries();
  options.direct = true;
  return options;
}
/// Large, and reads as zeros.
inline ScriptedDevice::Options hollow() {
  ScriptedDevice::Options options;
  options.size = uint64_t{1} << 40;
  options.hollow = true;
  return options;
}

inline SessionKit::Options with(const ScriptedDevice::Options& device,
                                uint64_t budget = limits::kBytesTotalMax) {
  SessionKit::Options options;
  options.device = device;
  options.budget = budget;
  return options;
}

inline size_t answered(const Peer& peer) {
  return peer.client.answers().size();
}

/// Lets the device work off what it has, until it has nothing.
inline void work_off(SessionKit& kit) {
  for (kit.settle(); kit.device.parked() > 0; kit.settle()) kit.device.unpark_all();
}

}  // namespace usbd::nbd
