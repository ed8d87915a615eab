// SPDX-License-Identifier: Apache-2.0
//
// For tests: sessions on a simulated loop, with clients of memory, around one scripted device. At
// the end it checks that nothing was kept: no claim, no budget, no session.

#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/log.h"
#include "core/buffer_pool.h"
#include "core/export.h"
#include "frontends/nbd/export_list.h"
#include "frontends/nbd/session.h"
#include "frontends/nbd/testing/client.h"
#include "frontends/nbd/testing/device.h"
#include "frontends/nbd/testing/wire.h"

namespace usbd::nbd {

/// One client, its connection, and what its session has told.
struct Peer {
  Peer(Loop& loop, bool structured) : wire(loop), client(structured) {}

  /// Sends a request (a write with a payload of `fill`s); returns its cookie.
  uint64_t ask(StreamClient::Ask what, char fill = 'x') {
    wire.send(client.request(what, fill));
    return client.last_cookie();
  }

  Wire wire;
  StreamClient client;
  std::unique_ptr<Session> session;
  /// Whether all that comes from the server are replies, for `client`.
  bool in_transmission = false;
  bool handshake_done = false;
  bool lost = false;
  bool ended = false;
};

class SessionKit final : public SessionOwner {
 public:
  struct Options {
    ScriptedDevice::Options device = {};
    Export::Options served = {};
    uint64_t budget = limits::kBytesTotalMax;
    uint64_t seed = 1;
  };

  explicit SessionKit(const Options& options)
      : loop({.seed = options.seed, .step_time = Nanos(1)}),
        budget(options.budget),
        device(options.device),
        served(device, options.served),
        exports(*ExportList::create({&served})),
        context(loop, 0, budget) {
    log::set_sink([](log::Level, std::string_view) {});
  }

  ~SessionKit() { finish(); }

  /// A client in transmission.
  Peer& connect(bool structured = true, Session::Options options = {}) {
    Peer& peer = add(structured, std::move(options));
    peer.in_transmission = true;
    Agreement agreement{.transmission_flags = transmission_flags(served.info()),
                        .structured_replies = structured,
                        .base_allocation = structured};
    EXPECT_TRUE(peer.session->start_transmission(agreement).has_value());
    return peer;
  }
  /// A client whose handshake has begun; it has not said anything.
  Peer& greet() {
    Peer& peer = add(false, {});
    EXPECT_TRUE(peer.session->start().has_value());
    return peer;
  }

  /// Lets everything happen that needs no time, and hands the clients what was sent.
  void settle(Nanos time = std::chrono::milliseconds(1)) {
    EXPECT_NE(loop.run_for(time), SimEnd::kSteps);
    for (const auto& peer : peers) {
      if (peer->in_transmission) peer->client.feed(peer->wire.take());
      EXPECT_EQ(peer->client.violation(), "");
    }
  }

  /// Ends all that goes on, and checks that nothing is left.
  void finish() {
    device.pace = ScriptedDevice::Pace::kAtOnce;
    for (const auto& peer : peers) peer->wire.hang_up();
    for (int i = 0; i < 10; ++i) {
      device.unpark_all();
      settle(std::chrono::milliseconds(1));
    }
    for (const auto& peer : peers) EXPECT_TRUE(peer->ended) << "a session does not end";
    EXPECT_EQ(served.locks().held_count(), 0U);
    EXPECT_EQ(budget.free(), budget.total());
    EXPECT_EQ(budget.waiting(), 0U);
    EXPECT_EQ(served.stats().snapshot().in_flight, 0U);
  }

  // SessionOwner
  void handshake_done(Session& session) override { peer_of(session).handshake_done = true; }
  void connection_lost(Session& session) override {
    EXPECT_FALSE(std::exchange(peer_of(session).lost, true)) << "lost twice";
  }
  void session_ended(Session& session) override {
    Peer& peer = peer_of(session);
    EXPECT_FALSE(std::exchange(peer.ended, true)) << "ended twice";
    EXPECT_TRUE(peer.lost);
    peer.session.reset();
  }
  size_t receive_size() override { return receive_max; }

  std::vector<std::unique_ptr<Peer>> peers;  // before the loop: it may hold their nodes
  SimLoop loop;
  Budget budget;
  ScriptedDevice device;
  Export served;
  ExportList exports;
  LoopContext context;
  size_t receive_max = limits::kReceiveBufferBytes;

 private:
  Peer& add(bool structured, Session::Options options) {
    peers.push_back(std::make_unique<Peer>(loop, structured));
    Peer& peer = *peers.back();
    if (options.peer.empty()) options.peer = "test client";
    peer.session =
        std::make_unique<Session>(context, std::make_unique<WireTransport>(peer.wire), exports,
                                  static_cast<SessionOwner&>(*this), std::move(options));
    return peer;
  }
  Peer& peer_of(const Session& session) {
    for (const auto& peer : peers) {
      if (peer->session.get() == &session) return *peer;
    }
    ADD_FAILURE() << "a call for a session that has ended";
    return *peers.front();
  }
};

}  // namespace usbd::nbd
