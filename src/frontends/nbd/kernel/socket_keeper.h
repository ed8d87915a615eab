// SPDX-License-Identifier: Apache-2.0
//
// SocketKeeper: keeps the sockets of a kernel attach alive. The kernel shuts the socket of a
// request that took too long, and a session may end; either way a new socket takes the place at
// once, without waiting for what the old one left unanswered, so that the kernel can send its
// requests again and no file system sees an error.
//
// The keeper holds a second descriptor of each of our ends, by which it sees a hang-up at once,
// also while the session is busy and reads nothing. A socket that the kernel was offered and did
// not take (it says success all the same) hangs up as soon as our copy of the kernel's end is
// closed: then it never reaches a session, and is offered again after a growing delay.
//
// A volume that stays stalled leaves one unfinished session per socket and TIMEOUT. Beyond
// limits::kKernelUnfinishedMax of them a dead socket is replaced only after Timing::crowded, which
// is well inside DEAD_CONN_TIMEOUT, so that their number grows slowly and still no request fails.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "frontends/nbd/kernel/driver.h"
#include "frontends/nbd/kernel/socket_sink.h"
#include "usbd/result.h"

namespace usbd::nbd {

/// The two ends of a connection. Both close on exec.
struct SocketPair {
  UniqueFd ours;
  UniqueFd kernels;

  static Result<SocketPair> make();
};

struct KeeperStatistics {
  /// Sockets that the kernel took in place of dead ones.
  uint64_t reconnects = 0;
  /// Sockets offered that the kernel did not take.
  uint64_t refusals = 0;
  /// Notices of dead sockets from the kernel.
  uint64_t dead_notices = 0;
  /// Sessions whose socket is dead and which have not ended.
  uint64_t unfinished = 0;
};

/// Threads: start() and stop() from one thread; statistics() from any.
class SocketKeeper {
 public:
  /// How long it waits; tests are in more of a hurry.
  struct Timing {
    std::chrono::milliseconds retry_min = limits::kKernelReplaceMin;
    std::chrono::milliseconds retry_max = limits::kKernelReplaceMax;
    std::chrono::milliseconds crowded = limits::kKernelReplaceCrowded;
  };

  /// `on_lost` is called once at most, from the keeper's thread, when the kernel refuses new
  /// sockets for good: somebody has disconnected the device. Lifetime: `driver` and `sink` outlive
  /// the keeper.
  SocketKeeper(KernelDriver& driver, SocketSink& sink, Timing timing,
               std::function<void(const Error&)> on_lost);
  /// Stops as stop() does.
  ~SocketKeeper();
  SocketKeeper(const SocketKeeper&) = delete;
  SocketKeeper& operator=(const SocketKeeper&) = delete;

  /// Gives `sockets`, our ends of what the kernel has just connected, to the sink, and keeps their
  /// number from now on. Errors: kNoMemory or the like, before anything was given away.
  Result<void> start(std::vector<UniqueFd> sockets);

  /// Replaces nothing any more; the sockets stay open.
  void stop_replacing();
  /// Shuts every socket: sessions and the kernel see the end of their connection.
  void stop();

  [[nodiscard]] KeeperStatistics statistics() const;

 private:
  class Mailbox;
  struct Slot;
  using Clock = std::chrono::steady_clock;

  Result<void> install(Slot& slot, UniqueFd ours);
  void run();
  /// Waits for an event or the earliest retry.
  void wait();
  void handle_closed_sessions();
  void handle_hang_ups();
  void mark_dead(Slot& slot);
  void update_live();
  void replace_due();
  void replace(Slot& slot);
  void handle_failure(Slot& slot, const Error& error);
  void schedule_retry(Slot& slot);
  void lose(const Error& error);

  KernelDriver& driver_;
  SocketSink& sink_;
  const Timing timing_;
  const std::function<void(const Error&)> on_lost_;
  /// Outlives the keeper: sessions report their end to it.
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<std::unique_ptr<Slot>> slots_;
  uint64_t next_session_ = 1;
  bool lost_ = false;
  std::thread thread_;
};

}  // namespace usbd::nbd
