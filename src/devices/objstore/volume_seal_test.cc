// SPDX-License-Identifier: Apache-2.0
//
// Where the bytes of an object come from: from memory, from the journal, or from both, on the
// volume's loop or on workers; and how much may be on its way at once.

#include <algorithm>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "async/testing.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using ::testing::HasSubstr;
using ByteVector = std::vector<std::byte>;

constexpr uint64_t kBlocks = 1024;
constexpr uint64_t kWriteBlocks = 16;

/// A store that takes its time, and counts how much of it is asked for at once.
class SlowStore final : public objects::ObjectStore {
 public:
  explicit SlowStore(std::shared_ptr<objects::MemoryContainer> bucket)
      : inner_(std::move(bucket)) {}
  [[nodiscard]] uint64_t puts_at_once() const { return puts_at_once_; }

  [[nodiscard]] std::string name() const override { return inner_.name(); }
  [[nodiscard]] objects::Abilities abilities() const override { return inner_.abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, objects::Condition condition,
                                objects::CallLimits limits) override {
    const bool counts = name.find("/d/") != std::string::npos;
    if (counts) puts_at_once_ = std::max(puts_at_once_, ++puts_);
    co_await Loop::current().sleep_for(Nanos(20'000'000), limits.stop);
    if (counts) --puts_;
    co_return co_await inner_.put(std::move(name), data, std::move(condition), std::move(limits));
  }
  Task<Result<objects::Fetched>> get(std::string name, objects::Part part,
                                     objects::CallLimits limits) override {
    return inner_.get(std::move(name), part, std::move(limits));
  }
  Task<Result<objects::ObjectInfo>> head(std::string name, objects::CallLimits limits) override {
    return inner_.head(std::move(name), std::move(limits));
  }
  Task<Result<objects::ListPage>> list(std::string prefix, std::string after, size_t most,
                                       objects::CallLimits limits) override {
    return inner_.list(std::move(prefix), std::move(after), most, std::move(limits));
  }
  Task<Result<void>> remove(std::string name, objects::CallLimits limits) override {
    return inner_.remove(std::move(name), std::move(limits));
  }
  Task<void> close() override { return inner_.close(); }

 private:
  objects::MemoryStore inner_;
  uint64_t puts_ = 0;
  uint64_t puts_at_once_ = 0;
};

/// On a loop of either kind, which has run(task).
struct Setting {
  Setting() {
    options.name = "vol";
    options.size = kBlocks * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.object_bytes = 1U << 20;
    options.journal_bytes = 64U << 20;
    options.flush_every = Nanos(3'600'000'000'000);
    image.resize(options.size);
    SeededRng(3).fill(image);
  }
  [[nodiscard]] VolumeParts parts() {
    return {.store = store, .folder = &folder, .rng = rng, .workers = workers};
  }
  [[nodiscard]] Bytes of_image(uint64_t block, uint64_t count) const {
    return Bytes(image).subspan(block * kBlockBytes, count * kBlockBytes);
  }
  Task<Result<void>> open() {
    USBD_CO_TRY(volume, co_await Volume::open(parts(), options));
    co_return Result<void>();
  }
  /// In an order that is not that of the blocks.
  Task<Result<void>> write_all() {
    for (uint64_t i = 0; i < kBlocks / kWriteBlocks; ++i) {
      const uint64_t at = i * 37 % (kBlocks / kWriteBlocks) * kWriteBlocks;
      USBD_CO_TRY(const uint64_t number, co_await volume->write(at, of_image(at, kWriteBlocks)));
      static_cast<void>(number);
    }
    co_return co_await volume->flush();
  }
  Task<Result<void>> expect_image() {
    ByteVector out(image.size());
    USBD_CO_TRY_VOID(co_await volume->read(0, out));
    EXPECT_EQ(out, image);
    co_return Result<void>();
  }
  Task<Result<void>> close() {
    const Result<void> closed = co_await volume->close({});
    volume.reset();
    co_return closed;
  }
  /// What is read afterwards comes from the store.
  Task<Result<void>> reopen() {
    USBD_CO_TRY_VOID(co_await close());
    co_return co_await open();
  }

  MemoryDisk disk;
  MemoryFolder folder{disk};
  SeededRng rng{1};
  std::shared_ptr<objects::MemoryContainer> bucket = std::make_shared<objects::MemoryContainer>();
  SlowStore store{bucket};
  WorkerPool* workers = nullptr;
  VolumeOptions options;
  ByteVector image;
  std::unique_ptr<Volume> volume;
};

class VolumeSeals : public ::testing::Test, public Setting {
 protected:
  ~VolumeSeals() override {
    if (!volume) return;  // else the test has failed
    volume->abandon();
    static_cast<void>(*loop.run(close()));
  }
  void run(Task<Result<void>> task) {
    const Result<void> done = *loop.run(std::move(task));
    ASSERT_TRUE(done) << done.error().message();
  }
  void start() {
    run(open());
    run(write_all());
  }
  void publish_and_look() {
    run(volume->publish_all());
    run(reopen());
    run(expect_image());
    run(close());
  }

  static Task<void> publish(Volume& volume) {
    static_cast<void>(co_await volume.publish_all());  // or not: it is given up
  }
  static Task<bool> abandon_after(SimLoop& loop, Volume& volume, int turns) {
    for (; turns > 0; --turns) co_await loop.schedule();
    volume.abandon();
    co_return true;
  }

  SimLoop loop{SimLoop::Options{}};
};

TEST_F(VolumeSeals, ReadsBackFromTheJournalWhatIsNotInMemory) {
  start();
  run(expect_image());
  publish_and_look();
}

TEST_F(VolumeSeals, LeavesTheJournalAloneForWhatIsInMemory) {
  options.object_bytes = 8U << 20;
  options.memory_bytes = 64U << 20;
  start();
  disk.reads_fail = "journal";
  run(expect_image());
  run(volume->publish_all());
  disk.reads_fail = "-";
  publish_and_look();
}

TEST_F(VolumeSeals, TakesEachPartFromWhereItIs) {
  options.memory_bytes = 1U << 20;
  start();
  run(expect_image());
  publish_and_look();
}

TEST_F(VolumeSeals, EndsIfTheJournalCannotBeReadBack) {
  options.object_bytes = 8U << 20;
  start();
  disk.reads_fail = "journal";
  const Result<void> published = *loop.run(volume->publish_all());
  ASSERT_FALSE(published);
  EXPECT_TRUE(published.error().is(Errc::kIo));
  EXPECT_THAT(published.error().message(), HasSubstr("the journal cannot be read back"));
  disk.reads_fail = "-";
  EXPECT_FALSE(*loop.run(close()));
}

TEST_F(VolumeSeals, UploadsAsManyAtOnceAsTheMemoryHolds) {
  options.memory_bytes = 5U << 19;
  start();
  run(volume->publish_all());
  EXPECT_EQ(store.puts_at_once(), 2U);
  run(close());
}

TEST_F(VolumeSeals, LetsOneThroughThatTheMemoryDoesNotHold) {
  options.memory_bytes = 1U << 10;
  start();
  run(volume->publish_all());
  EXPECT_EQ(store.puts_at_once(), 1U);
  publish_and_look();
}

TEST_F(VolumeSeals, UploadsAsManyAtOnceAsItMayIfThereIsMemory) {
  options.memory_bytes = 64U << 20;
  start();
  run(volume->publish_all());
  EXPECT_EQ(store.puts_at_once(), 4U);
  run(close());
}

TEST_F(VolumeSeals, MayBeGivenUpAtEveryStep) {
  options.object_bytes = 8U << 20;
  options.memory_bytes = 64U << 20;
  for (int turns = 0; turns < 30; ++turns) {
    start();
    loop.spawn(publish(*volume));
    static_cast<void>(*loop.run(abandon_after(loop, *volume, turns)));
    static_cast<void>(*loop.run(close()));
    // Whatever of it had been done: the journal has it all.
    run(open());
    run(expect_image());
    run(close());
  }
}

TEST(VolumeSealsOnWorkers, MakesTheSameImage) {
  usbd::testing::TestLoop loop;
  for (const uint64_t memory : {uint64_t{0}, uint64_t{1} << 20, uint64_t{64} << 20}) {
    Setting setting;
    setting.workers = &loop.pool();
    setting.options.memory_bytes = memory;
    setting.options.codec = codec::Codec{.kind = codec::CodecKind::kZstd};
    ASSERT_TRUE(loop.run(setting.open()));
    ASSERT_TRUE(loop.run(setting.write_all()));
    ASSERT_TRUE(loop.run(setting.volume->publish_all()));
    ASSERT_TRUE(loop.run(setting.reopen()));
    ASSERT_TRUE(loop.run(setting.expect_image()));
    ASSERT_TRUE(loop.run(setting.close()));
  }
}

}  // namespace
}  // namespace usbd::objstore
