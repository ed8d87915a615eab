// SPDX-License-Identifier: Apache-2.0
//
// LocalStore: the store kind `local`, a container in a directory. LocalContainer does the work, on
// threads of a pool; here are the calls of a loop, their limits, the waits for the lock, and the
// names that one walk of the directory has found for the pages that follow.
//
// A call whose time is over, or that is no longer wanted, ends between two pieces of its work. It
// waits for the system call that is being made: a disk that does not answer keeps it.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/worker_pool.h"
#include "base/random.h"
#include "objects/local/local_container.h"
#include "objects/object_store.h"

namespace usbd::objects {

class LocalStore final : public ObjectStore {
 public:
  struct Options {
    /// An existing directory; the container is a folder in it.
    std::string path;
    std::string container;
    /// Makes the container if it is not there.
    bool create = true;
    /// Puts and removals are kReadOnly, and nothing is made.
    bool read_only = false;
    /// For tests. Lifetime: outlives the store. Null: the system's.
    FileCalls* calls = nullptr;
  };

  /// Opens the container, and removes what dead processes left unfinished.
  /// Lifetime: `pool` and `rng` outlive the store. Two stores of a container draw different
  /// numbers. Errors:   as LocalContainer::open.
  static Task<Result<std::unique_ptr<LocalStore>>> open(Options options, WorkerPool& pool,
                                                        Rng& rng);

  [[nodiscard]] std::string name() const override { return container_->label(); }
  [[nodiscard]] Abilities abilities() const override {
    return {.put_if_absent = true, .put_if_matches = true};
  }

  /// Errors: also kReadOnly; kIo: damaged, not usbd's, or the container has been removed.
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override;
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override;
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override;
  /// A page that follows one of at most limits::kListWindowAge ago may not know newer objects.
  /// Tags are empty, sizes those of the files: a damaged object is listed too.
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override;
  Task<Result<void>> remove(std::string name, CallLimits limits) override;
  Task<void> close() override;

 private:
  /// Names for the pages that follow.
  struct Window {
    std::string prefix;
    /// The last name of the page before.
    std::string after;
    Nanos made{0};
    /// From `next` on they have not been in a page.
    NameRun run;
    size_t next = 0;
  };

  LocalStore(std::unique_ptr<LocalContainer> container, bool read_only, WorkerPool& pool, Rng& rng)
      : container_(std::move(container)), read_only_(read_only), pool_(pool), rng_(rng) {}

  /// Why a call cannot begin.
  [[nodiscard]] Result<void> may_begin(const std::string& name, bool changes,
                                       const CallClock& clock) const;
  /// Makes `change`, which returns false while others hold the lock, until it has been made.
  /// Lifetime: `change` until the task has finished.
  template <typename Change>
  Task<Result<void>> when_unlocked(Change& change, const std::string& name, const CallClock& clock);
  Task<Result<Window>> window_for(const std::string& prefix, const std::string& after,
                                  const CallClock& clock);

  const std::unique_ptr<LocalContainer> container_;
  const bool read_only_;
  WorkerPool& pool_;
  Rng& rng_;
  std::optional<Window> window_;
};

}  // namespace usbd::objects
