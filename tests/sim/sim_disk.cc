// SPDX-License-Identifier: Apache-2.0
//
// A file is two images, what readers find and what no crash takes, and the writes between them.

#include "sim/sim_disk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace usbd::sim {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kSector = 512;
/// A host does not keep more writes of a file back, even if nobody syncs them.
constexpr size_t kUnsyncedMax = 512;

Error dead() {
  return Error(Errc::kIo, "this process is dead");
}

void store(std::vector<std::byte>& image, uint64_t offset, Bytes data) {
  if (data.empty()) return;  // nothing of a failed write landed
  if (image.size() < offset + data.size()) image.resize(offset + data.size());
  std::memcpy(image.data() + offset, data.data(), data.size());
}

}  // namespace

/// An open file of one process.
class SimFile final : public BlockFile {
 public:
  SimFile(SimDisk& disk, uint64_t life, std::string name, SimDisk::FileRef file, uint32_t unit)
      : disk_(disk), life_(life), name_(std::move(name)), file_(std::move(file)), unit_(unit) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] uint32_t block_size() const override { return unit_; }
  [[nodiscard]] Result<uint64_t> size() const override { return file_->present.size(); }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    USBD_CO_TRY_VOID(co_await begin(DiskOp::kRead, offset, data.size()));
    if (offset + data.size() > file_->present.size()) {
      co_return Error(Errc::kIo, name_ + " ends before that");
    }
    std::memcpy(data.data(), file_->present.data() + offset, data.size());
    const std::optional<SimDisk::Misread>& wrong = disk_.misread_;
    if (wrong && wrong->file == name_ && wrong->offset - offset < data.size()) {
      data[wrong->offset - offset] ^= wrong->mask;
    }
    co_return end(DiskOp::kRead, offset, data.size());
  }

  /// Every other block is in memory.
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override {
    if (is_dead() || offset / kBlock % 2 != 0) return std::nullopt;
    if (offset + data.size() > file_->present.size()) return std::nullopt;
    std::memcpy(data.data(), file_->present.data() + offset, data.size());
    return Result<void>();
  }

  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    check(offset, data.size());
    disk_.tell(event(DiskOp::kWrite, offset, data.size(), false), life_);
    if (is_dead()) co_return dead();
    std::optional<Error> fault = disk_.meet(DiskOp::kWrite, offset);
    if (!fault && offset + data.size() > file_->present.size() &&
        disk_.used() + data.size() > disk_.options_.space) {
      fault = Error(Errc::kNoSpace, name_);
    }
    // A write that fails may have landed in part.
    const size_t lands =
        fault ? disk_.rng_.below(data.size() / kSector + 1) * kSector : data.size();
    SimDisk::Write& write = file_->writes.emplace_back();
    write.id = disk_.next_id_++;
    write.offset = offset;
    write.data.assign(data.begin(), data.begin() + static_cast<ptrdiff_t>(lands));
    const uint64_t id = write.id;
    ++file_->writing;
    const Nanos before = disk_.latency();
    co_await disk_.loop_.sleep_for(before);
    if (is_dead()) {
      finish_dead(id);
      co_return dead();
    }
    SimDisk::Write* landing = find(id);
    if (landing != nullptr) disk_.land(*file_, *landing);
    const Nanos after = disk_.latency();
    co_await disk_.loop_.sleep_for(after);
    --file_->writing;
    if (is_dead()) co_return dead();
    SimDisk::Write* done = find(id);
    if (done != nullptr) done->answered = true;
    if (file_->writes.size() > kUnsyncedMax) settle(answered(), false);
    if (fault) co_return *fault;
    if (flags.fua) USBD_CO_TRY_VOID(co_await datasync());
    co_return end(DiskOp::kWrite, offset, data.size());
  }

  Task<Result<void>> datasync() override {
    disk_.tell(event(DiskOp::kSync, 0, 0, false), life_);
    if (is_dead()) co_return dead();
    const std::vector<uint64_t> covered = answered();
    const uint64_t size = file_->present.size();
    const std::optional<Error> fault = disk_.meet(DiskOp::kSync, 0);
    const Nanos wait = disk_.latency();
    co_await disk_.loop_.sleep_for(wait);
    if (is_dead()) co_return dead();
    if (file_->durable.size() < size) file_->durable.resize(size);
    settle(covered, fault.has_value());
    if (fault) co_return *fault;
    co_return end(DiskOp::kSync, 0, 0);
  }

  Task<Result<void>> allocate(ByteRange range) override {
    check(range.offset, range.length);
    USBD_CO_TRY_VOID(co_await begin(DiskOp::kAllocate, range.offset, range.length));
    const uint64_t size = std::max<uint64_t>(file_->present.size(), range.end());
    if (disk_.used() + size - file_->present.size() > disk_.options_.space) {
      co_return Error(Errc::kNoSpace, name_);
    }
    file_->present.resize(size);
    co_return end(DiskOp::kAllocate, range.offset, range.length);
  }

  Task<Result<void>> punch(ByteRange range) override { return zero(range); }
  Task<Result<void>> zero(ByteRange range) override {
    const std::vector<std::byte> zeros(range.length);
    co_return co_await write(range.offset, zeros, WriteFlags{});
  }
  Task<Result<void>> truncate(uint64_t size) override {
    USBD_CO_TRY_VOID(co_await begin(DiskOp::kAllocate, size, 0));
    file_->present.resize(size);
    file_->durable.resize(size);
    for (SimDisk::Write& write : file_->writes) {
      if (write.offset + write.data.size() <= size) continue;
      write.data.resize(write.offset < size ? size - write.offset : 0);
    }
    co_return end(DiskOp::kAllocate, size, 0);
  }
  Task<Result<uint64_t>> next_data(uint64_t offset) override { co_return offset; }
  Task<Result<uint64_t>> next_hole(uint64_t /*offset*/) override {
    co_return file_->present.size();
  }

  Task<Result<void>> close() override {
    if (!is_dead() && file_->open_by == life_) file_->open_by = 0;
    co_return Result<void>();
  }

 private:
  [[nodiscard]] bool is_dead() const { return disk_.is_dead(life_); }
  [[nodiscard]] DiskEvent event(DiskOp op, uint64_t offset, uint64_t length, bool ended) const {
    return {.op = op, .file = name_, .offset = offset, .length = length, .ended = ended};
  }
  void check(uint64_t offset, uint64_t length) const {
    USBD_ASSERT((offset | length) % unit_ == 0);
  }

  Task<Result<void>> begin(DiskOp op, uint64_t offset, uint64_t length) {
    disk_.tell(event(op, offset, length, false), life_);
    if (is_dead()) co_return dead();
    const std::optional<Error> fault = disk_.meet(op, offset);
    const Nanos wait = disk_.latency();
    co_await disk_.loop_.sleep_for(wait);
    if (is_dead()) co_return dead();
    if (fault) co_return *fault;
    co_return Result<void>();
  }
  Result<void> end(DiskOp op, uint64_t offset, uint64_t length) {
    disk_.tell(event(op, offset, length, true), life_);
    if (is_dead()) return dead();
    return {};
  }

  [[nodiscard]] std::vector<uint64_t> answered() const {
    std::vector<uint64_t> ids;
    for (const SimDisk::Write& write : file_->writes) {
      if (write.answered) ids.push_back(write.id);
    }
    return ids;
  }
  /// Makes these writes durable; if the disk `fails`, only some of them.
  void settle(const std::vector<uint64_t>& ids, bool fails) {
    const auto is_covered = [&ids](const SimDisk::Write& write) {
      return std::ranges::binary_search(ids, write.id);
    };
    std::vector<const SimDisk::Write*> order;
    for (const SimDisk::Write& write : file_->writes) {
      if (is_covered(write)) order.push_back(&write);
    }
    std::ranges::sort(order, {}, &SimDisk::Write::landed);
    for (const SimDisk::Write* write : order) {
      // After a failed sync nobody tries again what did not make it.
      if (!fails || disk_.rng_.one_in(2)) store(file_->durable, write->offset, write->data);
    }
    file_->writes.remove_if(is_covered);
  }

  SimDisk::Write* find(uint64_t id) {
    const auto found = std::ranges::find(file_->writes, id, &SimDisk::Write::id);
    return found == file_->writes.end() ? nullptr : &*found;
  }
  /// What was under way when the process was killed.
  void finish_dead(uint64_t id) {
    if (find(id) == nullptr) {  // the power went with it
      --file_->writing;
      return;
    }
    disk_.loop_.spawn(disk_.land_late(file_, id));
  }

  SimDisk& disk_;
  const uint64_t life_;
  const std::string name_;
  const SimDisk::FileRef file_;
  const uint32_t unit_;
};

/// The folder as one process sees it.
class SimFolder final : public Folder {
 public:
  SimFolder(SimDisk& disk, uint64_t life) : disk_(disk), life_(life) {}

  [[nodiscard]] std::string name() const override { return "sim"; }

  Task<Result<std::unique_ptr<BlockFile>>> open(std::string name, OpenHow how) override {
    USBD_CO_TRY_VOID(co_await begin(DiskOp::kOpen, name));
    const Nanos deadline = disk_.loop_.now() + how.lock_wait;
    while (true) {
      const auto found = disk_.files_.find(name);
      if (found == disk_.files_.end()) {
        if (how.create == CreatePolicy::kNever) co_return Error(Errc::kNotFound, name);
        auto made = std::make_shared<SimDisk::File>();
        made->present.resize(how.new_size);
        made->durable.resize(how.new_size);
        disk_.files_[name] = made;
        continue;
      }
      if (how.create == CreatePolicy::kOnly && found->second->open_by == 0 &&
          !found->second->present.empty() && found->second->present.size() != how.new_size) {
        co_return Error(Errc::kExists, name);
      }
      SimDisk::File& file = *found->second;
      const bool held = file.open_by != 0 && !disk_.is_dead(file.open_by);
      if (!held && file.writing == 0) {
        file.open_by = life_;
        USBD_CO_TRY_VOID(end(DiskOp::kOpen, name));
        co_return std::unique_ptr<BlockFile>(
            std::make_unique<SimFile>(disk_, life_, name, found->second, how.direct ? kBlock : 1));
      }
      if (disk_.loop_.now() >= deadline) co_return Error(Errc::kBusy, name);
      co_await disk_.loop_.sleep_for(limits::kFileLockRetryEvery);
      if (disk_.is_dead(life_)) co_return dead();
    }
  }

  Task<Result<void>> rename(std::string from, std::string to) override {
    USBD_CO_TRY_VOID(co_await begin(DiskOp::kRename, from));
    const auto found = disk_.files_.find(from);
    if (found == disk_.files_.end()) co_return Error(Errc::kNotFound, from);
    disk_.files_[to] = found->second;
    disk_.files_.erase(from);
    co_return end(DiskOp::kRename, from);
  }

  Task<Result<void>> remove(std::string name) override {
    USBD_CO_TRY_VOID(co_await begin(DiskOp::kRemove, name));
    disk_.files_.erase(name);
    co_return end(DiskOp::kRemove, name);
  }

  Task<Result<std::vector<std::string>>> list() override {
    co_await disk_.loop_.schedule();
    if (disk_.is_dead(life_)) co_return dead();
    co_return disk_.files();
  }

 private:
  Task<Result<void>> begin(DiskOp op, const std::string& name) {
    disk_.tell({.op = op, .file = name, .ended = false}, life_);
    if (disk_.is_dead(life_)) co_return dead();
    const std::optional<Error> fault = disk_.meet(op, 0);
    const Nanos wait = disk_.latency();
    co_await disk_.loop_.sleep_for(wait);
    // A change of names may have been made when the process died, or not.
    if (disk_.is_dead(life_)) co_return dead();
    if (fault) co_return *fault;
    co_return Result<void>();
  }
  Result<void> end(DiskOp op, const std::string& name) {
    disk_.tell({.op = op, .file = name, .ended = true}, life_);
    if (disk_.is_dead(life_)) return dead();
    return {};
  }

  SimDisk& disk_;
  const uint64_t life_;
};

SimDisk::SimDisk(SimLoop& loop, Options options)
    : loop_(loop), options_(options), rng_(options.seed) {}

SimDisk::~SimDisk() = default;

std::unique_ptr<Folder> SimDisk::attach() {
  return std::make_unique<SimFolder>(*this, ++lives_);
}

void SimDisk::tell(const DiskEvent& event, uint64_t life) {
  if (!is_dead(life)) event_(event);
}

std::optional<Error> SimDisk::meet(DiskOp op, uint64_t offset) {
  for (DiskFault& fault : faults_) {
    if (fault.op != op || fault.count == 0) continue;
    if (offset < fault.first || offset >= fault.end) continue;
    if (fault.after > 0) {
      --fault.after;
      continue;
    }
    --fault.count;
    ++faults_met_;
    return Error(fault.error, "injected");
  }
  return std::nullopt;
}

Nanos SimDisk::latency() {
  return Nanos(
      static_cast<int64_t>(rng_.between(static_cast<uint64_t>(options_.latency_min.count()),
                                        static_cast<uint64_t>(options_.latency_max.count()))));
}

uint64_t SimDisk::used() const {
  uint64_t bytes = 0;
  for (const auto& [name, file] : files_) bytes += file->present.size();
  return bytes;
}

void SimDisk::land(File& file, Write& write) {
  store(file.present, write.offset, write.data);
  write.landed = ++landings_;
}

Task<void> SimDisk::land_late(FileRef file, uint64_t id) {
  const Nanos wait(
      static_cast<int64_t>(rng_.below(static_cast<uint64_t>(options_.late_max.count()))));
  co_await loop_.sleep_for(wait);
  --file->writing;
  const auto write = std::ranges::find(file->writes, id, &Write::id);
  if (write == file->writes.end()) co_return;  // the power has gone since
  const bool chance = options_.of_the_dead == OfTheDead::kChance;
  if (chance ? rng_.one_in(2) : options_.of_the_dead == OfTheDead::kLands) {
    land(*file, *write);
    write->answered = true;
  } else {
    file->writes.erase(write);
  }
}

void SimDisk::kill_process() {
  first_living_ = lives_ + 1;
  // What has landed is the system's now, and the next sync of anybody covers it.
  for (auto& [name, file] : files_) {
    for (Write& write : file->writes) write.answered = write.landed != 0;
  }
}

/// What the power leaves of a file.
void SimDisk::settle(File& file) {
  std::vector<Write*> order;
  for (Write& write : file.writes) order.push_back(&write);
  std::ranges::sort(order, {}, [](const Write* write) {
    return write->landed == 0 ? UINT64_MAX : write->landed;
  });
  if (rng_.one_in(2)) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng_.below(i)]);
  }
  // Sometimes all of one kind: rare combinations are where bugs are.
  const uint64_t mood = rng_.below(6);
  for (const Write* write : order) {
    for (size_t at = 0; at < write->data.size(); at += kBlock) {
      const Bytes block =
          Bytes(write->data).subspan(at, std::min<size_t>(kBlock, write->data.size() - at));
      const uint64_t fate = mood < 2 ? mood : rng_.below(3);  // 0: dropped, 1: kept, 2: torn
      if (fate == 1) store(file.durable, write->offset + at, block);
      for (size_t sector = 0; fate == 2 && sector < block.size(); sector += kSector) {
        const size_t length = std::min<size_t>(kSector, block.size() - sector);
        if (rng_.one_in(2)) {
          store(file.durable, write->offset + at + sector, block.subspan(sector, length));
        }
      }
    }
  }
  file.writes.clear();
  file.present = file.durable;
}

void SimDisk::cut_power() {
  first_living_ = lives_ + 1;
  for (auto& [name, file] : files_) settle(*file);
}

size_t SimDisk::unsynced() const {
  size_t count = 0;
  for (const auto& [name, file] : files_) count += file->writes.size();
  return count;
}

void SimDisk::cut_power(PowerCut cut) {
  first_living_ = lives_ + 1;
  unsigned i = 0;
  for (auto& [name, file] : files_) {
    for (const Write& write : file->writes) {
      USBD_ASSERT(i < 64);
      const Bytes data(write.data);
      if (i == cut.torn) {
        for (size_t at = 0; at < data.size(); at += 2 * kSector) {
          store(file->durable, write.offset + at,
                data.subspan(at, std::min(kSector, data.size() - at)));
        }
      } else if ((cut.kept >> i & 1U) != 0) {
        store(file->durable, write.offset, data);
      }
      ++i;
    }
    file->writes.clear();
    file->present = file->durable;
  }
}

bool SimDisk::rot(const std::string& file, uint64_t offset, Bytes bytes) {
  const auto found = files_.find(file);
  if (found == files_.end() || offset + bytes.size() > found->second->present.size()) return false;
  change(*found->second, offset, bytes.size(), [&](size_t i, std::byte) { return bytes[i]; });
  return true;
}

bool SimDisk::flip_bit(const std::string& file, uint64_t offset, unsigned bit) {
  const auto found = files_.find(file);
  if (found == files_.end() || offset >= found->second->present.size()) return false;
  const auto mask = static_cast<std::byte>(1U << (bit % 8));
  change(*found->second, offset, 1, [mask](size_t, std::byte old) { return old ^ mask; });
  return true;
}

void SimDisk::change(File& file, uint64_t offset, size_t size,
                     const std::function<std::byte(size_t, std::byte)>& changed) {
  const auto apply = [&](std::vector<std::byte>& bytes, uint64_t start) {
    for (size_t i = 0; i < size; ++i) {
      const uint64_t at = offset + i;
      if (at < start || at - start >= bytes.size()) continue;
      bytes[at - start] = changed(i, bytes[at - start]);
    }
  };
  apply(file.present, 0);
  apply(file.durable, 0);
  // Else a power cut that lets one of them through would heal it.
  for (Write& write : file.writes) apply(write.data, write.offset);
}

std::vector<std::string> SimDisk::files() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) names.push_back(name);
  return names;
}

const std::vector<std::byte>* SimDisk::contents(const std::string& file) const {
  const auto found = files_.find(file);
  return found == files_.end() ? nullptr : &found->second->present;
}

std::map<std::string, std::vector<std::byte>> SimDisk::snapshot() const {
  std::map<std::string, std::vector<std::byte>> images;
  for (const auto& [name, file] : files_) images[name] = file->present;
  return images;
}

void SimDisk::restore(const std::map<std::string, std::vector<std::byte>>& files) {
  files_.clear();
  for (const auto& [name, image] : files) {
    auto file = std::make_shared<File>();
    file->present = file->durable = image;
    files_[name] = file;
  }
}

}  // namespace usbd::sim
