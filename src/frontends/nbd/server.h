// SPDX-License-Identifier: Apache-2.0
//
// Server: serves exports to NBD clients on unix and TCP sockets, and to the kernel on sockets that
// a kernel attach brings. Connections are spread over the loops, each to the one with the fewest.
//
// Life: listen() for each endpoint, start(), and stop() before anything it was given goes away.
//
// Ref: docs/protocols/nbd.md

#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "async/event_loop.h"
#include "base/limits.h"
#include "base/log.h"
#include "core/buffer_pool.h"
#include "frontends/nbd/connection_count.h"
#include "frontends/nbd/kernel/socket_sink.h"
#include "frontends/nbd/listener.h"
#include "frontends/nbd/server_shard.h"
#include "frontends/nbd/session.h"
#include "frontends/nbd/uri.h"

namespace usbd::nbd {

/// Threads: the control loop's, which is the first one, unless said otherwise.
class Server final : private ConnectionSink {
 public:
  struct Options {
    /// Serve plain NBD on TCP addresses that are not loopback.
    bool insecure_tcp = false;
    /// Clients at a time; further ones are turned away.
    unsigned connections_max = limits::kConnectionsMax;
    /// How many of them may be in the handshake.
    unsigned handshakes_max = limits::kHandshakesMax;
  };

  /// Lifetime: loops, exports and budget outlive the server.
  /// Range:    at least one loop.
  Server(const std::vector<EventLoop*>& loops, const ExportTable& exports, Budget& budget,
         Options options);
  /// Range: never started, or stop() has finished; asserted.
  ~Server();

  /// Makes the sockets for `endpoint`; clients can connect from now on and wait for start().
  /// Order:  before start(). Threads: any.
  /// Errors: as listen_at(); nothing is left behind.
  [[nodiscard]] Result<void> listen(const Endpoint& endpoint);

  /// Where it listens: ports that were got, absolute paths. Threads: any, after the last listen().
  [[nodiscard]] std::vector<Endpoint> endpoints() const;

  /// Begins to take connections.
  [[nodiscard]] Result<void> start();

  /// Takes connections on behalf of a kernel's NBD driver and serves them the export of that index;
  /// `device` says for the log whose they are.
  /// Threads:  any. Lifetime: the server outlives the sink.
  [[nodiscard]] std::unique_ptr<SocketSink> kernel_sink(size_t export_index, std::string device);

  /// Takes no more connections, removes its sockets, lets sessions answer the requests they have,
  /// and ends them. After `timeout`, or when `hurry` is requested, connections are closed with what
  /// is not answered; requests that run in a device are waited for all the same, however long it
  /// takes: their memory is lent to it.
  [[nodiscard]] Task<void> stop(Nanos timeout = limits::kDrainTimeout, std::stop_token hurry = {});

  /// Connections of all kinds. Threads: any.
  [[nodiscard]] unsigned connections() const { return all_.total(); }

 private:
  class KernelSink;

  // ConnectionSink
  void on_connection(UniqueFd socket, std::string peer) override;

  void adopt(NewConnection connection);
  Task<void> abort_all(bool hurried);
  [[nodiscard]] ServerShard& least_loaded();

  const ExportTable& exports_;
  const Options options_;
  EventLoop& control_;
  ConnectionCount all_;
  ConnectionCount clients_;
  std::vector<std::unique_ptr<ServerShard>> shards_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  bool started_ = false;
  bool stopped_ = false;
  log::Limiter limiter_;
};

}  // namespace usbd::nbd
