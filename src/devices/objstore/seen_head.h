// SPDX-License-Identifier: Apache-2.0
//
// SeenHead: which head of a volume this host has seen in the store last, in a small local file. A
// store that later serves an older state, consistent in itself, is known by it: after somebody has
// put a bucket back, or a store has lost what it had confirmed. The file's bytes are in
// docs/formats/head.md.
//
// It is on stable storage before anybody is answered who relies on that head, and before the
// journal forgets what is published by it. Two places are written in turn, so that one that is torn
// leaves the other.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "async/folder.h"
#include "devices/objstore/head.h"

namespace usbd::objstore {

inline constexpr const char* kSeenHeadFile = "head.seen";

/// Threads: one loop's.
class SeenHead {
 public:
  /// Opens the record in `folder`, or makes an empty one. What is in it and is not whole counts as
  /// empty, and is said in the log.
  /// Errors: kBusy: another process has it; kIo, kNoSpace.
  static Task<Result<std::unique_ptr<SeenHead>>> open(Folder& folder);

  /// Whether `found` can be what the store has. Errors: kIo: it is older than what was seen, or of
  /// another course of events; the context is a sentence.
  [[nodiscard]] Result<void> check(const Head& found) const;

  /// Notes `head`. Range: one at a time. Durable: on success, unless `synced` is false.
  /// Errors: kIo, kNoSpace; what was noted before counts then, and the next call tries again.
  Task<Result<void>> remember(Head head, bool synced = true);

  Task<Result<void>> close() { co_return co_await file_->close(); }

 private:
  struct Record {
    VolumeId volume{};
    uint64_t generation = 0;
    uint64_t version = 0;
    uint64_t epoch = 0;
    uint64_t published_number = 0;
    Nonce nonce{};
  };

  explicit SeenHead(std::unique_ptr<BlockFile> file) : file_(std::move(file)) {}
  Task<Result<void>> load();
  static std::optional<Record> parse(Bytes block);

  const std::unique_ptr<BlockFile> file_;
  /// Empty: nothing has been noted.
  std::optional<Record> last_;
};

}  // namespace usbd::objstore
