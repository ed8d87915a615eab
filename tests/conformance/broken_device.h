// SPDX-License-Identifier: Apache-2.0
//
// BrokenDevice: a device that has one chosen fault, to prove that the conformance suite finds it.
// Except for the fault it hands everything to the device below.

#pragma once

#include <memory>
#include <string>

#include "usbd/device.h"

namespace usbd::testing {

enum class DeviceFault : uint8_t {
  kDropsWrites,
  kWritesHalf,
  kMisplacesWrites,
  kCutsOffsetsTo32Bits,
  kSharesBlocksThatBeginAlike,
  kLosesNeighboursInBlock,
  kReadsNothingOnError,
  kReadsOldDataAfterOverwrite,
  kReadsShifted,
  kTrimKeepsData,
  kTrimTakesNeighbours,
  kZeroesForgetTail,
  kZeroesRefuseNoHole,
  kFuaIgnored,
  kTrimFuaIgnored,
  kFlushIgnored,
  kExtentsOffByOne,
  kExtentsStale,
  kExtentsEmpty,
  kExtentsNotMerged,
  kFailsNowAndThen,
  kWrongError,
  kHangs,
  kLast = kHangs,
};

/// What the fault does, for people; also its name in tests.
std::string describe(DeviceFault fault);

/// Makes a device with the fault. Range: `below` has a block size of 512 and all operations native.
std::unique_ptr<Device> make_broken_device(std::unique_ptr<Device> below, DeviceFault fault,
                                           uint64_t seed);

}  // namespace usbd::testing
