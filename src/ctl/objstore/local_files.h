// SPDX-License-Identifier: Apache-2.0
//
// What an objstore volume has on this host: its journal, journals that were put aside, its cache.
// Read, never changed. What a daemon is writing to is not proven, only counted.

#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "async/worker_pool.h"
#include "base/random.h"
#include "devices/objstore/head.h"
#include "devices/objstore/volume_image.h"
#include "journal/journal.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::ctl {

struct LocalJournal {
  std::string file = {};
  /// current: the head's, which the next start replays; aside: kept by hand or by a start, never
  /// replayed; stale: will be put aside by the next start; unfinished: was being made; unreadable.
  std::string state = {};
  /// Who holds it, such as "process 12"; empty: nobody.
  std::string held_by = {};
  uint64_t file_bytes = 0;
  std::optional<uint64_t> written_seconds_ago = {};
  /// What it says of itself; none: it was not read.
  std::optional<journal::Superblock> superblock = {};
  bool belongs_to_head = false;
  std::optional<uint64_t> used_bytes = {};
  /// Changes that the head does not have; none: it was not read, or is sealed and there is no key.
  std::optional<uint64_t> unpublished_changes = {};
  std::optional<uint64_t> unpublished_bytes = {};
  /// What is wrong with it; empty: nothing that was looked for.
  std::string damage = {};
  /// After damage: the blocks that the unpublished changes were for which it costs, and whether
  /// these are all.
  objstore::BlockSet lost = {};
  bool lost_is_complete = false;
};

struct LocalFile {
  std::string file;
  uint64_t bytes = 0;
};

struct LocalFiles {
  std::vector<LocalJournal> journals;
  std::vector<LocalFile> others;
};

struct LocalLook {
  std::filesystem::path directory;
  objstore::Head head;
  /// Empty: the volume is not encrypted, or there is no key.
  Bytes key = {};
  /// Whether there is what it takes to read a journal's records.
  bool can_unseal = false;
  /// Open every block that is not published, too.
  bool thorough = false;
};

/// Errors: the directory cannot be read; none if it does not exist: then nothing is found.
Task<Result<LocalFiles>> look_at_local_files(LocalLook look, WorkerPool& pool, Rng& rng);

}  // namespace usbd::ctl
