// SPDX-License-Identifier: Apache-2.0
//
// The journal is read here with the parsers of its format, but not with its replay, which is what
// is under test.

#include "sim/volume_damage.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "journal/format.h"

namespace usbd::sim {
namespace {

using journal::kBlock;
using journal::kHeaderBlocksMax;
using journal::kRingStart;

constexpr size_t kSector = 512;

std::optional<std::string> journal_on(const SimDisk& disk) {
  for (const std::string& name : disk.files()) {
    if (name.starts_with("journal-") && name.ends_with(".ring")) return name;
  }
  return std::nullopt;
}

std::optional<journal::Superblock> newest_superblock(Bytes image) {
  std::optional<journal::Superblock> newest;
  for (size_t i = 0; i < 2; ++i) {
    const Result<journal::Superblock> one =
        journal::parse_superblock(image.subspan(i * kBlock, kBlock));
    if (one && (!newest || one->generation > newest->generation)) newest = *one;
  }
  return newest;
}

/// A place in the image, often in a superblock, else in the ring. Units: bytes.
uint64_t draw_place(uint64_t size, uint64_t unit, Rng& rng) {
  const uint64_t end = rng.one_in(8) ? kRingStart : size;
  return rng.below(end / unit) * unit;
}

}  // namespace

const char* name_of(DiskTrouble trouble) {
  constexpr std::array<const char*, kDiskTroubles> kNames = {"ring write", "superblock write",
                                                             "sync", "read"};
  return kNames[static_cast<size_t>(trouble)];
}

DiskTrouble inject_trouble(SimDisk& disk, Rng& rng) {
  const auto trouble = static_cast<DiskTrouble>(rng.below(kDiskTroubles));
  DiskFault fault{.after = rng.below(30),
                  .count = rng.one_in(2) ? UINT64_MAX : rng.between(1, 2),
                  .error = rng.one_in(2) ? Errc::kIo : Errc::kNoSpace};
  switch (trouble) {
    case DiskTrouble::kRingWrite:
      fault.first = kRingStart;
      break;
    case DiskTrouble::kSuperblockWrite:
      fault.end = kRingStart;
      fault.after = rng.below(4);
      break;
    case DiskTrouble::kSync:
      fault.op = DiskOp::kSync;
      break;
    case DiskTrouble::kRead:
      fault.op = DiskOp::kRead;
      fault.error = Errc::kIo;
      break;
  }
  disk.inject(fault);
  return trouble;
}

const char* name_of(Rot rot) {
  constexpr std::array<const char*, kRots> kNames = {"flipped bit", "lost sector",
                                                     "another's sector"};
  return kNames[static_cast<size_t>(rot)];
}

uint64_t JournalReading::last_number_of(uint64_t record) const {
  uint64_t last = 0;
  for (const auto& [jseq, number] : numbers) {
    if (jseq <= record) last = std::max(last, number);
  }
  return last;
}

JournalReading read_journal(const std::vector<std::byte>& image) {
  JournalReading reading;
  const std::optional<journal::Superblock> superblock = newest_superblock(image);
  if (!superblock) return reading;
  reading.durable_record = superblock->durable_jseq;
  const Bytes ring = Bytes(image).subspan(kRingStart, superblock->ring_bytes);
  // Of two records of one place in the order, the one of the later session counts.
  std::map<uint64_t, uint64_t> sessions;
  for (uint64_t at = 0; at < ring.size(); at += kBlock) {
    const uint64_t length = std::min<uint64_t>(kHeaderBlocksMax * kBlock, ring.size() - at);
    const Result<journal::Header> header =
        journal::parse_header(ring.subspan(at, length), superblock->journal);
    if (!header) continue;
    reading.durable_record = std::max(reading.durable_record, header->durable_jseq);
    uint64_t& session = sessions[header->jseq];
    if (header->entries.empty() || header->session < session) continue;
    session = header->session;
    reading.numbers[header->jseq] = header->entries.back().number;
  }
  return reading;
}

std::optional<Rotten> rot_journal(SimDisk& disk, Rng& rng) {
  const std::optional<std::string> name = journal_on(disk);
  if (!name) return std::nullopt;
  const std::vector<std::byte> before = *disk.contents(*name);
  if (before.size() < kRingStart + kBlock) return std::nullopt;
  const auto kind = static_cast<Rot>(rng.below(kRots));
  if (kind == Rot::kFlippedBit) {
    disk.flip_bit(*name, draw_place(before.size(), 1, rng), static_cast<unsigned>(rng.below(8)));
  } else {
    std::array<std::byte, kSector> sector{};
    const uint64_t from = rng.below(before.size() / kSector) * kSector;
    if (kind == Rot::kAnothersSector)
      std::ranges::copy_n(before.begin() + static_cast<ptrdiff_t>(from), kSector, sector.begin());
    disk.rot(*name, draw_place(before.size(), kSector, rng), sector);
  }
  const uint64_t durable = read_journal(*disk.contents(*name)).durable_record;
  return Rotten{.kind = kind, .known_durable = read_journal(before).last_number_of(durable)};
}

std::optional<Rotten> misread_journal(SimDisk& disk, Rng& rng) {
  const std::optional<std::string> name = journal_on(disk);
  if (!name) return std::nullopt;
  const std::vector<std::byte> before = *disk.contents(*name);
  if (before.size() < kRingStart + kBlock) return std::nullopt;
  const uint64_t at = draw_place(before.size(), 1, rng);
  const auto bit = static_cast<unsigned>(rng.below(8));
  disk.misread(*name, at, bit);
  std::vector<std::byte> seen = before;
  seen[at] ^= std::byte(1U << bit);
  const uint64_t durable = read_journal(seen).durable_record;
  return Rotten{.known_durable = read_journal(before).last_number_of(durable)};
}

const char* name_of(Mutation mutation) {
  constexpr std::array<const char*, kMutations> kNames = {"flipped bit", "truncated",
                                                          "another's bytes", "lost range", "gone"};
  return kNames[static_cast<size_t>(mutation)];
}

Mutation Mutator::change(std::vector<std::byte>& data) {
  const auto kind = static_cast<Mutation>(rng_.below(kMutations));
  const uint64_t at = rng_.below(data.size());
  if (kind == Mutation::kFlippedBit) data[at] ^= static_cast<std::byte>(1U << rng_.below(8));
  if (kind == Mutation::kTruncated) data.resize(at);
  if (kind == Mutation::kAnothersBytes) {
    auto& objects = store_.objects();
    data =
        std::next(objects.begin(), static_cast<ptrdiff_t>(rng_.below(objects.size())))->second.data;
  }
  if (kind == Mutation::kLostRange) {
    const uint64_t length = std::min<uint64_t>(data.size() - at, rng_.between(1, 4096));
    std::ranges::fill_n(data.begin() + static_cast<ptrdiff_t>(at), static_cast<ptrdiff_t>(length),
                        std::byte(0));
  }
  return kind;
}

std::optional<Mutation> Mutator::mutate() {
  auto& objects = store_.objects();
  if (objects.empty()) return std::nullopt;
  const auto found = std::next(objects.begin(), static_cast<ptrdiff_t>(rng_.below(objects.size())));
  if (found->second.data.empty() || originals_.contains(found->first)) return std::nullopt;
  const std::string name = found->first;
  const SimStore::Object original = found->second;
  const Mutation kind = change(found->second.data);
  // Without a head there is no volume, and a new one would be made.
  if (kind == Mutation::kGone && name.ends_with("/head")) return std::nullopt;
  SimStore::Object changed = found->second;
  if (kind == Mutation::kGone) {
    changed = {};
    objects.erase(found);
  }
  if (changed.data == original.data) return std::nullopt;
  originals_[name] = {.object = original, .changed = std::move(changed)};
  return kind;
}

void Mutator::restore() {
  auto& objects = store_.objects();
  for (auto& [name, original] : originals_) {
    const auto found = objects.find(name);
    const bool untouched = found == objects.end() ? original.changed.tag.empty()
                                                  : found->second.tag == original.changed.tag;
    if (untouched) objects[name] = std::move(original.object);
  }
  originals_.clear();
}

}  // namespace usbd::sim
