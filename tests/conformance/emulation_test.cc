// SPDX-License-Identifier: Apache-2.0
//
// What core does for devices that lack operations or have large blocks, over a disk that loses its
// power: the emulation keeps the promises that a native operation would.

#include "conformance/crash_disk_test_fixture.h"

namespace usbd::testing {
namespace {

using Emulation = CrashDiskTest;

TEST_F(Emulation, IsNotNeededWhereEverythingIsNative) {
  conforms({});
}

TEST_F(Emulation, MakesUpForEverythingOptional) {
  conforms({.block_size = 4096, .capabilities = {}});
}

TEST_F(Emulation, ModifiesPartsOfBlocks) {
  conforms({.block_size = 4096});
}

TEST_F(Emulation, ModifiesPartsOfLargeBlocks) {
  conforms({.block_size = 65'536, .max_io = 65'536});
}

TEST_F(Emulation, CutsLargeRequests) {
  conforms({.block_size = 512, .max_io = 1'024});
}

TEST_F(Emulation, HoldsAtTheSmallestSizes) {
  options_.operations = 3'000;
  conforms({.size = 512});
  conforms({.size = 1, .block_size = 1});
  conforms({.size = 3'001, .block_size = 1, .max_io = 7});
}

TEST_F(Emulation, TrimsByZeroingAndFlushesForFua) {
  Capabilities capabilities = CrashDisk::everything_native();
  capabilities.trim = Support::kEmulated;
  capabilities.fua = Support::kEmulated;
  conforms({.block_size = 4096, .capabilities = capabilities});
}

TEST_F(Emulation, RefusesChangesOfReadOnlyDevices) {
  Capabilities capabilities = CrashDisk::everything_native();
  capabilities.read_only = true;
  conforms({.capabilities = capabilities});
}

TEST_F(Emulation, HoldsBeyondFourGiB) {
  conforms({.size = (9ULL << 30U) + 512});
}

}  // namespace
}  // namespace usbd::testing
