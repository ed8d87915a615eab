// SPDX-License-Identifier: Apache-2.0
//
// FuzzPeer: one NBD client of the session fuzzer. What it says waits in an outbox and goes to its
// connection in pieces that the input chooses; what it hears it takes apart: the handshake here,
// transmission with StreamClient.

#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "frontends/nbd/session.h"
#include "frontends/nbd/testing/client.h"
#include "frontends/nbd/testing/wire.h"
#include "fuzz/input.h"

namespace usbd::fuzz {

class FuzzPeer {
 public:
  explicit FuzzPeer(Loop& loop) : wire(loop) { client.forget_data(); }

  // --- saying ---

  void say_flags(uint32_t flags) {
    no_zeroes_ = (flags & 2) != 0;
    outbox += nbd::StreamClient::be(flags);
  }
  /// `length`: what the option's header claims.
  void say_option(uint32_t number, std::string_view data, size_t length) {
    outbox += "IHAVEOPT" + nbd::StreamClient::be(number) +
              nbd::StreamClient::be(static_cast<uint32_t>(length));
    outbox += data;
    if (length != data.size()) garbled = true;
  }
  void say_option(uint32_t number, std::string_view data) { say_option(number, data, data.size()); }
  void say_request(nbd::StreamClient::Ask ask, char fill) { outbox += client.request(ask, fill); }
  /// Moves so many bytes of the outbox to the connection.
  void deliver(size_t bytes) {
    wire.send(std::string_view(outbox).substr(0, bytes));
    outbox.erase(0, bytes);
  }

  // --- hearing ---

  /// From the start: nothing is negotiated on this connection.
  void skip_handshake(bool structured) {
    in_transmission_ = true;
    client.set_structured(structured);
  }
  void hear() {
    if (garbled) {
      wire.take();
      return;
    }
    stream_ += wire.take();
    while (!in_transmission_ && hear_handshake()) {
    }
    if (!in_transmission_) return;
    client.feed(stream_);
    stream_.clear();
    if (!client.violation().empty()) broken(client.violation());
  }

  nbd::Wire wire;
  nbd::StreamClient client{false};
  std::unique_ptr<nbd::Session> session;
  std::string outbox;
  /// It has sent bytes whose meaning to the server it does not know: answers are not checked.
  bool garbled = false;
  /// Whether what it says next is a request.
  bool past_options = false;
  /// It has asked for the end, or sent what ends a connection: not everything need be answered.
  bool over = false;
  bool handshake_done = false;
  bool lost = false;
  bool ended = false;

 private:
  static constexpr size_t kPadding = 124;

  bool drop(size_t bytes) {
    stream_.erase(0, bytes);
    return true;
  }

  /// Takes one message of the handshake; false: there is no whole one.
  bool hear_handshake() {
    if (!greeted_) {
      if (stream_.size() < 18) return false;
      promise(stream_.starts_with("NBDMAGICIHAVEOPT"), "the greeting");
      greeted_ = true;
      return drop(18);
    }
    if (stream_.size() < 10) return false;
    if (nbd::StreamClient::number(stream_, 0, 8) != 0x0003e889045565a9) return hear_export_name();
    if (stream_.size() < 20) return false;
    const uint64_t option = nbd::StreamClient::number(stream_, 8, 4);
    const uint64_t type = nbd::StreamClient::number(stream_, 12, 4);
    const size_t length = nbd::StreamClient::number(stream_, 16, 4);
    promise(length <= 64U << 10, "option replies are bounded");
    if (stream_.size() < 20 + length) return false;
    promise((type >= 1 && type <= 4) || (type > 0x80000000 && type <= 0x8000000A),
            "known types of option replies");
    if (type == 1) promise(length == 0, "an acknowledgement without data");
    if (type == 1 && option == 8) client.set_structured(true);
    if (type == 1 && option == 7) in_transmission_ = true;
    return drop(20 + length);
  }

  bool hear_export_name() {
    const size_t length = 10 + (no_zeroes_ ? 0 : kPadding);
    if (stream_.size() < length) return false;
    for (size_t i = 10; i < length; ++i) promise(stream_[i] == 0, "zeros as padding");
    in_transmission_ = true;
    return drop(length);
  }

  std::string stream_;
  bool no_zeroes_ = false;
  bool greeted_ = false;
  bool in_transmission_ = false;
};

}  // namespace usbd::fuzz
