// SPDX-License-Identifier: Apache-2.0
//
// Listener: takes connections from a listening socket, on one loop. When the process has run out of
// descriptors or memory it stops looking for a while: the connection stays in the kernel's
// queue, where it would otherwise wake the loop for ever.

#pragma once

#include <string>

#include "async/event_loop.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "frontends/nbd/listening_socket.h"

namespace usbd::nbd {

/// Who gets the connections of a listener.
class ConnectionSink {
 public:
  /// `socket` is non-blocking; `peer` says who it is, for the log.
  /// Threads: the listener's loop.
  virtual void on_connection(UniqueFd socket, std::string peer) = 0;

 protected:
  ~ConnectionSink() = default;
};

/// Threads: its loop's, but for making it and endpoint().
class Listener final : private FdWatcher {
 public:
  /// Lifetime: `loop` and `sink` outlive the listener.
  Listener(EventLoop& loop, ListeningSocket socket, ConnectionSink& sink);
  /// Range: stopped, or never started; and the loop has run what was posted to it before: asserted
  ///        is only the former.
  ~Listener();

  [[nodiscard]] Result<void> start();
  /// Takes no more connections and closes the socket. May be called twice.
  void stop();

  [[nodiscard]] const Endpoint& endpoint() const { return socket_.endpoint(); }

 private:
  struct Retry final : Work {
    Listener* listener = nullptr;
  };

  void on_events(uint32_t events) override;
  /// Takes one connection. False: there is none, or the listener has to pause.
  bool accept_one();
  void pause(int number);
  void resume();

  EventLoop& loop_;
  ListeningSocket socket_;
  ConnectionSink& sink_;
  bool watching_ = false;
  bool stopped_ = false;
  bool started_ = false;
  Retry retry_;
  Timer timer_;
  log::Limiter limiter_;
};

}  // namespace usbd::nbd
