// SPDX-License-Identifier: Apache-2.0
//
// JournalStory: the fixture of the journal's tests. A journal on a FaultDisk and a SimLoop, and the
// words in which its stories are told. Names are those of what happens to a real one: it is killed,
// the power goes, bits rot.

#pragma once

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "async/fault_file.h"
#include "async/sim_loop.h"
#include "journal/journal.h"
#include "journal/testing.h"

namespace usbd::journal::testing {

class JournalStory : public ::testing::Test {
 public:
  ~JournalStory() override {
    if (journal_) kill();
  }

 protected:
  static constexpr uint64_t kRingBlocks = 40;
  static constexpr uint32_t kPayloadMax = 4;

  explicit JournalStory(uint64_t seed = 1)
      : disk_({.seed = seed, .size = 0, .block_size = 1}), rng_(seed), loop_({.seed = seed}) {
    options_.payload_blocks_max = kPayloadMax;
  }

  template <typename T>
  T run(Task<T> task) {
    std::optional<T> value = loop_.run(std::move(task));
    EXPECT_TRUE(value.has_value()) << "the story hangs";
    return value ? *std::move(value) : T(Errc::kTimedOut);
  }

  Result<void> format() {
    const std::unique_ptr<BlockFile> file = disk_.open();
    const Identity identity{.volume = {std::byte(1)},
                            .journal = {std::byte(2), std::byte(++made_)}};
    return run(Journal::format(*file, identity, kRingBlocks * kBlock, 0));
  }

  Result<void> open() {
    hold_ = Hold();
    auto file = std::make_unique<HeldFile>(disk_.open(), hold_);
    Result<std::unique_ptr<Journal>> opened = run(Journal::open(std::move(file), rng_, options_));
    if (!opened) return opened.error();
    journal_ = *std::move(opened);
    journal_->on_change([this] { ++changes_; });
    return {};
  }

  Result<Replayed> replay() {
    found_.clear();
    places_.clear();
    return run(journal_->replay([this](const Entry& entry, const Place& place) {
      found_.push_back(entry);
      places_[entry.number] = place;
      next_ = entry.number + 1;
    }));
  }

  Result<void> begin() { return run(journal_->begin(7, next_)); }

  /// Made, opened and begun.
  void start() {
    ASSERT_TRUE(format());
    reopen();
  }
  void reopen() {
    const Result<void> opened = open();
    ASSERT_TRUE(opened) << opened.error().message();
    const Result<Replayed> replayed = replay();
    ASSERT_TRUE(replayed) << replayed.error().message();
    ASSERT_EQ(replayed->damage, "");
    const Result<void> begun = begin();
    ASSERT_TRUE(begun) << begun.error().message();
  }
  /// What is found by who opens it next; that one is killed again.
  Replayed look() {
    const Result<void> opened = open();
    EXPECT_TRUE(opened) << opened.error().message();
    if (!opened) return {};
    const Result<Replayed> replayed = replay();
    EXPECT_TRUE(replayed) << replayed.error().message();
    if (replayed && !replayed->damage.empty()) {
      EXPECT_FALSE(begin()) << "a damaged journal was begun";
    }
    kill();
    return replayed ? *replayed : Replayed();
  }

  /// Appends the next entry. Range: there is room.
  uint64_t append(uint32_t blocks, bool has_payload = true) {
    const Entry entry{
        .number = next_++, .block = 50, .blocks = blocks, .kind = 1, .has_payload = has_payload};
    EXPECT_TRUE(journal_->has_room(has_payload ? blocks : 0));
    const std::vector<std::byte> payload = payload_of(entry.number, has_payload ? blocks : 0);
    places_[entry.number] = journal_->append(entry, payload);
    return entry.number;
  }
  Result<void> sync() { return run(journal_->sync()); }
  /// Each in a record of its own, on stable storage.
  void append_synced(unsigned entries, uint32_t blocks = 1) {
    for (unsigned i = 0; i < entries; ++i) {
      append(blocks);
      ASSERT_TRUE(sync());
    }
  }
  /// Appends until there is no room; how many.
  uint64_t fill(uint32_t blocks) {
    uint64_t count = 0;
    for (; journal_->has_room(blocks); ++count) {
      append(blocks);
      EXPECT_TRUE(sync());
    }
    return count;
  }

  bool reads(uint64_t number, uint32_t blocks) {
    std::vector<std::byte> bytes(blocks * kBlock);
    const Journal::Held held = journal_->hold(places_.at(number));
    const Result<void> read = run(journal_->read(held, bytes));
    return read && bytes == payload_of(number, blocks);
  }

  Result<void> close() {
    const Result<void> closed = run(journal_->close());
    journal_.reset();
    places_.clear();
    return closed;
  }
  /// Its calls reach nothing any more; what it wrote stays in the page cache.
  void kill() {
    hold_.dead = true;
    EXPECT_TRUE(close() || true);
  }
  void cut_power_losing_all() {
    disk_.crash_losing_all();
    kill();
  }

  void settle() { loop_.run_until_idle(); }

  /// Bytes of the disk, as anybody could change them.
  std::vector<std::byte> bytes_at(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length);
    const std::unique_ptr<BlockFile> file = disk_.open();
    EXPECT_TRUE(run(file->read(offset, bytes)));
    return bytes;
  }
  void overwrite(uint64_t offset, Bytes bytes) {
    const std::unique_ptr<BlockFile> file = disk_.open();
    EXPECT_TRUE(run(file->write(offset, bytes, {.fua = true})));
  }
  void rot(uint64_t offset) {
    std::vector<std::byte> byte = bytes_at(offset, 1);
    byte[0] ^= std::byte(0x10);
    overwrite(offset, byte);
  }
  /// Where block `block` of the ring is in the file.
  static uint64_t ring(uint64_t block) { return kRingStart + block * kBlock; }
  Result<Superblock> superblock(unsigned which) {
    return parse_superblock(bytes_at(which * kBlock, kBlock));
  }
  unsigned newer_superblock() {
    return superblock(0)->generation > superblock(1)->generation ? 0 : 1;
  }

  usbd::testing::FaultDisk disk_;
  SeededRng rng_;
  SimLoop loop_;
  Hold hold_;
  Options options_;
  std::unique_ptr<Journal> journal_;
  std::map<uint64_t, Place> places_;
  std::vector<Entry> found_;
  uint64_t next_ = 1;
  unsigned changes_ = 0;
  /// Journals made; no two have one name.
  unsigned char made_ = 0;
};

}  // namespace usbd::journal::testing
