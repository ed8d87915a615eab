// SPDX-License-Identifier: Apache-2.0
//
// What a host remembers of the store, and what it makes of a store that shows something else: by
// itself, and with a volume in front of a bucket that somebody puts back.

#include "devices/objstore/seen_head.h"

#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using ::testing::HasSubstr;

Head head_of(uint64_t version, unsigned nonce = 1) {
  Head head;
  head.volume.fill(std::byte(7));
  head.version = version;
  head.epoch = 3;
  head.published_number = 10 * version;
  head.nonce.fill(static_cast<std::byte>(nonce));
  return head;
}

class SeenHeadFile : public ::testing::Test {
 protected:
  template <typename T>
  T run(Task<T> task) {
    std::optional<T> value = loop_.run(std::move(task));
    EXPECT_TRUE(value.has_value()) << "it hangs";
    return value ? *std::move(value) : T(Errc::kTimedOut);
  }
  void open() {
    Result<std::unique_ptr<SeenHead>> opened = run(SeenHead::open(folder_));
    ASSERT_TRUE(opened) << opened.error().message();
    seen_ = *std::move(opened);
  }
  void remember(uint64_t version) { ASSERT_TRUE(run(seen_->remember(head_of(version)))); }
  std::string refusal_of(const Head& head) {
    const Result<void> checked = seen_->check(head);
    return checked ? "" : checked.error().message();
  }

  SimLoop loop_{SimLoop::Options{.seed = 1}};
  MemoryDisk disk_;
  MemoryFolder folder_{disk_};
  std::unique_ptr<SeenHead> seen_;
};

TEST_F(SeenHeadFile, HasNothingToSayAboutAVolumeThatIsNew) {
  open();
  EXPECT_EQ(refusal_of(head_of(1)), "");
}

TEST_F(SeenHeadFile, RefusesAnOlderHeadAndTakesThatOneAndLaterOnes) {
  open();
  for (const uint64_t version : {1U, 2U, 5U}) remember(version);
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT(refusal_of(head_of(4)),
                HasSubstr("the store shows an older state than this host has seen: version 4 of "
                          "its head (epoch 3, up to write 40), and here it was version 5"));
    EXPECT_EQ(refusal_of(head_of(5)), "");
    EXPECT_EQ(refusal_of(head_of(6, 2)), "");
    open();
  }
}

TEST_F(SeenHeadFile, RefusesAnotherHeadOfTheSameVersion) {
  open();
  remember(5);
  EXPECT_THAT(refusal_of(head_of(5, 2)), HasSubstr("another version 5"));
}

TEST_F(SeenHeadFile, SaysNothingAboutAnotherVolume) {
  open();
  remember(5);
  Head other = head_of(1);
  other.volume.fill(std::byte(8));
  EXPECT_EQ(refusal_of(other), "");
}

TEST_F(SeenHeadFile, GoesBackToTheOtherPlaceIfOneIsTorn) {
  open();
  for (const uint64_t version : {1U, 2U, 3U}) remember(version);
  disk_.bytes(kSeenHeadFile)[4096 + 20] ^=
      std::byte(1);  // the third was written where the first was
  open();
  EXPECT_EQ(refusal_of(head_of(2)), "");
  EXPECT_NE(refusal_of(head_of(1)), "");
  disk_.bytes(kSeenHeadFile)[20] ^= std::byte(1);
  open();
  EXPECT_EQ(refusal_of(head_of(1)), "") << "nothing is left";
  remember(7);
  open();
  EXPECT_NE(refusal_of(head_of(6)), "");
}

TEST_F(SeenHeadFile, IsMadeWholeIfItWasCutShort) {
  open();
  disk_.bytes(kSeenHeadFile).resize(100);
  open();
  EXPECT_EQ(disk_.bytes(kSeenHeadFile).size(), 8192U);
  remember(2);
  open();
  EXPECT_NE(refusal_of(head_of(1)), "");
}

TEST_F(SeenHeadFile, KeepsWhatItHadIfTheDiskFails) {
  open();
  remember(2);
  disk_.syncs_fail = "head";
  EXPECT_FALSE(run(seen_->remember(head_of(3))));
  disk_.writes_fail = "head";
  EXPECT_FALSE(run(seen_->remember(head_of(4))));
  EXPECT_NE(refusal_of(head_of(1)), "");
  disk_.reads_fail = "head";
  EXPECT_FALSE(run(SeenHead::open(folder_)));
  disk_.reads_fail = "-";
  disk_.opens_fail = "head";
  EXPECT_FALSE(run(SeenHead::open(folder_)));
}

// --- a volume, and a bucket that is put back

class RolledBack : public ::testing::Test {
 protected:
  using Objects = std::map<std::string, std::vector<std::byte>>;

  VolumeOptions options() {
    VolumeOptions options;
    options.name = "vol";
    options.size = 64 * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.flush_mode = mode_;
    return options;
  }
  Task<Result<void>> live(MemoryFolder& folder, objects::ObjectStore& store, uint64_t writes) {
    const VolumeParts parts{.store = store, .folder = &folder, .rng = rng_};
    USBD_CO_TRY(const std::unique_ptr<Volume> volume, co_await Volume::open(parts, options()));
    const std::vector<std::byte> block(kBlockBytes, std::byte(1));
    for (; writes > 0; --writes) USBD_CO_TRY_VOID(co_await volume->write(writes, block));
    co_return co_await volume->close(std::stop_token());
  }
  Result<void> live(MemoryFolder& folder, uint64_t writes = 1) {
    objects::MemoryStore store(bucket_);
    std::optional<Result<void>> lived = loop_.run(live(folder, store, writes));
    EXPECT_TRUE(lived) << "it hangs";
    return lived ? *lived : Error(Errc::kTimedOut);
  }
  Task<Result<Objects>> copy(objects::ObjectStore& store) {
    Objects copied;
    USBD_CO_TRY(const objects::ListPage page, co_await store.list("", "", 1000, {}));
    for (const objects::ObjectInfo& one : page.objects) {
      const objects::Part whole = objects::Part::whole(1 << 20);
      USBD_CO_TRY(objects::Fetched fetched, co_await store.get(one.name, whole, {}));
      copied[one.name] = std::move(fetched.data);
    }
    co_return copied;
  }
  Objects copy() {
    objects::MemoryStore store(bucket_);
    return **loop_.run(copy(store));
  }
  Task<Result<void>> put_back(objects::ObjectStore& store, Objects objects) {
    for (const auto& [name, data] : objects) {
      USBD_CO_TRY_VOID(co_await store.put(name, data, objects::Condition(), {}));
    }
    co_return Result<void>();
  }
  void put_back(const Objects& objects) {
    objects::MemoryStore store(bucket_);
    const std::optional<Result<void>> done = loop_.run(put_back(store, objects));
    ASSERT_TRUE(done && *done);
  }

  /// A bucket is put back under a volume that runs.
  Task<Result<void>> tell(objects::ObjectStore& bucket) {
    mode_ = FlushMode::kRemote;
    VolumeOptions remote = options();
    remote.timeout = Nanos(2'000'000'000);
    const VolumeParts parts{.store = bucket, .folder = &here_folder_, .rng = rng_};
    USBD_CO_TRY(const std::unique_ptr<Volume> volume, co_await Volume::open(parts, remote));
    const std::vector<std::byte> block(kBlockBytes, std::byte(1));
    USBD_CO_TRY(const Objects before, co_await copy(bucket));
    USBD_CO_TRY_VOID(co_await volume->write(1, block));
    USBD_CO_TRY_VOID(co_await volume->flush());
    USBD_CO_TRY(const Objects after, co_await copy(bucket));
    USBD_CO_TRY_VOID(co_await put_back(bucket, before));
    USBD_CO_TRY_VOID(co_await volume->write(2, block));
    const Result<void> flushed = co_await volume->flush();
    EXPECT_FALSE(flushed) << "on top of an older state";
    EXPECT_TRUE(flushed || flushed.error().is(Errc::kTimedOut));
    USBD_CO_TRY_VOID(co_await put_back(bucket, after));
    co_await Loop::current().sleep_for(Nanos(10'000'000'000));
    EXPECT_TRUE(co_await volume->flush());
    co_return co_await volume->close(std::stop_token());
  }

  SimLoop loop_{SimLoop::Options{.seed = 1}};
  SeededRng rng_{1};
  FlushMode mode_ = FlushMode::kLocal;
  std::shared_ptr<objects::MemoryContainer> bucket_ = std::make_shared<objects::MemoryContainer>();
  MemoryDisk here_;
  MemoryFolder here_folder_{here_};
};

TEST_F(RolledBack, IsNoticedWhereTheNewerStateWasSeenAndNowhereElse) {
  for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
    mode_ = mode;
    bucket_ = std::make_shared<objects::MemoryContainer>();
    here_.files.clear();
    ASSERT_TRUE(live(here_folder_));
    const Objects before = copy();
    ASSERT_TRUE(live(here_folder_));
    const Objects after = copy();
    put_back(before);
    const auto files = here_.files;
    const Result<void> refused = live(here_folder_);
    ASSERT_FALSE(refused);
    EXPECT_TRUE(refused.error().is(Errc::kIo));
    EXPECT_THAT(refused.error().message(), HasSubstr("older state than this host has seen"));
    EXPECT_THAT(refused.error().message(), HasSubstr("move head.seen away"));
    EXPECT_EQ(here_.files, files) << "nothing was put aside";
    EXPECT_EQ(copy().at("vol/head"), before.at("vol/head"));
    put_back(after);
    EXPECT_TRUE(live(here_folder_));
    // Another host has not seen the newer state, and goes on with the older one.
    put_back(before);
    MemoryDisk fresh;
    MemoryFolder fresh_folder(fresh);
    EXPECT_TRUE(live(fresh_folder));
  }
}

TEST_F(RolledBack, IsGivenInToByMovingTheRecordAway) {
  ASSERT_TRUE(live(here_folder_));
  const Objects before = copy();
  ASSERT_TRUE(live(here_folder_));
  put_back(before);
  ASSERT_FALSE(live(here_folder_));
  here_.files.erase(kSeenHeadFile);
  EXPECT_TRUE(live(here_folder_));
}

TEST_F(RolledBack, IsNoHeadAtAll) {
  ASSERT_TRUE(live(here_folder_));
  bucket_ = std::make_shared<objects::MemoryContainer>();
  for (auto it = here_.files.begin(); it != here_.files.end();) {
    it = it->first.starts_with("journal-") ? here_.files.erase(it) : std::next(it);
  }
  const Result<void> refused = live(here_folder_);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(Errc::kExists));
  EXPECT_THAT(refused.error().message(), HasSubstr("head.seen"));
}

TEST_F(RolledBack, StopsWhatRunsUntilTheStoreShowsItAgain) {
  objects::MemoryStore store(bucket_);
  const std::optional<Result<void>> told = loop_.run(tell(store));
  ASSERT_TRUE(told);
  EXPECT_TRUE(*told) << told->error().message();
}

TEST_F(RolledBack, IsNotNoticedIfTheLocalDiskFailsAndThatIsNoReasonToStop) {
  ASSERT_TRUE(live(here_folder_));
  here_.writes_fail = "head";
  EXPECT_TRUE(live(here_folder_)) << "what is published is in the store";
}

}  // namespace
}  // namespace usbd::objstore
