// SPDX-License-Identifier: Apache-2.0
//
// What an Export lets through, what it refuses with which errno, and what it says of a device.

#include "core/export.h"

#include <cerrno>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/limits.h"

namespace usbd {
namespace {

/// A device that only has a shape.
class ShapeDevice final : public Device {
 public:
  ShapeDevice(Geometry geometry, Capabilities capabilities)
      : geometry_(geometry), capabilities_(capabilities) {}

  std::string name() const override { return "shape"; }
  Geometry geometry() const override { return geometry_; }
  Capabilities capabilities() const override { return capabilities_; }
  Task<Result<void>> read(uint64_t, MutableBytes) override { co_return Result<void>(); }
  Task<Result<void>> write(uint64_t, Bytes, WriteFlags) override { co_return Result<void>(); }
  Task<Result<void>> flush() override { co_return Result<void>(); }
  Task<Result<void>> close() override { co_return Result<void>(); }

 private:
  const Geometry geometry_;
  const Capabilities capabilities_;
};

constexpr uint64_t kSize = 1 << 20;

Capabilities everything() {
  return {.trim = Support::kNative,
          .write_zeroes = Support::kNative,
          .fast_zero = true,
          .fua = Support::kNative,
          .extents = Support::kNative};
}

struct Case {
  const char* what;
  Request request;
  int expected;
};

void check_all(const Export& served, const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    EXPECT_EQ(served.check(one.request), one.expected) << one.what;
  }
}

Request ask(Op op, uint64_t offset, uint64_t length) {
  return {.op = op, .range = {offset, length}};
}

TEST(ExportCheck, LetsThroughWhatFitsAndRefusesWhatDoesNot) {
  ShapeDevice device({.size = kSize}, everything());
  const Export served(device, {});
  check_all(served, {
                        {"first byte", ask(Op::kRead, 0, 1), 0},
                        {"last byte", ask(Op::kRead, kSize - 1, 1), 0},
                        {"all of it", ask(Op::kWrite, 0, kSize), 0},
                        {"odd range", ask(Op::kTrim, 3, 1000), 0},
                        {"nothing read", ask(Op::kRead, 0, 0), EINVAL},
                        {"nothing written", ask(Op::kWrite, 0, 0), EINVAL},
                        {"nothing trimmed", ask(Op::kTrim, 4096, 0), EINVAL},
                        {"no extents", ask(Op::kExtents, 0, 0), EINVAL},
                        {"read one byte too far", ask(Op::kRead, kSize, 1), EINVAL},
                        {"read across the end", ask(Op::kRead, kSize - 1, 2), EINVAL},
                        {"write across the end", ask(Op::kWrite, kSize - 1, 2), ENOSPC},
                        {"zeroing across the end", ask(Op::kWriteZeroes, kSize - 1, 2), ENOSPC},
                        {"trim across the end", ask(Op::kTrim, kSize - 1, 2), EINVAL},
                        {"cache across the end", ask(Op::kCache, kSize - 1, 2), EINVAL},
                        {"extents across the end", ask(Op::kExtents, kSize - 1, 2), EINVAL},
                        {"end wraps", ask(Op::kWrite, UINT64_MAX, 2), ENOSPC},
                        {"end wraps to zero", ask(Op::kRead, UINT64_MAX - 7, 8), EINVAL},
                        {"length as large as can be", ask(Op::kTrim, 1, UINT64_MAX), EINVAL},
                        {"flush has no range", ask(Op::kFlush, 0, 0), 0},
                    });
}

TEST(ExportCheck, BoundsOnlyPayloads) {
  ShapeDevice device({.size = uint64_t{1} << 40}, everything());
  const Export served(device, {});
  const uint64_t most = limits::kRequestMax;
  check_all(served, {
                        {"largest read", ask(Op::kRead, 0, most), 0},
                        {"larger read", ask(Op::kRead, 0, most + 1), EINVAL},
                        {"largest write", ask(Op::kWrite, 0, most), 0},
                        {"larger write", ask(Op::kWrite, 0, most + 1), EINVAL},
                        {"large trim", ask(Op::kTrim, 0, uint64_t{1} << 40), 0},
                        {"large zeroing", ask(Op::kWriteZeroes, 0, 4 * most), 0},
                        {"large extents", ask(Op::kExtents, 0, 4 * most), 0},
                        {"large cache", ask(Op::kCache, 0, 4 * most), 0},
                    });
}

void check_read_only(const Export& served) {
  EXPECT_TRUE(served.info().read_only);
  check_all(served, {{"write", ask(Op::kWrite, 0, 512), EPERM},
                     {"write far beyond the end", ask(Op::kWrite, kSize * 2, 512), EPERM},
                     {"trim", ask(Op::kTrim, 0, 512), EPERM},
                     {"zeroing", ask(Op::kWriteZeroes, 0, 512), EPERM},
                     {"read", ask(Op::kRead, 0, 512), 0},
                     {"flush", ask(Op::kFlush, 0, 0), 0},
                     {"cache", ask(Op::kCache, 0, 512), 0},
                     {"extents", ask(Op::kExtents, 0, 512), 0}});
}

TEST(ExportCheck, RefusesChangesOfAReadOnlyExport) {
  ShapeDevice device({.size = kSize}, everything());
  Export::Options options;
  options.read_only = true;
  check_read_only(Export(device, options));
}

TEST(ExportCheck, RefusesChangesOfAReadOnlyDevice) {
  Capabilities capabilities = everything();
  capabilities.read_only = true;
  ShapeDevice device({.size = kSize}, capabilities);
  check_read_only(Export(device, {}));
}

TEST(ExportCheck, RefusesOperationsTheDeviceHasNot) {
  ShapeDevice device({.size = kSize}, {.trim = Support::kNone, .write_zeroes = Support::kNone});
  const Export served(device, {});
  EXPECT_FALSE(served.info().can_trim);
  EXPECT_FALSE(served.info().can_write_zeroes);
  check_all(served, {{"trim", ask(Op::kTrim, 0, 512), EINVAL},
                     {"zeroing", ask(Op::kWriteZeroes, 0, 512), EINVAL},
                     {"write", ask(Op::kWrite, 0, 512), 0}});
}

TEST(ExportCheck, RefusesUnalignedRequestsOnlyWhereAlignmentIsStrict) {
  ShapeDevice device({.size = kSize, .block_size = 512}, everything());
  const Export lenient(device, {});
  Export::Options options;
  options.strict_alignment = true;
  const Export strict(device, options);
  EXPECT_EQ(lenient.info().block_size_min, 1U);
  EXPECT_EQ(strict.info().block_size_min, 512U);
  const Request unaligned[] = {ask(Op::kRead, 1, 512),   ask(Op::kWrite, 512, 511),
                               ask(Op::kTrim, 256, 512), ask(Op::kWriteZeroes, 0, 513),
                               ask(Op::kExtents, 0, 5),  ask(Op::kCache, 5, 512)};
  for (const Request& request : unaligned) {
    EXPECT_EQ(lenient.check(request), 0);
    EXPECT_EQ(strict.check(request), EINVAL) << op_name(request.op);
  }
  EXPECT_EQ(strict.check(ask(Op::kWrite, 512, 1024)), 0);
}

TEST(Export, ClaimsWholeBlocksOfTheDevice) {
  ShapeDevice device({.size = kSize, .block_size = 4096}, everything());
  const Export served(device, {});
  EXPECT_EQ(served.claim_of(ask(Op::kWrite, 5000, 1)), ByteRange(4096, 4096));
  EXPECT_EQ(served.claim_of(ask(Op::kWrite, 4096, 4096)), ByteRange(4096, 4096));
  EXPECT_EQ(served.claim_of(ask(Op::kTrim, 4095, 2)), ByteRange(0, 8192));
  EXPECT_EQ(served.claim_of(ask(Op::kWriteZeroes, kSize - 1, 1)), ByteRange(kSize - 4096, 4096));
}

TEST(Export, ClaimsLongClearingsPieceByPiece) {
  ShapeDevice device({.size = uint64_t{1} << 40}, everything());
  const Export served(device, {});
  const uint64_t chunk = limits::kTrimChunk;
  EXPECT_EQ(served.claim_of(ask(Op::kTrim, 10, chunk)), ByteRange(10, chunk));
  EXPECT_TRUE(served.claim_of(ask(Op::kTrim, 10, chunk + 1)).empty());
  EXPECT_TRUE(served.claim_of(ask(Op::kWriteZeroes, 0, uint64_t{1} << 40)).empty());
}

TEST(Export, TellsWhatTheDeviceHas) {
  ShapeDevice device(
      {.size = kSize, .block_size = 512, .logical_block_size = 4096, .preferred_io = 65536},
      everything());
  const Export served(device, {.name = "vol", .description = "text"});
  const ExportInfo& info = served.info();
  EXPECT_EQ(info.name, "vol");
  EXPECT_EQ(info.description, "text");
  EXPECT_EQ(info.size, kSize);
  EXPECT_EQ(info.block_size_logical, 4096U);
  EXPECT_EQ(info.block_size_preferred, 65536U);
  EXPECT_EQ(info.payload_max, limits::kRequestMax);
  EXPECT_TRUE(info.can_flush && info.can_fua && info.can_trim && info.can_write_zeroes);
  EXPECT_TRUE(info.can_fast_zero && info.can_multi_connection && info.can_cache);
  EXPECT_FALSE(info.read_only);
}

TEST(Export, PromisesFastZeroingOnlyWhereItIsTheDevicesOwn) {
  Capabilities capabilities = everything();
  capabilities.write_zeroes = Support::kEmulated;
  ShapeDevice device({.size = kSize}, capabilities);
  const Export served(device, {});
  EXPECT_TRUE(served.info().can_write_zeroes);
  EXPECT_FALSE(served.info().can_fast_zero);
}

TEST(Export, MayServeADeviceWithoutBytes) {
  ShapeDevice device({.size = 0, .block_size = 512}, everything());
  Export served(device, {});
  EXPECT_EQ(served.check(ask(Op::kRead, 0, 1)), EINVAL);
  EXPECT_EQ(served.check(ask(Op::kWrite, 0, 1)), ENOSPC);
  EXPECT_EQ(served.check(ask(Op::kFlush, 0, 0)), 0);
  EXPECT_TRUE(served.direct({0, 1}).empty());
}

using ExportDeathTest = testing::Test;

TEST(ExportDeathTest, RefusesADeviceWhoseShapeContradictsItself) {
  ShapeDevice odd_size({.size = 1000, .block_size = 512}, everything());
  EXPECT_DEATH(Export(odd_size, {}), "size");
  ShapeDevice odd_block({.size = 3000, .block_size = 1000}, everything());
  EXPECT_DEATH(Export(odd_block, {}), "block_size");
  ShapeDevice odd_max({.size = 8192, .block_size = 4096, .max_io = 6000}, everything());
  EXPECT_DEATH(Export(odd_max, {}), "max_io");
  Capabilities impossible;
  impossible.trim = Support::kEmulated;
  ShapeDevice trim_by_nothing({.size = 8192}, impossible);
  EXPECT_DEATH(Export(trim_by_nothing, {}), "trim");
}

}  // namespace
}  // namespace usbd
