// SPDX-License-Identifier: Apache-2.0
//
// From a closed batch to the bytes of its object, in steps, so that next to the object there is
// never more than a step in memory. What the journal still has in memory is sealed from there, the
// rest is read back from the ring. Compressing and sealing is the workers' part: the volume's loop
// only says what, and serves requests meanwhile.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "devices/objstore/data_object_writer.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {

/// A few changes, and where their data is.
struct Volume::SealStep {
  struct Part {
    Change change;
    /// Of data only.
    std::optional<journal::Journal::Held> held;
    Bytes data;
  };
  std::vector<Part> parts;
  /// What is not in the journal's memory.
  AlignedBuffer read;
};

Task<void> Volume::read_part(journal::Journal::Held& held, uint64_t number, MutableBytes out,
                             std::optional<Error>& failed) {
  const Result<void> read = co_await journal_->read(held, out);
  if (!read && !failed) {
    failed = Error(Errc::kIo, fmt::format("write {}: {}", number, read.error().message()));
  }
}

Task<Result<void>> Volume::load_step(std::span<const Change>& changes, SealStep& step) {
  uint64_t bytes = 0;
  uint64_t missing = 0;
  while (!changes.empty() && bytes < limits::kSealStepBytes &&
         step.parts.size() < limits::kSealStepChanges) {
    const Change& change = changes.front();
    SealStep::Part& part = step.parts.emplace_back(change, std::nullopt, Bytes());
    changes = changes.subspan(1);
    if (change.kind != ExtentKind::kData) continue;
    const uint64_t size = change.blocks.count * kBlockBytes;
    part.held.emplace(journal_->hold(change.place));
    part.data = part.held->in_memory(size);
    if (part.data.empty()) missing += size;
    bytes += size;
  }
  if (missing == 0) co_return Result<void>();
  step.read = AlignedBuffer(missing);
  MutableBytes left = step.read.bytes();
  std::optional<Error> failed;
  for (size_t next = 0; next < step.parts.size() && !failed;) {
    Scope reads;
    for (unsigned i = 0; i < limits::kSealReadsMax && next < step.parts.size(); ++next) {
      SealStep::Part& part = step.parts[next];
      if (!part.held || !part.data.empty()) continue;
      const MutableBytes out = left.first(part.change.blocks.count * kBlockBytes);
      left = left.subspan(out.size());
      part.data = out;
      reads.spawn(read_part(*part.held, part.change.number, out, failed));
      ++i;
    }
    co_await reads.close();
  }
  if (failed) co_return *failed;
  co_return Result<void>();
}

Task<Result<std::vector<std::byte>>> Volume::seal_batch(const Batch& batch, const ObjectId& id) {
  DataObjectWriter::Facts facts{.id = id,
                                .codec = options_.codec,
                                .first_write = batch.first_number(),
                                .last_write = batch.last_number()};
  parts_.rng.fill(facts.salt);
  USBD_CO_TRY(DataObjectWriter writer, DataObjectWriter::create(seal(), facts));
  writer.expect(batch.extents(), batch.data_blocks());
  const std::vector<Change> all = batch.all();
  std::span<const Change> changes(all);
  while (!changes.empty()) {
    SealStep step;
    USBD_CO_TRY_VOID(co_await load_step(changes, step));
    const auto add = [&writer, &step] {
      for (const SealStep::Part& part : step.parts) {
        const BlockRange& blocks = part.change.blocks;
        if (part.held) {
          writer.add_data(blocks.first, part.data);
        } else {
          writer.add_empty(blocks.first, static_cast<uint32_t>(blocks.count), part.change.kind);
        }
      }
      return true;
    };
    co_await aside(add);
    if (stop_.stop_requested()) co_return Error(Errc::kShutdown, options_.name);
  }
  std::vector<std::byte> object;
  const auto finish = [&writer, &object] {
    object = writer.finish();
    return true;
  };
  co_await aside(finish);
  co_return object;
}

}  // namespace usbd::objstore
