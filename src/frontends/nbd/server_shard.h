// SPDX-License-Identifier: Apache-2.0
//
// ServerShard: the sessions of a server that live on one loop. It starts them, keeps them, and
// destroys them when they have ended.
//
// Handshakes are limited: who opens connections and says nothing must not keep others out. Beyond
// the limit the oldest handshake makes room for the newest, so a client that talks gets through.

#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "async/event_loop.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "frontends/nbd/connection_count.h"
#include "frontends/nbd/session.h"

namespace usbd::nbd {

/// A connection on its way to a session.
struct NewConnection {
  UniqueFd socket;
  Session::Options options;
  /// Transmission begins at once with this; empty: the handshake comes first.
  std::optional<Agreement> agreement = {};
  /// Called once, when the connection is given up.
  std::function<void()> on_closed = {};
};

/// Threads: its loop's, but for post() and load().
class ServerShard final : private SessionOwner {
 public:
  /// Lifetime: everything outlives the shard. `clients` is told of each connection with a handshake
  ///           that ends, `all` of each that ends.
  ServerShard(EventLoop& loop, const ExportTable& exports, Budget& budget, ConnectionCount& all,
              ConnectionCount& clients, unsigned handshakes_max);
  ~ServerShard();

  /// Takes a connection that has been counted in `all`, and in `clients` if there is a handshake.
  /// Threads: any.
  void post(NewConnection connection);

  /// Lets the sessions finish what runs; handshakes end at once, and so does what is posted later.
  void stop();
  /// Ends all sessions; what they still have to send is not sent.
  void abort();

  [[nodiscard]] EventLoop& loop() { return loop_; }
  /// Connections that it has or that are on their way to it. Threads: any.
  [[nodiscard]] unsigned load() const { return load_.load(std::memory_order_relaxed); }

 private:
  struct Arrival;
  struct Entry {
    std::unique_ptr<Session> session;
    bool is_client = false;
    std::function<void()> on_closed;
  };

  void take(NewConnection connection);
  void make_room_for_handshake();
  void turn_away(NewConnection connection);
  void uncount(bool is_client);

  // SessionOwner
  void handshake_done(Session& session) override;
  void connection_lost(Session& session) override;
  void session_ended(Session& session) override;
  size_t receive_size() override;

  EventLoop& loop_;
  const ExportTable& exports_;
  ConnectionCount& all_;
  ConnectionCount& clients_;
  const unsigned handshakes_max_;
  LoopContext context_;
  std::unordered_map<Session*, Entry> sessions_;
  /// Those of them that are in the handshake, oldest first.
  std::deque<Session*> handshakes_;
  bool stopping_ = false;
  std::atomic<unsigned> load_{0};
  log::Limiter limiter_;
};

}  // namespace usbd::nbd
