// SPDX-License-Identifier: Apache-2.0
//
// NbdSubject: an export of an NBD server, over one or more connections of the tests' own client.

#pragma once

#include <memory>
#include <vector>

#include "base/random.h"
#include "client/nbd_client.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

class NbdSubject final : public Subject {
 public:
  struct Options {
    NbdAddress address;
    /// Fewer if the server does not promise NBD_FLAG_CAN_MULTI_CONN. Range: at least 1.
    unsigned connections = 4;
    bool structured_replies = true;
    /// Ask only for what the protocol demands, not for what usbd promises beyond it.
    bool lenient = false;
    /// Whether trimmed ranges must read as zeros.
    bool trim_zeroes = true;
    /// Chooses flags that do not change what is right (DF, REQ_ONE).
    uint64_t seed = 1;
  };

  /// Errors: the server cannot be reached, or does not keep to the protocol.
  static Result<std::unique_ptr<NbdSubject>> open(Options options);

  [[nodiscard]] SubjectTraits traits() const override;
  Result<void> execute(std::span<Operation> batch) override;
  Result<void> reopen() override;

 private:
  explicit NbdSubject(Options options)
      : options_(std::move(options)), rng_(SeededRng(options_.seed).fork(3)) {}
  Result<void> connect_all();
  NbdCall call_for(Operation& op);

  const Options options_;
  SeededRng rng_;
  std::vector<std::unique_ptr<NbdClient>> clients_;
};

}  // namespace usbd::testing
