// SPDX-License-Identifier: Apache-2.0
//
// Negotiation: the handshake of one connection, fixed newstyle, as a state machine without any I/O.
// It is fed what the client sent and appends what the server answers; who owns the socket moves the
// bytes (server.cc; the tests and the fuzzer do the same without one).
//
// Invariants:
// - What it keeps is bounded: one option's data at a time; what it appends in one call is the
//   answer to one option. An option that is larger than the limit is skipped, not stored.
// - Nothing that was agreed for one export holds for another: a metadata context is kept only if
//   structured replies were agreed and the export entered is the one it was set for.
// - Every malformed option is refused with the error the specification has for it, and the next one
//   is served; the connection is closed only where it says so, or to end a flood.
//
// TLS and extended headers will be two more options here; until then they are refused like unknown
// ones. TLS must then forget all that was agreed before it.
// Ref: NBD protocol, "Fixed newstyle negotiation" and "Option types".

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "frontends/nbd/protocol.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::nbd {

/// What clients are told of an export. Units: bytes.
struct ExportDescription {
  /// Range: as is_valid_text(), at most kStringMax bytes.
  std::string name;
  /// For people; may be empty. Range: as `name`.
  std::string description;
  uint64_t size = 0;
  /// kTransmit* bits, without kTransmitDf, which depends on the connection.
  uint16_t transmission_flags = kTransmitHasFlags;
  /// The smallest unit of offsets and lengths. Range: a power of two, at most kMinimumBlockMax.
  uint32_t block_size_min = 1;
  /// Range: a power of two, at least 512 and block_size_min.
  uint32_t block_size_preferred = 4096;
  /// The largest payload of a read or write. Range: at least block_size_preferred.
  uint32_t payload_max = kPayloadMax;
};

/// The exports that a client may choose from.
/// Threads: any; what it lists does not change while connections exist, but for sizes.
class ExportDirectory {
 public:
  virtual ~ExportDirectory() = default;
  [[nodiscard]] virtual size_t count() const = 0;
  /// Range: index < count().
  [[nodiscard]] virtual ExportDescription describe(size_t index) const = 0;
  /// The export of that name; for the empty name the default one, if there is one.
  [[nodiscard]] virtual std::optional<size_t> find(std::string_view name) const = 0;
};

/// What one client may ask of the handshake.
struct NegotiationLimits {
  /// Data of one option; longer ones are skipped and answered NBD_REP_ERR_TOO_BIG.
  uint32_t option_bytes_max = limits::kOptionBytesMax;
  /// All that the client sends before transmission; announcing more closes the connection.
  uint64_t total_bytes_max = limits::kNegotiationBytesMax;
  uint32_t options_max = limits::kOptionsMax;
  uint32_t queries_max = limits::kQueriesMax;
  uint32_t info_requests_max = limits::kInfoRequestsMax;
};

/// The identifier of base:allocation in block-status replies; the only context there is.
inline constexpr uint32_t kBaseAllocationId = 1;

/// What both sides have agreed when transmission begins.
struct Agreement {
  /// Which of the directory's exports.
  size_t export_index = 0;
  /// As the client was told them.
  uint16_t transmission_flags = 0;
  bool structured_replies = false;
  /// Whether the client may ask for block status, under kBaseAllocationId.
  bool base_allocation = false;
};

class Negotiation {
 public:
  using Output = std::vector<std::byte>;

  enum class Next : uint8_t {
    kInput,         ///< Send the output, then feed more.
    kTransmission,  ///< Send the output; what was not consumed is the first requests.
    kClose,         ///< Send the output, then close the connection; close_reason() says why.
  };
  struct Step {
    size_t consumed = 0;
    Next next = Next::kInput;
  };

  /// Lifetime: `exports` outlives the negotiation.
  explicit Negotiation(const ExportDirectory& exports, NegotiationLimits limits = {});

  /// Appends what the server says first. Called once, before feed().
  void greet(Output& output) const;

  /// Takes bytes of `input` up to the end of the first option it completes, and appends the answer
  /// to that option. What was not consumed is given again with the next call. Range: not after
  /// another Next than kInput was returned; asserted.
  [[nodiscard]] Step feed(Bytes input, Output& output);

  /// Range: only after Next::kTransmission.
  [[nodiscard]] const Agreement& agreement() const { return agreement_; }
  /// For the log; empty if the client closed as the protocol says.
  /// Range: only after Next::kClose.
  [[nodiscard]] const std::string& close_reason() const { return close_reason_; }

 private:
  enum class State : uint8_t { kClientFlags, kOptionHeader, kOptionData, kOptionSkipped };

  void expect(State state, size_t length);
  void close(std::string reason);
  void on_unit(Output& output);
  void on_client_flags();
  void on_option_header(Output& output);
  void on_option(Output& output);
  void on_export_name(Output& output);
  void enter_transmission(size_t export_index);

  [[nodiscard]] Result<void> answer(Output& output);
  [[nodiscard]] Result<void> list_exports(Output& output) const;
  [[nodiscard]] Result<void> agree_structured_replies();
  [[nodiscard]] Result<void> describe_export(Output& output);
  [[nodiscard]] Result<void> list_meta_contexts(Output& output) const;
  [[nodiscard]] Result<void> set_meta_contexts(Output& output);

  [[nodiscard]] uint16_t flags_of(const ExportDescription& description) const;
  void reply(Output& output, OptionReply type, Bytes first = {}, Bytes second = {},
             Bytes third = {}) const;

  const ExportDirectory& exports_;
  const NegotiationLimits limits_;

  State state_ = State::kClientFlags;
  Next next_ = Next::kInput;
  /// Bytes that the present unit still lacks, and those of it that have come.
  size_t missing_ = sizeof(ClientFlags);
  std::vector<std::byte> unit_;

  Option option_{};
  uint64_t total_bytes_ = 0;
  uint32_t options_ = 0;

  bool fixed_newstyle_ = false;
  bool no_zeroes_ = false;
  bool structured_replies_ = false;
  /// The export whose base:allocation was selected.
  std::optional<size_t> allocation_of_;
  /// The export that NBD_OPT_GO has just described.
  size_t described_export_ = 0;

  Agreement agreement_;
  std::string close_reason_;
};

}  // namespace usbd::nbd
