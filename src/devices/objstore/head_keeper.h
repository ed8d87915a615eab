// SPDX-License-Identifier: Apache-2.0
//
// HeadKeeper: a process's hold on a volume's head. It changes the head by compare-and-swap, finds
// out what became of a change whose answer was lost, and notices when the volume has another owner.
//
// Who owns the volume is what the head says: the epoch, and the writer that took it. A head of our
// epoch and writer is ours, whichever attempt made it. Every attempt differs in its nonce, so that
// a tag never comes back and an attempt that takes effect late, after another, is refused by the
// store.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "base/random.h"
#include "devices/objstore/head.h"
#include "objects/object_store.h"

namespace usbd::objstore {

/// Threads: one loop's.
class HeadKeeper {
 public:
  struct Found {
    Head head;
    std::string tag;
  };
  struct Place {
    std::string name;
    /// The volume's key; empty if it has none. Lifetime: outlives the keeper.
    Bytes key;
    /// Whether the store compares before it swaps. Without that nothing is noticed.
    bool fencing = true;
  };

  /// Lifetime: all outlive the keeper.
  HeadKeeper(objects::ObjectStore& store, Rng& rng, Place place)
      : store_(store), rng_(rng), place_(std::move(place)) {}

  /// Reads the head. Errors: kNotFound: there is no volume; those of decode() and of the store.
  Task<Result<Found>> read(objects::CallLimits limits);

  /// Makes the head of a new volume. Errors: kExists: there is one by now; the store's.
  Task<Result<void>> create(Head head, objects::CallLimits limits);

  /// Takes the volume: `next` differs from `found` as the caller likes; version, epoch, writer and
  /// nonce are filled in here.
  /// Durable: on success. Cancel: by limits.stop.
  /// Errors:  kBusy: another process was faster; the store's, if they do not pass.
  Task<Result<void>> take(const Found& found, Head next, objects::CallLimits limits);

  /// Changes the head: `change` is applied to what it is now. Tries until it is known to have
  /// worked, or not to be possible; also while the store shows an older head than it has confirmed.
  /// Range:   after take(); one at a time. Cancel: by `stop`: kCanceled, and it may have happened.
  /// Errors:  kPerm: the volume has another owner: fenced() from now on; errors of the store that
  /// do
  ///          not pass.
  Task<Result<void>> change(std::function<void(Head&)> change, std::stop_token stop);

  /// Keeps what was found without taking anything: head() shows it.
  void look(const Found& found) { head_ = found.head; }

  /// Asks the store who owns the volume. Errors: as change().
  Task<Result<void>> check(objects::CallLimits limits);

  [[nodiscard]] const Head& head() const { return head_; }
  [[nodiscard]] bool fenced() const { return fenced_; }
  /// When the head was last seen to be ours, on the loop's clock.
  [[nodiscard]] Nanos last_contact() const { return last_contact_; }

 private:
  /// What became of an attempt, as far as it is known.
  enum class Outcome : uint8_t { kDone, kNotDone };

  Task<Result<std::string>> put(const Head& head, std::string tag, objects::CallLimits limits);
  Task<Result<Outcome>> find_out(const Head& attempted, objects::CallLimits limits);
  void accept(Head head, std::string tag);
  Error lost(const Head& found);
  /// The store shows a head that was replaced: nothing is built on it.
  Error set_back(const Head& found);
  void draw(Nonce& nonce);
  Task<Result<void>> pause(unsigned attempt, std::stop_token stop);

  objects::ObjectStore& store_;
  Rng& rng_;
  const Place place_;
  Head head_;
  std::string tag_;
  Nanos last_contact_{0};
  bool owned_ = false;
  bool fenced_ = false;
  bool set_back_ = false;
};

}  // namespace usbd::objstore
