// SPDX-License-Identifier: Apache-2.0
//
// clean_volume: what garbage collection of an objstore volume costs. The production engine in
// simulated time, its store and journal in memory: a volume is written once, then overwritten by
// blocks of 4 KiB at random. Prints one line of JSON: bytes put into the store for each byte
// written (data, moved data, checkpoints), and how much the data objects take for each live byte.
//
// Everything but the volume's size is in the proportions of a volume of `--objects` objects.
//
// Exit status: 0; 1 the volume failed; 2 wrong usage.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "async/sim_loop.h"
#include "base/random.h"
#include "bench/arguments.h"
#include "bench/pattern.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::bench {
namespace {

using objstore::kBlockBytes;
using objstore::Volume;

struct CommandLine {
  std::string pattern = "uniform";
  uint64_t object_size = 2U << 20;
  uint64_t objects = 160;
  uint64_t overwrites = 8;
  double target = 1.40;
  uint64_t seed = 1;
  bool help = false;
};

std::vector<Argument> argument_table(CommandLine& line) {
  return {
      {"pattern", "PATTERN", "uniform; 80-20: of 100 writes 80 go to a fifth of the volume; 95-5",
       into_choice(line.pattern, {"uniform", "80-20", "95-5"})},
      {"object", "SIZE", "of a data object (default 2MiB)", into_size(line.object_size)},
      {"objects", "N", "that hold the volume (default 160)", into_number(line.objects, 8, 65536)},
      {"overwrites", "N", "volumes' worth of writes (default 8)",
       into_number(line.overwrites, 2, 1000)},
      {"seed", "N", "of the offsets (default 1)", into_number(line.seed, 0, ~uint64_t{0})},
      {"help", "", "print this", into(line.help)},
  };
}

/// Bytes that were put, by kind of object.
struct Puts {
  uint64_t data = 0;
  uint64_t moved = 0;
  uint64_t maps = 0;
};

class WatchedStore final : public objects::ObjectStore {
 public:
  WatchedStore(std::shared_ptr<objects::MemoryContainer> bucket, Puts& puts)
      : inner_(std::move(bucket)), puts_(puts) {}

  [[nodiscard]] std::string name() const override { return inner_.name(); }
  [[nodiscard]] objects::Abilities abilities() const override { return inner_.abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, objects::Condition condition,
                                objects::CallLimits limits) override {
    if (name.contains("/d/")) puts_.data += data.size();
    if (name.contains("/g/")) puts_.moved += data.size();
    if (name.contains("/m/")) puts_.maps += data.size();
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
  Puts& puts_;
};

/// One run, in the loop's time.
class Run {
 public:
  Run(const CommandLine& line, SimLoop& loop, const Puts& puts)
      : line_(line),
        loop_(loop),
        puts_(puts),
        rng_(line.seed),
        block_(kBlockBytes),
        // About 100 MB a second into objects of 64 MiB; with smaller ones all times stay as they
        // are, and a volume that is as much smaller gets as much less in them.
        pause_(static_cast<int64_t>(2'600'000 * (uint64_t{64} << 20) / line.object_size)) {}

  Task<Result<void>> all(objstore::VolumeParts parts, objstore::VolumeOptions options) {
    USBD_CO_TRY(const std::unique_ptr<Volume> volume,
                co_await Volume::open(std::move(parts), std::move(options)));
    const Result<void> done = co_await overwrite(*volume);
    const Result<void> closed = co_await volume->close({});
    co_return done ? closed : done;
  }

 private:
  Task<Result<void>> overwrite(Volume& volume) {
    const uint64_t blocks = volume.blocks();
    for (uint64_t block = 0; block < blocks; ++block) {
      USBD_CO_TRY_VOID(co_await write(volume, block));
    }
    Puts half;
    const uint64_t count = line_.overwrites * blocks;
    for (uint64_t i = 0; i < count; ++i) {
      if (i == count / 2) half = puts_;
      USBD_CO_TRY_VOID(co_await write(volume, choose(blocks)));
      if (i >= count / 2 && i % 4096 == 0) look(volume);
    }
    const double written = static_cast<double>(count - count / 2) * kBlockBytes;
    const auto each = [&](uint64_t now, uint64_t then) {
      return static_cast<double>(now - then) / written;
    };
    const objstore::VolumeState state = volume.state();
    fmt::print(
        "{{\"pattern\": \"{}\", \"amplification\": {:.3f}, \"data\": {:.3f}, \"moved\": "
        "{:.3f}, \"maps\": {:.3f}, \"space_mean\": {:.3f}, \"space_most\": {:.3f}, "
        "\"objects_deleted\": {}}}\n",
        line_.pattern,
        each(puts_.data + puts_.moved + puts_.maps, half.data + half.moved + half.maps),
        each(puts_.data, half.data), each(puts_.moved, half.moved), each(puts_.maps, half.maps),
        space_sum_ / static_cast<double>(looks_), space_most_, state.objects_deleted);
    co_return Result<void>();
  }

  uint64_t choose(uint64_t blocks) {
    if (line_.pattern == "uniform") return rng_.below(blocks);
    const bool wide = line_.pattern == "80-20";
    const uint64_t hot = wide ? blocks / 5 : blocks / 20;
    const bool is_hot = rng_.below(100) < (wide ? 80U : 95U);
    return is_hot ? rng_.below(hot) : hot + rng_.below(blocks - hot);
  }

  Task<Result<void>> write(Volume& volume, uint64_t block) {
    fill_pattern(MutableBytes(block_), ++written_, 0);
    USBD_CO_TRY([[maybe_unused]] const uint64_t number, co_await volume.write(block, block_));
    if (written_ % 64 == 0) co_await loop_.sleep_for(pause_);
    co_return Result<void>();
  }

  void look(Volume& volume) {
    const objstore::VolumeState state = volume.state();
    const double space =
        static_cast<double>(state.stored_bytes) / static_cast<double>(state.live_bytes);
    space_sum_ += space;
    space_most_ = std::max(space_most_, space);
    ++looks_;
  }

  const CommandLine& line_;
  SimLoop& loop_;
  const Puts& puts_;
  SeededRng rng_;
  std::vector<std::byte> block_;
  const Nanos pause_;
  uint64_t written_ = 0;
  uint64_t looks_ = 0;
  double space_sum_ = 0;
  double space_most_ = 0;
};

int run(const CommandLine& line) {
  SimLoop loop({.seed = line.seed});
  Puts puts;
  const auto bucket = std::make_shared<objects::MemoryContainer>();
  bucket->bytes_max = 8 * line.object_size * line.objects;
  WatchedStore store(bucket, puts);
  objstore::MemoryDisk disk;
  objstore::MemoryFolder folder(disk);
  SeededRng rng(line.seed + 1);
  objstore::VolumeOptions options;
  options.name = "vol";
  options.size = line.object_size * line.objects;
  options.cipher = crypto::CipherMode::kIdentity;
  options.codec = {.kind = codec::CodecKind::kIdentity};
  options.object_bytes = line.object_size;
  options.journal_bytes = std::max<uint64_t>(8 * line.object_size, 16U << 20);
  // As for objects of 64 MiB.
  options.space.clean.target = line.target;
  options.space.clean.round_bytes = line.object_size / 2;
  options.space.clean.waste_min = line.object_size / 4;
  options.space.clean.small_bytes = line.object_size / 64;
  options.space.checkpoint_data_bytes = 4 * line.object_size;
  const objstore::VolumeParts parts{.store = store, .folder = &folder, .rng = rng};
  Run one(line, loop, puts);
  const std::optional<Result<void>> done = loop.run(one.all(parts, options));
  if (done && *done) return 0;
  fmt::print(stderr, "clean_volume: {}\n", done ? done->error().message() : "it came to a halt");
  return 1;
}

}  // namespace
}  // namespace usbd::bench

int main(int argc, char** argv) {
  namespace bench = usbd::bench;
  bench::CommandLine line;
  const std::vector<bench::Argument> table = bench::argument_table(line);
  const auto parsed =
      bench::parse_arguments(table, std::span(argv + 1, static_cast<size_t>(argc - 1)));
  if (!parsed) {
    fmt::print(stderr, "clean_volume: {}\n", parsed.error().message());
    return 2;
  }
  if (line.help) {
    fmt::print("clean_volume [ARGUMENT...]: what garbage collection costs\n{}",
               bench::describe(table));
    return 0;
  }
  return bench::run(line);
}
