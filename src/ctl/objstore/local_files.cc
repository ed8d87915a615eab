// SPDX-License-Identifier: Apache-2.0
//
// Journals are opened read-only, which locks them against a daemon's start for as long as it takes:
// a start waits a while for that. One that a daemon holds is read all the same, without a lock: the
// log of a moment ends where it was overwritten meanwhile, so the figures are of about now.

#include "ctl/objstore/local_files.h"

#include <chrono>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "async/kernel_folder.h"
#include "base/aligned_buffer.h"
#include "ctl/objstore/journal_scan.h"
#include "devices/objstore/journal_sealer.h"

namespace usbd::ctl {
namespace {

namespace fs = std::filesystem;
using journal::Journal;

bool is_ring(std::string_view name) {
  return name.starts_with("journal-") && name.ends_with(".ring");
}

bool is_aside(std::string_view name) {
  return name.starts_with("journal-") && name.ends_with(".kept");
}

/// "process 12" of a message that says who holds a file.
std::string holder_in(const std::string& message) {
  constexpr std::string_view kBefore = "is in use by ";
  const size_t start = message.find(kBefore);
  if (start == std::string::npos) return "another process";
  const size_t from = start + kBefore.size();
  return message.substr(from, message.find(';', from) - from);
}

std::optional<uint64_t> age_of(const fs::path& path) {
  std::error_code error;
  const fs::file_time_type written = fs::last_write_time(path, error);
  if (error) return std::nullopt;
  const auto age = fs::file_time_type::clock::now() - written;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(age).count();
  return seconds < 0 ? 0 : static_cast<uint64_t>(seconds);
}

struct Unpublished {
  journal::Entry entry;
  journal::Place place;
};

/// Opens the payload of every change, which its reader must be able to do.
Task<void> read_payloads(Journal& journal, const std::vector<Unpublished>& changes,
                         LocalJournal& found) {
  AlignedBuffer memory(journal::kPayloadBlocksMax * journal::kBlock);
  for (const Unpublished& change : changes) {
    if (!change.entry.has_payload) continue;
    const Journal::Held held = journal.hold(change.place);
    const MutableBytes out = memory.bytes().first(change.entry.blocks * journal::kBlock);
    const Result<void> read = co_await journal.read(held, out);
    if (read) continue;
    if (found.damage.empty()) found.damage = read.error().message();
    found.lost.add({change.entry.block, change.entry.blocks});
    found.lost_is_complete = true;
  }
}

/// After a replay that ended too early with change `number`: what it has not come to.
Task<void> find_lost(KernelFolder& folder, uint64_t number, LocalJournal& found) {
  const Folder::OpenHow how{.read_only = true, .lock_wait = Nanos(0)};
  const Result<std::unique_ptr<BlockFile>> file = co_await folder.open(found.file, how);
  if (!file) co_return;
  Result<ChangesBehind> behind = co_await find_changes_behind(**file, *found.superblock, number);
  static_cast<void>(co_await (*file)->close());  // it was only read
  if (!behind) co_return;
  found.lost = std::move(behind->blocks);
  found.lost_is_complete = behind->complete;
}

/// What the records say. Returns the number of the last change. Range: can be unsealed.
Task<uint64_t> replay(Journal& journal, const LocalLook& look, LocalJournal& found) {
  const uint64_t published =
      found.belongs_to_head ? look.head.published_number : journal.superblock().released_number;
  std::vector<Unpublished> changes;
  uint64_t bytes = 0;
  uint64_t expected = published + 1;
  std::string gap;
  Journal::Visitor visitor = [&](const journal::Entry& entry, const journal::Place& place) {
    if (entry.number <= published) return;
    if (entry.number != expected && gap.empty()) {
      gap = fmt::format(
          "it goes on with write {}, but the store ends with write {}: the store "
          "shows an older state than this host has published",
          entry.number, published);
    }
    expected = entry.number + 1;
    if (entry.has_payload) bytes += entry.blocks * journal::kBlock;
    changes.push_back({entry, place});
  };
  const Result<journal::Replayed> replayed = co_await journal.replay(visitor);
  const bool held = !found.held_by.empty();
  if (!replayed) {
    found.damage = replayed.error().message();
    co_return expected - 1;
  }
  // What seems wrong with a journal that is being written to may only be new.
  if (!held) found.damage = replayed->damage.empty() ? gap : replayed->damage;
  found.used_bytes = journal.bytes_used();
  found.unpublished_changes = changes.size();
  found.unpublished_bytes = bytes;
  const bool whole = found.damage.empty();
  if (whole && !held && look.thorough) co_await read_payloads(journal, changes, found);
  co_return expected - 1;
}

Task<void> look_at_journal(KernelFolder& folder, const LocalLook& look, Rng& rng,
                           LocalJournal& found) {
  Folder::OpenHow how{.read_only = true, .lock_wait = Nanos(0)};
  Result<std::unique_ptr<BlockFile>> file = co_await folder.open(found.file, how);
  if (!file && file.error().is(Errc::kBusy)) {
    found.held_by = holder_in(file.error().context());
    how.unlocked = true;
    file = co_await folder.open(found.file, how);
  }
  const bool held = !found.held_by.empty();
  if (!file) {
    found.state = "unreadable";
    found.damage = file.error().message();
    co_return;
  }
  journal::Options options;
  if (!look.key.empty()) options.sealer = objstore::journal_sealers(look.key);
  Result<std::unique_ptr<Journal>> opened =
      co_await Journal::open(*std::move(file), rng, std::move(options));
  if (!opened && held) co_return;  // its superblocks are just being written
  if (!opened) {
    found.state = "unreadable";
    found.damage = opened.error().message();
    co_return;
  }
  Journal& journal = **opened;
  const journal::Superblock& superblock = journal.superblock();
  const objstore::Head& head = look.head;
  const bool current = superblock.epoch == head.epoch || superblock.epoch == head.epoch + 1;
  found.superblock = superblock;
  found.belongs_to_head =
      current && superblock.volume == head.volume && superblock.journal == head.journal;
  if (found.state != "aside") found.state = found.belongs_to_head ? "current" : "stale";
  uint64_t last = 0;
  if (look.can_unseal) last = co_await replay(journal, look, found);
  static_cast<void>(co_await journal.close());  // it was only read
  const bool ended_early = !found.damage.empty() && found.lost.empty();
  if (look.thorough && look.can_unseal && ended_early) co_await find_lost(folder, last, found);
}

}  // namespace

Task<Result<LocalFiles>> look_at_local_files(LocalLook look, WorkerPool& pool, Rng& rng) {
  LocalFiles found;
  std::error_code missing;
  if (!fs::is_directory(look.directory, missing)) co_return found;
  USBD_CO_TRY(const std::unique_ptr<KernelFolder> folder,
              KernelFolder::open_directory(look.directory.string(), pool));
  USBD_CO_TRY(const std::vector<std::string> names, co_await folder->list());
  for (const std::string& name : names) {
    std::error_code error;
    const uintmax_t bytes = fs::file_size(look.directory / name, error);
    const uint64_t size = error ? 0 : bytes;
    if (!name.starts_with("journal-")) {
      found.others.push_back({.file = name, .bytes = size});
      continue;
    }
    LocalJournal one{.file = name, .file_bytes = size};
    one.written_seconds_ago = age_of(look.directory / name);
    one.state = is_aside(name) ? "aside" : is_ring(name) ? "current" : "unfinished";
    if (one.state != "unfinished") co_await look_at_journal(*folder, look, rng, one);
    found.journals.push_back(std::move(one));
  }
  co_return found;
}

}  // namespace usbd::ctl
