// SPDX-License-Identifier: Apache-2.0
//
// Taking connections, spreading them, and stopping.

#include "frontends/nbd/server.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/assert.h"
#include "frontends/nbd/export_list.h"

namespace usbd::nbd {
namespace {

/// Awaitable: calls `function` on `loop` and resumes the awaiting coroutine on its own loop.
/// Lifetime: `function` outlives the await.
template <typename F>
class OnLoop final : private Work {
 public:
  OnLoop(Loop& loop, F& function) : loop_(loop), function_(function), home_(Loop::current()) {
    run = [](Work& work) {
      auto& self = static_cast<OnLoop&>(work);
      self.function_();
      self.home_.post(self.resume_);
    };
  }
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    resume_.handle = handle;
    loop_.post(*this);
  }
  void await_resume() const noexcept {}

 private:
  Loop& loop_;
  F& function_;
  Loop& home_;
  ResumeWork resume_;
};

}  // namespace

class Server::KernelSink final : public SocketSink {
 public:
  KernelSink(Server& server, size_t export_index, std::string device)
      : server_(server), export_index_(export_index), device_(std::move(device)) {}

  void adopt(UniqueFd socket, std::function<void()> on_closed) override {
    const ExportDescription description = server_.exports_.describe(export_index_);
    server_.adopt({.socket = std::move(socket),
                   .options = {.drop_when_hung_up = true,
                               .peer = fmt::format("kernel socket {} of {}", next_++, device_)},
                   .agreement = Agreement{.export_index = export_index_,
                                          .transmission_flags = description.transmission_flags},
                   .on_closed = std::move(on_closed)});
  }

 private:
  Server& server_;
  const size_t export_index_;
  const std::string device_;
  std::atomic<unsigned> next_{0};
};

Server::Server(const std::vector<EventLoop*>& loops, const ExportTable& exports, Budget& budget,
               Options options)
    : exports_(exports), options_(options), control_(*loops.front()) {
  const auto count = static_cast<unsigned>(loops.size());
  const unsigned handshakes_each = std::max(1U, options_.handshakes_max / count);
  for (EventLoop* const loop : loops) {
    shards_.push_back(
        std::make_unique<ServerShard>(*loop, exports, budget, all_, clients_, handshakes_each));
  }
}

Server::~Server() {
  USBD_ASSERT(stopped_ || (!started_ && all_.total() == 0));
}

Result<void> Server::listen(const Endpoint& endpoint) {
  USBD_ASSERT(!started_);
  USBD_TRY(std::vector<ListeningSocket> sockets,
           listen_at(endpoint, {.insecure_tcp = options_.insecure_tcp}));
  ConnectionSink& sink = *this;
  for (ListeningSocket& socket : sockets) {
    listeners_.push_back(std::make_unique<Listener>(control_, std::move(socket), sink));
  }
  return {};
}

std::vector<Endpoint> Server::endpoints() const {
  std::vector<Endpoint> out;
  for (const auto& listener : listeners_) out.push_back(listener->endpoint());
  return out;
}

Result<void> Server::start() {
  USBD_ASSERT(!started_);
  started_ = true;
  for (const auto& listener : listeners_) USBD_TRY_VOID(listener->start());
  return {};
}

std::unique_ptr<SocketSink> Server::kernel_sink(size_t export_index, std::string device) {
  return std::make_unique<KernelSink>(*this, export_index, std::move(device));
}

void Server::on_connection(UniqueFd socket, std::string peer) {
  // Only this loop adds clients, so the number cannot have grown since it was looked at.
  if (clients_.total() >= options_.connections_max) {
    if (uint64_t held_back = 0; limiter_.allow(control_.now(), held_back)) {
      log::warning(
          "{}: turned away, {} clients are connected, which is the limit ({} such lines "
          "held back)",
          peer, clients_.total(), held_back);
    }
    return;
  }
  if (!clients_.add()) return;
  log::debug("{}: connected", peer);
  adopt({.socket = std::move(socket), .options = {.peer = std::move(peer)}});
}

void Server::adopt(NewConnection connection) {
  if (all_.add()) return least_loaded().post(std::move(connection));
  connection.socket.reset();
  if (!connection.agreement) clients_.remove();
  if (connection.on_closed) connection.on_closed();
}

ServerShard& Server::least_loaded() {
  return **std::ranges::min_element(shards_, {}, [](const auto& shard) { return shard->load(); });
}

Task<void> Server::stop(Nanos timeout, std::stop_token hurry) {
  if (std::exchange(stopped_, true)) co_return;
  for (const auto& listener : listeners_) listener->stop();
  clients_.close_door();
  all_.close_door();
  for (const auto& shard : shards_) {
    const auto stop_shard = [&shard] { shard->stop(); };
    co_await OnLoop(shard->loop(), stop_shard);
  }
  if (!co_await all_.wait_for_none(timeout, hurry)) co_await abort_all(hurry.stop_requested());
  // The last message of each loop may still be leaving the shard that it ended a session of, and a
  // listener's timer may have been posted before it was stopped.
  for (const auto& shard : shards_) {
    const auto nothing = [] {};
    co_await OnLoop(shard->loop(), nothing);
  }
}

/// Closes what is left, and waits for what the device has not finished.
Task<void> Server::abort_all(bool hurried) {
  log::warning("closing {} NBD connections that have not had all their replies{}", all_.total(),
               hurried ? "" : " in time");
  for (const auto& shard : shards_) {
    const auto abort_shard = [&shard] { shard->abort(); };
    co_await OnLoop(shard->loop(), abort_shard);
  }
  while (!co_await all_.wait_for_none(limits::kDeviceWaitReportEvery)) {
    log::warning("{} NBD connections wait for requests that the device has not finished",
                 all_.total());
  }
}

}  // namespace usbd::nbd
