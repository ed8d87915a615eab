// SPDX-License-Identifier: Apache-2.0
//
// Every layer over a disk that loses its power: none may forget a flush, a FUA or a trim on its way
// down, change a byte, or turn a failure into a success.

#include "layers/layers.h"

#include "conformance/crash_disk_test_fixture.h"

namespace usbd::testing {
namespace {

class Layer : public CrashDiskTest {
 protected:
  void conforms_with(const std::vector<std::string>& specs, bool may_fail = false) {
    const Stack stack = [specs](std::unique_ptr<Device> disk) -> Result<std::unique_ptr<Device>> {
      for (const std::string& spec : specs) {
        USBD_TRY(disk, make_layer(spec, std::move(disk)));
      }
      return disk;
    };
    conforms({.block_size = 4096}, stack, may_fail);
  }
};

TEST_F(Layer, DelayConforms) {
  options_.operations = 2'000;
  conforms_with({"delay:read=20us,write=50us,flush=100us"});
}

TEST_F(Layer, StallConforms) {
  options_.operations = 2'000;
  conforms_with({"delay:all=stall,after=10ms,for=50ms"});
}

TEST_F(Layer, FaultConformsWithoutFaults) {
  conforms_with({"fault:rate=0"});
}

TEST_F(Layer, FaultFailsRequestsAndNothingElse) {
  conforms_with({"fault:rate=0.02,seed=3"}, true);
  conforms_with({"fault:op=write+trim,error=ENOSPC,rate=0.1,seed=4"}, true);
  conforms_with({"fault:op=flush,rate=0.5,seed=5"}, true);
}

TEST_F(Layer, ReadOnlyConforms) {
  conforms_with({"readonly"});
}

TEST_F(Layer, StatisticsConform) {
  conforms_with({"stats"});
}

TEST_F(Layer, StackOfLayersConforms) {
  conforms_with({"stats", "fault:op=read,rate=0.01", "delay:trim=10us", "stats"}, true);
}

}  // namespace
}  // namespace usbd::testing
