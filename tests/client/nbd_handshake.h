// SPDX-License-Identifier: Apache-2.0
//
// NbdHandshake: the first phase of an NBD connection, one option at a time, so that tests can also
// send what no sensible client would. negotiate() is what a sensible one sends.
//
// Ref: NBD protocol, "Fixed newstyle negotiation".

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/nbd_socket.h"
#include "client/nbd_wire.h"
#include "usbd/result.h"

namespace usbd::testing {

/// What a server says of an export.
struct NbdExportInfo {
  uint64_t size = 0;
  uint16_t flags = 0;
  std::string name;
  std::string description;
  /// 0: the server did not say.
  uint32_t block_size_min = 0;
  uint32_t block_size_preferred = 0;
  uint32_t block_size_max = 0;

  [[nodiscard]] bool has(uint16_t flag) const { return (flags & flag) != 0; }
};

/// A metadata context that was agreed on.
struct NbdContext {
  uint32_t id = 0;
  std::string name;
};

/// What both sides know when transmission begins.
struct NbdAgreement {
  NbdExportInfo info;
  bool structured_replies = false;
  std::vector<NbdContext> contexts;
};

/// One reply to an option.
struct NbdOptionReply {
  uint32_t type = 0;
  std::vector<std::byte> data;

  [[nodiscard]] bool is_error() const { return (type & wire::kRepError) != 0; }
  [[nodiscard]] std::string text() const;
};

/// How negotiate() comes to an export.
struct NbdWishes {
  std::string export_name;
  bool structured_replies = true;
  /// Asks for base:allocation; needs structured replies.
  bool allocation = true;
  /// NBD_OPT_GO; otherwise NBD_OPT_EXPORT_NAME, as old clients do.
  bool go = true;
  bool no_zeroes = true;
};

/// Threads: one at a time.
class NbdHandshake {
 public:
  /// Lifetime: `socket` outlives the handshake.
  explicit NbdHandshake(NbdSocket& socket) : socket_(socket) {}

  /// Receives the greeting and answers it. Errors: also what a server must not greet with.
  Result<void> greet(bool no_zeroes = true);
  /// Sends an option and receives its replies up to the last one. Not for NBD_OPT_EXPORT_NAME.
  /// Errors: kInvalid if a reply is not of this option, or too long.
  Result<std::vector<NbdOptionReply>> ask(uint32_t option, Bytes data);
  /// Sends an option without waiting.
  Result<void> send_option(uint32_t option, Bytes data);
  Result<NbdOptionReply> receive_reply(uint32_t option);

  /// The names of all exports. Errors: kAccess if the server refuses to tell.
  Result<std::vector<std::string>> list();
  /// NBD_OPT_INFO or NBD_OPT_GO. Errors: kNotFound with the server's text if it refuses.
  Result<NbdExportInfo> info(const std::string& export_name, bool go);
  Result<NbdExportInfo> export_name(const std::string& export_name);
  /// Whether the server agrees.
  Result<bool> structured_replies();
  /// NBD_OPT_SET_META_CONTEXT or NBD_OPT_LIST_META_CONTEXT.
  Result<std::vector<NbdContext>> meta_contexts(uint32_t option, const std::string& export_name,
                                                const std::vector<std::string>& queries);
  /// Leaves politely; the server's acknowledgement may be missing.
  Result<void> abort();

  /// After the greeting: everything up to transmission.
  Result<NbdAgreement> negotiate(const NbdWishes& wishes);

 private:
  NbdSocket& socket_;
  bool no_zeroes_ = true;
};

}  // namespace usbd::testing
