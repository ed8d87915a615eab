// SPDX-License-Identifier: Apache-2.0
//
// The objstore device through the conformance suite: simulated, on a disk that loses its power and
// in front of a store that fails, with kills, power cuts and proper stops in an order from the
// seed; and as it runs in the daemon, on several loops, with a store in a directory.

#include <filesystem>
#include <memory>

#include <unistd.h>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "async/kernel_folder.h"
#include "async/sim_loop.h"
#include "base/random.h"
#include "devices/objstore/objstore_device.h"
#include "objects/local/local_store.h"
#include "objects/retrying_store.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

using objstore::ObjstoreDevice;
using objstore::VolumeOptions;

crypto::Secret key() {
  std::array<std::byte, 32> bytes{};
  SeededRng(7).fill(bytes);
  return crypto::Secret(Bytes(bytes));
}

/// Small, so that objects are many and the journal wraps often.
VolumeOptions small_volume(uint32_t logical_block_size) {
  VolumeOptions options;
  options.name = "vol";
  options.logical_block_size = logical_block_size;
  options.size = (2U << 20) + logical_block_size;
  options.codec = {.kind = codec::CodecKind::kLz4};
  options.object_bytes = 256U << 10;
  options.flush_every = Nanos(500'000'000);
  options.journal_bytes = 1U << 20;
  options.journal_payload_max = 16;
  options.cache_bytes = 512U << 10;
  options.keeps_cache = true;
  return options;
}

class ObjstoreDeviceSimulated : public ::testing::Test {
 protected:
  void SetUp() override {
    options_ = options_from_environment({.operations = 4'000, .crash_every = 40});
    while (options_.seed == 0) options_.seed = SystemRng().next() >> 32U;
  }

  void conforms(const VolumeOptions& volume, uint64_t fault_one_in) {
    fault_one_in_ = fault_one_in;
    volume_ = volume;
    DeviceUnderTest device([this] { return open(); });
    device.durable = true;
    device.works_unasked = true;
    device.crash = [this] { crash(); };
    auto subject = make_simulated_subject(device, options_.seed);
    ASSERT_TRUE(subject.has_value()) << subject.error().message();
    const ConformanceReport report = run_conformance(**subject, options_);
    fmt::print("{}\n", report.text());
    EXPECT_TRUE(report.passed()) << report.text();
  }

  Task<Result<std::unique_ptr<Device>>> open() {
    if (!disk_) make_world(dynamic_cast<SimLoop&>(Loop::current()));
    // A store that fails now and then fails openings too; a daemon is started again then.
    for (int attempt = 0; true; ++attempt) {
      ObjstoreDevice::Parts parts;
      parts.rng = std::make_unique<SeededRng>(crash_rng_.next());
      parts.store = std::make_unique<objects::RetryingStore>(store_->attach(),
                                                             objects::RetryOptions(), *parts.rng);
      parts.folder = disk_->attach();
      parts.key = key();
      Result<std::unique_ptr<ObjstoreDevice>> opened =
          co_await ObjstoreDevice::open(std::move(parts), volume_);
      if (!opened && attempt < 50 && objects::is_transient(opened.error())) continue;
      if (!opened) co_return opened.error();
      device_ = opened->get();
      co_return std::unique_ptr<Device>(*std::move(opened));
    }
  }

  void make_world(SimLoop& loop) {
    disk_ = std::make_unique<sim::SimDisk>(loop, sim::SimDisk::Options{.seed = options_.seed + 1});
    store_ = std::make_unique<sim::SimStore>(
        loop, sim::SimStore::Options{.seed = options_.seed + 2, .fault_one_in = fault_one_in_});
  }

  void crash() {
    store_->kill(store_->last_life());
    if (crash_rng_.one_in(2)) {
      disk_->cut_power();
    } else {
      disk_->kill_process();
    }
    device_->hurry();  // its tasks only have to end: nothing that they do has an effect
  }

  ConformanceOptions options_;
  VolumeOptions volume_;
  uint64_t fault_one_in_ = 0;
  SeededRng crash_rng_{3};
  std::unique_ptr<sim::SimDisk> disk_;
  std::unique_ptr<sim::SimStore> store_;
  ObjstoreDevice* device_ = nullptr;
};

TEST_F(ObjstoreDeviceSimulated, KeepsWhatWasFlushed) {
  conforms(small_volume(4096), 0);
}

TEST_F(ObjstoreDeviceSimulated, KeepsItInSmallBlocks) {
  conforms(small_volume(512), 0);
}

TEST_F(ObjstoreDeviceSimulated, KeepsItThoughTheStoreFails) {
  conforms(small_volume(512), 12);
}

TEST_F(ObjstoreDeviceSimulated, KeepsItInTheStoreAlone) {
  VolumeOptions volume = small_volume(512);
  volume.flush_mode = objstore::FlushMode::kRemote;
  options_.operations = std::min<uint64_t>(options_.operations, 1'500);
  conforms(volume, 20);
}

class ObjstoreDeviceReal : public ::testing::Test {
 protected:
  ObjstoreDeviceReal() {
    std::string pattern = std::filesystem::temp_directory_path() / "objstore_conformance.XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~ObjstoreDeviceReal() override { std::filesystem::remove_all(directory_); }

  Task<Result<std::unique_ptr<ObjstoreDevice>>> open(VolumeOptions volume, WorkerPool& pool) const {
    ObjstoreDevice::Parts parts;
    parts.rng = std::make_unique<SystemRng>();
    parts.key = key();
    parts.workers = &pool;
    objects::LocalStore::Options where{.path = directory_, .container = "bucket"};
    USBD_CO_TRY(parts.store,
                co_await objects::LocalStore::open(std::move(where), pool, *parts.rng));
    USBD_CO_TRY(parts.folder, KernelFolder::open_directory(directory_, pool));
    co_return co_await ObjstoreDevice::open(std::move(parts), std::move(volume));
  }

  void conforms(const VolumeOptions& volume) {
    DeviceUnderTest device([this, volume](WorkerPool& pool) { return open(volume, pool); });
    device.durable = true;
    const ConformanceReport report =
        check_device(device, options_from_environment({.operations = 3'000}));
    EXPECT_TRUE(report.passed()) << report.text();
  }

  std::string directory_;
};

TEST_F(ObjstoreDeviceReal, ConformsOnADirectory) {
  VolumeOptions volume = small_volume(4096);
  volume.size = (6U << 20) + 4096;
  volume.journal_bytes = 8U << 20;
  conforms(volume);
}

TEST_F(ObjstoreDeviceReal, ConformsWithSmallBlocks) {
  VolumeOptions volume = small_volume(512);
  volume.size = (6U << 20) + 512;
  volume.journal_bytes = 8U << 20;
  conforms(volume);
}

TEST_F(ObjstoreDeviceReal, ConformsWhenFlushesGoToTheStore) {
  VolumeOptions volume = small_volume(4096);
  volume.flush_mode = objstore::FlushMode::kRemote;
  volume.cipher = crypto::CipherMode::kChaCha20Poly1305;
  conforms(volume);
}

}  // namespace
}  // namespace usbd::testing
