// SPDX-License-Identifier: Apache-2.0
//
// check_volume: reads everything that a volume has published, proves every byte of it, and says of
// each thing that is damaged which object it is and which bytes of the volume it costs. Nothing is
// written. It goes on behind damage.
//
// A volume may be open meanwhile. What is read is what its head said at the beginning; an object
// that is gone may have been removed since then, so the head is read again and the image anew,
// before that is called damage.

#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "async/worker_pool.h"
#include "devices/objstore/volume_image.h"
#include "usbd/buffer.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objstore {

/// Something that is damaged.
struct CheckFinding {
  /// The name of the object in the store, or of a local file.
  std::string object = {};
  /// Part of a sentence: what is wrong with it.
  std::string what = {};
  /// What of the volume it costs. Units: bytes. Empty: nothing that can be read.
  std::vector<ByteRange> ranges = {};
  /// Ranges beyond limits::kFindingRangesMax, which are left out.
  uint64_t ranges_omitted = 0;
  /// Bytes in all ranges, those left out as well.
  uint64_t bytes = 0;
  /// Whether it is just these ranges; otherwise some of them may be sound, since what would say so
  /// is lost.
  bool exact = true;
};

/// Says that the finding costs these blocks of a volume of so many bytes.
void add_cost(CheckFinding& finding, const BlockSet& blocks, uint64_t volume_bytes);

struct CheckProgress {
  uint64_t objects = 0;
  uint64_t objects_total = 0;
  uint64_t bytes = 0;
  uint64_t bytes_total = 0;
};

/// What was looked at.
struct CheckTotals {
  /// Version of the head that was checked last.
  uint64_t head_version = 0;
  uint64_t data_objects = 0;
  uint64_t map_pages = 0;
  uint64_t frames = 0;
  /// Fetched of data objects.
  uint64_t bytes = 0;
  uint64_t mapped_bytes = 0;
  /// Images that were read; more than one: objects vanished in between.
  uint64_t rounds = 0;
};

struct CheckOptions {
  /// The head that is checked is head_of_snapshot() of this one; 0: it is the volume's.
  uint64_t snapshot = 0;
  /// Objects of which every frame was proven: not read again, and added to. Null: nobody knows any.
  std::set<ObjectId>* proven = nullptr;
  std::function<void(const CheckFinding&)> found = {};
  /// Empty: nobody wants to know. Called often.
  std::function<void(const CheckProgress&)> progress = {};
};

/// Reads and proves the head. Errors: kNotFound: there is none; those of decode() and of the store.
Task<Result<Head>> read_head(ImagePlace place);

/// Checks the volume whose head is `head`, as far as it is published.
/// Lifetime: all until the task has finished. Threads: a loop's; proves on threads of `pool`.
/// Errors:   what kept it from going on: the store cannot be reached or refuses; kNotFound: the
///           snapshot was deleted meanwhile. Damage is none.
Task<Result<CheckTotals>> check_volume(ImagePlace place, Head head, WorkerPool& pool,
                                       CheckOptions options);

}  // namespace usbd::objstore
