// SPDX-License-Identifier: Apache-2.0
//
// SimStore: an object store at the far end of a bad network. Calls take time; they fail before they
// had an effect, or after it, or the effect comes later, when nobody expects it any more, even
// after the process that asked is dead. Bodies are cut short. Conditions are compared when the
// effect comes, atomically, as real stores do.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "async/sim_loop.h"
#include "base/random.h"
#include "objects/object_store.h"
#include "sim/sim_disk.h"

namespace usbd::sim {

enum class StoreOp : uint8_t { kPut, kGet, kHead, kList, kRemove };

/// One boundary of one call: its beginning, or its end before the caller hears of it.
struct StoreEvent {
  StoreOp op = StoreOp::kPut;
  std::string name;
  bool ended = false;
};

/// Threads: its loop's. Lifetime: outlives all that was attached.
class SimStore {
 public:
  struct Options {
    uint64_t seed = 1;
    Nanos latency_min{2'000'000};
    Nanos latency_max{60'000'000};
    /// The longest that an effect comes after its call has failed.
    Nanos late_max{8'000'000'000};
    /// One call in so many fails; 0: none.
    uint64_t fault_one_in = 0;
    /// One call in so many takes up to `slow_max`; 0: none.
    uint64_t slow_one_in = 0;
    Nanos slow_max{180'000'000'000};
    OfTheDead of_the_dead = OfTheDead::kChance;
  };

  SimStore(SimLoop& loop, Options options) : loop_(loop), options_(options), rng_(options.seed) {}

  /// The store as one process sees it, until that dies.
  std::unique_ptr<objects::ObjectStore> attach();
  /// The process that attached last is dead; what it asked for may still take effect.
  void kill(uint64_t life) { dead_[life] = true; }
  [[nodiscard]] uint64_t last_life() const { return lives_; }

  /// Called at each event of a process that lives; it may kill.
  void on_event(std::function<void(uint64_t life, const StoreEvent&)> function) {
    event_ = std::move(function);
  }
  /// Until then every call fails.
  void be_away_until(Nanos time) { away_until_ = time; }
  [[nodiscard]] Nanos away_until() const { return away_until_; }

  struct Object {
    std::vector<std::byte> data;
    std::string tag;
  };
  [[nodiscard]] std::map<std::string, Object, std::less<>>& objects() { return objects_; }
  [[nodiscard]] uint64_t faults() const { return faults_; }
  /// Those after which the caller does not know whether its change has, or will, come about.
  [[nodiscard]] uint64_t ambiguous() const { return ambiguous_; }
  /// Calls that took long.
  [[nodiscard]] uint64_t slow_calls() const { return slow_calls_; }

 private:
  friend class SimStoreClient;

  /// What will become of a call.
  enum class Fate : uint8_t { kWell, kFailsBefore, kFailsAfter, kComesLate };

  [[nodiscard]] bool is_dead(uint64_t life) const {
    const auto found = dead_.find(life);
    return found != dead_.end() && found->second;
  }
  void tell(uint64_t life, StoreEvent event) {
    if (!is_dead(life)) event_(life, event);
  }
  [[nodiscard]] Nanos between(Nanos from, Nanos to);
  /// How long one way of a call takes.
  [[nodiscard]] Nanos draw_latency();
  Fate draw_fate(bool changes);
  [[nodiscard]] Error draw_error(const std::string& name);
  Result<std::string> put_now(const std::string& name, std::vector<std::byte> data,
                              const objects::Condition& condition);
  Task<void> put_late(std::string name, std::vector<std::byte> data, objects::Condition condition);
  Task<void> remove_late(std::string name);

  SimLoop& loop_;
  const Options options_;
  SeededRng rng_;
  std::map<std::string, Object, std::less<>> objects_;
  std::map<uint64_t, bool> dead_;
  std::function<void(uint64_t, const StoreEvent&)> event_ = [](uint64_t, const StoreEvent&) {};
  Nanos away_until_{0};
  uint64_t lives_ = 0;
  uint64_t tags_ = 0;
  uint64_t faults_ = 0;
  uint64_t ambiguous_ = 0;
  uint64_t slow_calls_ = 0;
};

}  // namespace usbd::sim
