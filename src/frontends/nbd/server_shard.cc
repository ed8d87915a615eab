// SPDX-License-Identifier: Apache-2.0
//
// Sessions come by message from the loop that accepts, and end by themselves.

#include "frontends/nbd/server_shard.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd::nbd {
struct ServerShard::Arrival final : Work {
  Arrival(ServerShard& s, NewConnection c) : shard(s), connection(std::move(c)) {
    run = [](Work& work) {
      const std::unique_ptr<Arrival> self(static_cast<Arrival*>(&work));
      self->shard.take(std::move(self->connection));
    };
  }
  ServerShard& shard;
  NewConnection connection;
};

ServerShard::ServerShard(EventLoop& loop, const ExportTable& exports, Budget& budget,
                         ConnectionCount& all, ConnectionCount& clients, unsigned handshakes_max)
    : loop_(loop),
      exports_(exports),
      all_(all),
      clients_(clients),
      handshakes_max_(handshakes_max),
      context_(loop, loop.index(), budget) {}

ServerShard::~ServerShard() {
  USBD_ASSERT(load_.load() == 0);
}

void ServerShard::post(NewConnection connection) {
  load_.fetch_add(1, std::memory_order_relaxed);
  loop_.post(*new Arrival(*this, std::move(connection)));  // it deletes itself when it has run
}

void ServerShard::take(NewConnection connection) {
  if (stopping_) return turn_away(std::move(connection));
  const bool is_client = !connection.agreement.has_value();
  if (is_client) make_room_for_handshake();

  auto transport = std::make_unique<SocketTransport>(loop_, connection.socket.release());
  auto session =
      std::make_unique<Session>(context_, std::move(transport), exports_,
                                static_cast<SessionOwner&>(*this), std::move(connection.options));
  Session* const key = session.get();
  sessions_.emplace(key, Entry{.session = std::move(session),
                               .is_client = is_client,
                               .on_closed = std::move(connection.on_closed)});
  if (is_client) handshakes_.push_back(key);
  const Result<void> started =
      is_client ? key->start() : key->start_transmission(*connection.agreement);
  if (started) return;
  log::warning("{}: the connection cannot be served: {}", key->peer(), started.error().message());
  connection_lost(*key);
  session_ended(*key);
}

void ServerShard::make_room_for_handshake() {
  if (handshakes_.size() < handshakes_max_) return;
  Session* const oldest = handshakes_.front();
  if (uint64_t held_back = 0; limiter_.allow(loop_.now(), held_back)) {
    log::warning(
        "{}: closed before it chose an export, to make room for newer connections ({} such "
        "lines held back)",
        oldest->peer(), held_back);
  }
  oldest->abort("too many connections in the handshake");
}

void ServerShard::turn_away(NewConnection connection) {
  connection.socket.reset();
  if (connection.on_closed) connection.on_closed();
  uncount(!connection.agreement.has_value());
}

void ServerShard::uncount(bool is_client) {
  load_.fetch_sub(1, std::memory_order_relaxed);
  if (is_client) clients_.remove();
  all_.remove();
}

void ServerShard::stop() {
  stopping_ = true;
  std::vector<Session*> present;
  for (const auto& [session, entry] : sessions_) present.push_back(session);
  // Neither call destroys a session: that comes by a message to this loop.
  for (Session* const session : present) {
    if (session->in_handshake()) {
      session->abort("the server stops");
    } else {
      session->stop();
    }
  }
}

void ServerShard::abort() {
  std::vector<Session*> present;
  for (const auto& [session, entry] : sessions_) present.push_back(session);
  for (Session* const session : present) session->abort("the server stops");
}

void ServerShard::handshake_done(Session& session) {
  std::erase(handshakes_, &session);
}

void ServerShard::connection_lost(Session& session) {
  std::erase(handshakes_, &session);
  const std::function<void()> on_closed = std::exchange(sessions_.at(&session).on_closed, nullptr);
  if (on_closed) on_closed();
}

void ServerShard::session_ended(Session& session) {
  const auto found = sessions_.find(&session);
  USBD_ASSERT(found != sessions_.end());
  const bool is_client = found->second.is_client;
  sessions_.erase(found);
  uncount(is_client);
}

size_t ServerShard::receive_size() {
  const size_t share = limits::kReceivedTotalMax / std::max(1U, all_.total());
  return std::clamp(share, limits::kReceiveBytesMin, limits::kReceiveBufferBytes);
}

}  // namespace usbd::nbd
