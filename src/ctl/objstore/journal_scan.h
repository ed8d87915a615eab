// SPDX-License-Identifier: Apache-2.0
//
// What stood in a journal behind the place where its replay ended: the headers of records that are
// still whole say which blocks of the volume their changes were for (docs/formats/journal.md).

#pragma once

#include <cstdint>

#include "async/block_file.h"
#include "devices/objstore/volume_image.h"
#include "journal/format.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::ctl {

struct ChangesBehind {
  /// Which they changed.
  objstore::BlockSet blocks;
  /// None is missing between the last one that can be replayed and the last one that was found.
  bool complete = false;
};

/// The changes numbered higher than `number`.
/// Lifetime: `file` until the task has finished. Errors: kIo: it cannot be read.
Task<Result<ChangesBehind>> find_changes_behind(BlockFile& file, journal::Superblock superblock,
                                                uint64_t number);

}  // namespace usbd::ctl
