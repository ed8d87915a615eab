// SPDX-License-Identifier: Apache-2.0
//
// FaultStore: in front of another store it does what real ones do on a bad day, when a test says so
// or drawn from a seed: calls fail before or after their effect, a put or remove takes effect long
// after its error, answers come late, bodies are cut short unnoticed, tags are wrong.
//
// A late effect is made on the loop by this store; close() waits for those outstanding.

#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/scope.h"
#include "base/random.h"
#include "objects/call_clock.h"
#include "objects/object_store.h"
#include "objects/store_call.h"

namespace usbd::objects::testing {

/// Calls of one kind to which something happens.
struct StoreFault {
  enum class Kind : uint8_t {
    kBefore,  ///< The call fails and has no effect.
    kAfter,   ///< The call fails once it has taken effect.
    kLate,    ///< The call fails now and takes effect after `delay`: put and remove; else kBefore.
    kDelay,   ///< The call begins after `delay`.
    kTruncate,  ///< Contents that are got end in the middle, and nobody says so.
    kWrongTag,  ///< The tag in the answer is not the object's.
  };
  StoreCall call = StoreCall::kPut;
  Kind kind = Kind::kBefore;
  /// How many calls of that kind, from now on, go well before.
  uint64_t after = 0;
  /// How many it happens to then.
  uint64_t count = 1;
  Errc error = Errc::kIo;
  Nanos delay{0};
};

class FaultStore final : public ObjectStore {
 public:
  /// Each happens to one in so many calls; 0: to none.
  struct Chances {
    uint64_t before = 0;
    uint64_t after = 0;
    uint64_t late = 0;
    uint64_t delay = 0;
    uint64_t truncate = 0;
    uint64_t wrong_tag = 0;
  };
  struct Options {
    uint64_t seed = 1;
    Chances chances = {};
    /// Of random delays and late effects.
    Nanos delay_max{1'000'000'000};
  };

  FaultStore(std::unique_ptr<ObjectStore> inner, Options options)
      : inner_(std::move(inner)), options_(options), rng_(options.seed) {}

  void inject(StoreFault fault) { faults_.push_back(fault); }
  /// Forgets every fault that has not been used up.
  void clear_faults() { faults_.clear(); }
  void set_chances(Chances chances) { options_.chances = chances; }

  /// Calls of a kind so far, failed ones too.
  [[nodiscard]] uint64_t calls(StoreCall call) const { return calls_[static_cast<size_t>(call)]; }
  /// Calls to which something happened.
  [[nodiscard]] uint64_t faults() const { return happened_; }
  /// Late effects that are still to come.
  [[nodiscard]] size_t late_effects() const { return late_.running(); }
  /// The store behind, for a look without faults.
  [[nodiscard]] ObjectStore& inner() { return *inner_; }

  [[nodiscard]] std::string name() const override { return inner_->name(); }
  [[nodiscard]] Abilities abilities() const override { return inner_->abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override;
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override;
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override;
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override;
  Task<Result<void>> remove(std::string name, CallLimits limits) override;
  Task<void> close() override;

 private:
  using Kind = StoreFault::Kind;

  /// What happens to this call, if anything.
  std::optional<StoreFault> meet(StoreCall call);
  std::optional<StoreFault> draw(StoreCall call);
  /// Waits out a delay. Errors: the call's time is over, or it is no longer wanted.
  static Task<Result<void>> wait(StoreFault fault, std::string name, const CallLimits& limits);
  Task<void> put_late(std::string name, std::vector<std::byte> data, Condition condition,
                      Nanos delay);
  Task<void> remove_late(std::string name, Nanos delay);

  std::unique_ptr<ObjectStore> inner_;
  Options options_;
  SeededRng rng_;
  std::vector<StoreFault> faults_;
  std::array<uint64_t, kStoreCalls> calls_{};
  uint64_t happened_ = 0;
  Scope late_;
};

}  // namespace usbd::objects::testing
