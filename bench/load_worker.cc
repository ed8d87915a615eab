// SPDX-License-Identifier: Apache-2.0
//
// See load_worker.h. A thread with one connection sleeps in recvmsg; one with several in poll.

#include "bench/load_worker.h"

#include <algorithm>
#include <chrono>

namespace usbd::bench {
namespace {

Result<void> poll_once(std::vector<pollfd>& polled, int timeout_ms) {
  const int ready = ::poll(polled.data(), polled.size(), timeout_ms);
  if (ready < 0 && errno != EINTR) return Error::from_errno(errno, "poll");
  if (ready == 0 && timeout_ms > 0) {
    return Error(Errc::kTimedOut, "the server has stopped answering");
  }
  return {};
}

}  // namespace

void LoadPhase::count_end() {
  {
    const std::lock_guard lock(mutex_);
    ++ended_;
  }
  changed_.notify_all();
}

bool LoadPhase::wait_for_ends(size_t workers, std::optional<double> seconds) {
  std::unique_lock lock(mutex_);
  const auto all_ended = [&] { return ended_ >= workers; };
  if (seconds) return changed_.wait_for(lock, std::chrono::duration<double>(*seconds), all_ended);
  changed_.wait(lock, all_ended);
  return true;
}

void LoadWorker::add(Socket socket, const LoadConnectionOptions& options, Workload workload) {
  connections_.push_back(
      std::make_unique<LoadConnection>(std::move(socket), options, std::move(workload), counters_));
}

void LoadWorker::run(LoadPhase& phase) {
  outcome_ = connections_.size() == 1 ? run_single(phase) : run_several(phase);
  phase.count_end();
}

Result<void> LoadWorker::refill(LoadConnection& connection, const LoadPhase& phase) {
  const LoadPhase::Phase now = phase.get();
  counters_.measuring = now == LoadPhase::Phase::kMeasure;
  return now == LoadPhase::Phase::kDrain ? connection.send_rest() : connection.submit();
}

Result<void> LoadWorker::run_single(const LoadPhase& phase) {
  LoadConnection& connection = *connections_.front();
  while (true) {
    USBD_TRY_VOID(refill(connection, phase));
    if (connection.idle()) return {};
    USBD_TRY_VOID(wait_and_receive(connection));
  }
}

Result<void> LoadWorker::wait_and_receive(LoadConnection& connection) {
  using Wait = LoadConnection::Wait;
  if (connection.has_unsent()) {
    std::vector<pollfd> polled{{.fd = connection.fd(), .events = POLLIN | POLLOUT, .revents = 0}};
    USBD_TRY_VOID(poll_once(polled, patience_ms_));
    if ((polled[0].revents & ~POLLOUT) == 0) return {};
    USBD_TRY([[maybe_unused]] const bool got, connection.receive(Wait::kNo));
    return {};
  }
  USBD_TRY([[maybe_unused]] const bool got,
           connection.receive(busy_poll_ ? Wait::kNo : Wait::kYes));
  return {};
}

Result<void> LoadWorker::run_several(const LoadPhase& phase) {
  std::vector<pollfd> polled(connections_.size());
  for (auto& connection : connections_) USBD_TRY_VOID(refill(*connection, phase));
  while (true) {
    USBD_TRY_VOID(poll_all(polled));
    bool all_idle = true;
    for (size_t i = 0; i < polled.size(); ++i) {
      LoadConnection& connection = *connections_[i];
      if ((polled[i].revents & ~POLLOUT) != 0) {
        USBD_TRY([[maybe_unused]] const bool got, connection.receive(LoadConnection::Wait::kNo));
      }
      if (polled[i].revents != 0) USBD_TRY_VOID(refill(connection, phase));
      all_idle = all_idle && connection.idle();
    }
    if (all_idle) return {};
  }
}

Result<void> LoadWorker::poll_all(std::vector<pollfd>& polled) {
  for (size_t i = 0; i < polled.size(); ++i) {
    const LoadConnection& connection = *connections_[i];
    const auto writable = static_cast<short>(connection.has_unsent() ? POLLOUT : 0);
    polled[i] = {.fd = connection.idle() ? -1 : connection.fd(),
                 .events = static_cast<short>(POLLIN | writable),
                 .revents = 0};
  }
  const bool any = std::ranges::any_of(polled, [](const pollfd& entry) { return entry.fd >= 0; });
  return any ? poll_once(polled, busy_poll_ ? 0 : patience_ms_) : Result<void>();
}

Result<void> LoadWorker::disconnect() {
  for (auto& connection : connections_) USBD_TRY_VOID(connection->disconnect());
  return {};
}

}  // namespace usbd::bench
