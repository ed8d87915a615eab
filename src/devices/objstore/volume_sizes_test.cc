// SPDX-License-Identifier: Apache-2.0
//
// Volumes of many objects and of odd sizes, opened elsewhere with nothing but the bucket; and what
// opening costs when there are very many objects. USBD_OBJECTS (10000) is how many these are.

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <map>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using ByteVector = std::vector<std::byte>;

/// A store whose answers take 20 ms, and their bytes 10 ns each.
class FarStore final : public objects::ObjectStore {
 public:
  explicit FarStore(std::shared_ptr<objects::MemoryContainer> bucket) : inner_(std::move(bucket)) {}
  void be_far(bool far) { far_ = far; }

  [[nodiscard]] std::string name() const override { return inner_.name(); }
  [[nodiscard]] objects::Abilities abilities() const override { return inner_.abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, objects::Condition condition,
                                objects::CallLimits limits) override {
    ++puts_;
    ++puts_of_[name.contains("/d/")    ? "data"
               : name.contains("/m/")  ? "map"
               : name.contains("head") ? "head"
                                       : "other"];
    co_await travel(data.size());
    co_return co_await inner_.put(std::move(name), data, std::move(condition), std::move(limits));
  }
  Task<Result<objects::Fetched>> get(std::string name, objects::Part part,
                                     objects::CallLimits limits) override {
    ++fetches_;
    Result<objects::Fetched> fetched =
        co_await inner_.get(std::move(name), part, std::move(limits));
    co_await travel(fetched ? fetched->data.size() : 0);
    co_return fetched;
  }
  Task<Result<objects::ObjectInfo>> head(std::string name, objects::CallLimits limits) override {
    co_await travel(0);
    co_return co_await inner_.head(std::move(name), std::move(limits));
  }
  Task<Result<objects::ListPage>> list(std::string prefix, std::string after, size_t most,
                                       objects::CallLimits limits) override {
    co_await travel(most * 100);
    co_return co_await inner_.list(std::move(prefix), std::move(after), most, std::move(limits));
  }
  Task<Result<void>> remove(std::string name, objects::CallLimits limits) override {
    return inner_.remove(std::move(name), std::move(limits));
  }
  Task<void> close() override { return inner_.close(); }
  [[nodiscard]] uint64_t fetches() const { return fetches_; }
  [[nodiscard]] uint64_t puts() const { return puts_; }
  /// By kind of object.
  [[nodiscard]] const std::map<std::string, uint64_t>& puts_of() const { return puts_of_; }

 private:
  Task<void> travel(uint64_t bytes) const {
    if (!far_) co_return;
    co_await Loop::current().sleep_for(Nanos(20'000'000 + 10 * static_cast<int64_t>(bytes)));
  }

  objects::MemoryStore inner_;
  bool far_ = false;
  uint64_t fetches_ = 0;
  uint64_t puts_ = 0;
  std::map<std::string, uint64_t> puts_of_;
};

class VolumeSizes : public ::testing::Test {
 protected:
  VolumeSizes() {
    bucket->bytes_max = 64ULL << 30;
    options.name = "vol";
    options.logical_block_size = 512;
    options.object_bytes = 64U << 10;
    options.journal_bytes = 16U << 20;
    // Else small objects are merged.
    options.space.clean.small_objects = 0;
    SeededRng(5).fill(key);
  }

  template <typename T>
  T run(Task<T> task) {
    std::optional<T> result = loop.run(std::move(task));
    EXPECT_TRUE(result.has_value()) << "it hangs";
    return *std::move(result);
  }
  void open() {
    const VolumeParts parts{.store = store, .folder = &folder, .rng = rng, .key = key};
    Result<std::unique_ptr<Volume>> opened = run(Volume::open(parts, options));
    ASSERT_TRUE(opened) << opened.error().message();
    volume = *std::move(opened);
  }
  void close() {
    const Result<void> closed = run(volume->close({}));
    ASSERT_TRUE(closed) << closed.error().message();
    loop.run_until_idle();
    volume.reset();
  }
  /// As a crash of the host, whose disk is lost.
  void lose() {
    volume->abandon();
    static_cast<void>(run(volume->close({})));
    loop.run_until_idle();
    volume.reset();
    disk.files.clear();
  }
  /// From there on with nothing but the bucket and the key.
  void open_elsewhere() {
    disk.files.clear();
    options.size = 0;
    open();
  }
  [[nodiscard]] uint64_t objects() const {
    return static_cast<uint64_t>(std::ranges::count_if(
        bucket->objects, [](const auto& one) { return one.first.contains("/d/"); }));
  }
  /// All of it, in requests of odd lengths.
  void write_all(const ByteVector& image) {
    const uint64_t blocks = volume->blocks();
    for (uint64_t at = 0; at < blocks;) {
      const uint64_t count = std::min<uint64_t>(1 + at % 13, blocks - at);
      const Bytes bytes = Bytes(image).subspan(at * kBlockBytes, count * kBlockBytes);
      const Result<uint64_t> written = run(volume->write(at, bytes));
      ASSERT_TRUE(written) << written.error().message();
      at += count;
    }
  }
  void expect_all(const ByteVector& image) {
    ByteVector out(image.size());
    for (uint64_t at = 0; at < volume->blocks(); at += 100) {
      const uint64_t count = std::min<uint64_t>(100, volume->blocks() - at);
      const MutableBytes part = MutableBytes(out).subspan(at * kBlockBytes, count * kBlockBytes);
      const Result<void> read = run(volume->read(at, part));
      ASSERT_TRUE(read) << read.error().message();
    }
    const auto differ = std::ranges::mismatch(out, image);
    EXPECT_TRUE(out == image) << "from byte " << differ.in1 - out.begin();
  }
  /// The last block ends in zeros.
  [[nodiscard]] static ByteVector image_of(uint64_t size) {
    ByteVector image((size + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
    SeededRng(size).fill(MutableBytes(image).first(size));
    return image;
  }
  void survives_the_loss_of_all_but_the_bucket(uint64_t size, uint64_t objects_min) {
    options.size = size;
    const ByteVector image = image_of(size);
    open();
    write_all(image);
    close();
    EXPECT_GT(objects(), objects_min);
    open_elsewhere();
    EXPECT_EQ(volume->size(), size);
    expect_all(image);
    close();
  }

  struct Opening {
    double milliseconds = 0;
    double cpu_milliseconds = 0;
    uint64_t gets = 0;
  };
  /// Of a volume of so many blocks, each `per_object` of which are an object.
  Opening opening_of(uint64_t blocks, uint64_t per_object, bool stopped) {
    bucket->objects.clear();
    disk.files.clear();
    bucket->bytes = 0;
    options.size = blocks * kBlockBytes;
    options.object_bytes = per_object * kBlockBytes;
    options.codec = {.kind = codec::CodecKind::kIdentity};
    open();
    const ByteVector data(per_object * kBlockBytes, std::byte{7});
    for (uint64_t at = 0; at < blocks; at += per_object) {
      EXPECT_TRUE(run(volume->write(at, data)));
    }
    EXPECT_TRUE(run(volume->publish_all()));
    EXPECT_EQ(volume->state().objects, blocks / per_object);
    if (stopped) {
      close();
    } else {
      lose();
      options.takeover = true;
    }
    store.be_far(true);
    const Nanos begun = loop.now();
    const uint64_t gets = store.fetches();
    const std::clock_t cpu = std::clock();
    open_elsewhere();
    Opening opening;
    opening.cpu_milliseconds = static_cast<double>(std::clock() - cpu) * 1e3 / CLOCKS_PER_SEC;
    opening.milliseconds = static_cast<double>((loop.now() - begun).count()) / 1e6;
    opening.gets = store.fetches() - gets;
    store.be_far(false);
    options.takeover = false;
    EXPECT_EQ(volume->state().objects, blocks / per_object);
    close();
    return opening;
  }

  SimLoop loop{{.seed = 1}};
  std::shared_ptr<objects::MemoryContainer> bucket = std::make_shared<objects::MemoryContainer>();
  FarStore store{bucket};
  MemoryDisk disk;
  MemoryFolder folder{disk};
  SeededRng rng{9};
  std::array<std::byte, 32> key{};
  VolumeOptions options;
  std::unique_ptr<Volume> volume;
};

TEST_F(VolumeSizes, ThatAreNoMultipleOfAnythingAreServedFromMoreThanAThousandObjects) {
  survives_the_loss_of_all_but_the_bucket(1400 * (64U << 10) + 53 * 512, 1000);
}

// A byte short is served as one of whole logical blocks: objstore_sizes.py.
TEST_F(VolumeSizes, OneSectorShortOfAnObjectAreServed) {
  survives_the_loss_of_all_but_the_bucket(1300 * (64U << 10) - 512, 1000);
}

TEST_F(VolumeSizes, OneSectorMoreThanAnObjectAreServed) {
  survives_the_loss_of_all_but_the_bucket((64U << 10) + 512, 0);
}

TEST_F(VolumeSizes, OfOneSectorAreServed) {
  survives_the_loss_of_all_but_the_bucket(512, 0);
}

// At 100 MB/s and default settings, from the first byte to the last publication.
// TODO(soon): 24 are wanted; half of these are the head's, one for each object.
TEST_F(VolumeSizes, AGibibyteWrittenInOrderTakesFewPuts) {
  const char* const wanted = std::getenv("USBD_SPEED");  // MiB/s
  const uint64_t speed = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 100;
  constexpr uint64_t kGibibyte = uint64_t{1} << 30;
  // A volume of 4 GiB or more has a journal of this size.
  options = {.name = "vol", .size = 4 * kGibibyte, .journal_bytes = kGibibyte};
  open();
  store.be_far(true);
  const uint64_t before = store.puts();
  const Nanos begun = loop.now();
  const Nanos pause(static_cast<int64_t>(1'000'000'000 / speed));
  ByteVector data(1U << 20);
  for (uint64_t at = 0; at < kGibibyte; at += data.size()) {
    rng.fill(data);
    ASSERT_TRUE(run(volume->write(at / kBlockBytes, data)));
    loop.run_for(pause);
  }
  loop.run_for(Nanos(15'000'000'000));  // the last batch closes by its age
  EXPECT_EQ(volume->state().unpublished_bytes, 0U);
  const uint64_t puts = store.puts() - before;
  GTEST_LOG_(INFO) << puts << " PUT requests for one GiB in "
                   << (loop.now() - begun).count() / 1'000'000'000 - 15
                   << " s; all by kind: " << testing::PrintToString(store.puts_of());
  EXPECT_LE(puts, 36U);
  store.be_far(false);
  close();
}

TEST_F(VolumeSizes, ManyObjectsOpenInTwiceTheTimeOfAHundred) {
  const char* const wanted = std::getenv("USBD_OBJECTS");
  const uint64_t many = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 10'000;
  ASSERT_EQ(many % 100, 0U);
  for (const bool stopped : {true, false}) {
    const Opening few = opening_of(many, many / 100, stopped);
    const Opening lots = opening_of(many, 1, stopped);
    for (const auto& [objects, one] : {std::pair(uint64_t{100}, few), std::pair(many, lots)}) {
      GTEST_LOG_(INFO) << fmt::format(
          "{}: opening {} objects: {:.0f} ms, {} GETs; {:.1f} ms of the processor",
          stopped ? "stopped" : "killed", objects, one.milliseconds, one.gets,
          one.cpu_milliseconds);
    }
    if (stopped) {
      EXPECT_LE(lots.milliseconds, 2 * few.milliseconds);
    }
  }
}

}  // namespace
}  // namespace usbd::objstore
