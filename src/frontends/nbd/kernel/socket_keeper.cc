// SPDX-License-Identifier: Apache-2.0
//
// One thread that sleeps in poll() on the sockets, the kernel's notices and the sessions' reports.

#include "frontends/nbd/kernel/socket_keeper.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;

constexpr short kHangUp = POLLHUP | POLLRDHUP | POLLERR | POLLNVAL;

bool has_hung_up(int socket) {
  pollfd poll_fd{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return ::poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & kHangUp) != 0;
}

}  // namespace

Result<SocketPair> SocketPair::make() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Error::from_errno(errno, "cannot make a socket pair");
  }
  return SocketPair{.ours = UniqueFd(ends[0]), .kernels = UniqueFd(ends[1])};
}

/// Where sessions on any thread leave the news of their end, and what wakes the keeper.
class SocketKeeper::Mailbox {
 public:
  Mailbox() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  [[nodiscard]] int fd() const { return wake_.get(); }

  void expect(uint64_t session) {
    const std::lock_guard lock(mutex_);
    open_.insert(session);
  }
  void report_closed(uint64_t session) {
    const std::lock_guard lock(mutex_);
    if (open_.erase(session) == 0) return;
    closed_.push_back(session);
    ring();
  }
  void request_stop() {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    ring();
  }
  [[nodiscard]] bool stop_requested() const {
    const std::lock_guard lock(mutex_);
    return stop_;
  }
  std::vector<uint64_t> take_closed() {
    const std::lock_guard lock(mutex_);
    uint64_t count = 0;
    // Fails only if nobody rang.
    [[maybe_unused]] const ssize_t size = ::read(wake_.get(), &count, sizeof(count));
    return std::exchange(closed_, {});
  }
  [[nodiscard]] size_t open_sessions() const {
    const std::lock_guard lock(mutex_);
    return open_.size();
  }

  /// Kept here, under the same lock, since any thread may ask.
  KeeperStatistics statistics() const {
    const std::lock_guard lock(mutex_);
    KeeperStatistics now = statistics_;
    now.unfinished = open_.size() - std::min(open_.size(), live_);
    return now;
  }
  void count(uint64_t KeeperStatistics::* counter, uint64_t by = 1) {
    const std::lock_guard lock(mutex_);
    statistics_.*counter += by;
  }
  void set_live(size_t live) {
    const std::lock_guard lock(mutex_);
    live_ = live;
  }

 private:
  void ring() {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the keeper wakes anyway.
    [[maybe_unused]] const ssize_t size = ::write(wake_.get(), &one, sizeof(one));
  }

  const UniqueFd wake_;
  mutable std::mutex mutex_;
  std::unordered_set<uint64_t> open_;
  std::vector<uint64_t> closed_;
  KeeperStatistics statistics_;
  size_t live_ = 0;
  bool stop_ = false;
};

/// One of the device's sockets, or the place of one that died.
struct SocketKeeper::Slot {
  /// A second descriptor of our end; none: the socket is dead.
  UniqueFd watch;
  uint64_t session = 0;
  Clock::time_point installed_at;
  /// When a dead socket is to be replaced.
  Clock::time_point retry_at;
  /// What the next wait will be; grows while sockets are refused or die young.
  std::chrono::milliseconds delay{0};
  /// Calls in a row that failed.
  unsigned failures = 0;
};

SocketKeeper::SocketKeeper(KernelDriver& driver, SocketSink& sink, Timing timing,
                           std::function<void(const Error&)> on_lost)
    : driver_(driver),
      sink_(sink),
      timing_(timing),
      on_lost_(std::move(on_lost)),
      mailbox_(std::make_shared<Mailbox>()) {}

SocketKeeper::~SocketKeeper() {
  stop();
}

Result<void> SocketKeeper::start(std::vector<UniqueFd> sockets) {
  USBD_ASSERT(slots_.empty());
  if (mailbox_->fd() < 0) return Error(Errc::kNoMemory, "cannot make an eventfd");
  for (size_t i = 0; i < sockets.size(); ++i) slots_.push_back(std::make_unique<Slot>());
  mailbox_->set_live(sockets.size());
  for (size_t i = 0; i < sockets.size(); ++i) {
    if (Result<void> installed = install(*slots_[i], std::move(sockets[i])); !installed) {
      stop();
      return installed;
    }
  }
  thread_ = std::thread([this] { run(); });
  return {};
}

Result<void> SocketKeeper::install(Slot& slot, UniqueFd ours) {
  UniqueFd watch(::fcntl(ours.get(), F_DUPFD_CLOEXEC, 0));
  if (!watch) return Error::from_errno(errno, "cannot watch a socket");
  slot.watch = std::move(watch);
  slot.session = next_session_++;
  slot.installed_at = Clock::now();
  slot.failures = 0;
  mailbox_->expect(slot.session);
  sink_.adopt(std::move(ours),
              [mailbox = mailbox_, session = slot.session] { mailbox->report_closed(session); });
  return {};
}

void SocketKeeper::stop_replacing() {
  mailbox_->request_stop();
  if (thread_.joinable()) thread_.join();
}

void SocketKeeper::stop() {
  stop_replacing();
  for (const auto& slot : slots_) {
    if (slot->watch) ::shutdown(slot->watch.get(), SHUT_RDWR);
    slot->watch.reset();
  }
}

KeeperStatistics SocketKeeper::statistics() const {
  return mailbox_->statistics();
}

void SocketKeeper::run() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  while (!mailbox_->stop_requested() && !lost_) {
    wait();
    handle_closed_sessions();
    handle_hang_ups();
    if (!mailbox_->stop_requested()) replace_due();
  }
}

void SocketKeeper::wait() {
  std::vector<pollfd> polled{{.fd = mailbox_->fd(), .events = POLLIN, .revents = 0},
                             {.fd = driver_.notification_fd(), .events = POLLIN, .revents = 0}};
  std::optional<Clock::time_point> earliest;
  for (const auto& slot : slots_) {
    if (slot->watch) {
      polled.push_back({.fd = slot->watch.get(), .events = POLLRDHUP, .revents = 0});
    } else if (!earliest || slot->retry_at < *earliest) {
      earliest = slot->retry_at;
    }
  }
  int timeout_ms = -1;
  if (earliest) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*earliest - Clock::now());
    timeout_ms = static_cast<int>(std::max<int64_t>(left.count(), 0));
  }
  if (::poll(polled.data(), polled.size(), timeout_ms) > 0 && (polled[1].revents & POLLIN) != 0) {
    mailbox_->count(&KeeperStatistics::dead_notices, driver_.drain_notifications());
  }
}

void SocketKeeper::handle_closed_sessions() {
  for (const uint64_t session : mailbox_->take_closed()) {
    // The end of a session whose socket was replaced long ago is no news.
    for (const auto& slot : slots_) {
      if (slot->watch && slot->session == session) mark_dead(*slot);
    }
  }
}

void SocketKeeper::handle_hang_ups() {
  for (const auto& slot : slots_) {
    if (slot->watch && has_hung_up(slot->watch.get())) mark_dead(*slot);
  }
}

void SocketKeeper::mark_dead(Slot& slot) {
  // The session may be gone without a word to the kernel, whose place is free only after this.
  ::shutdown(slot.watch.get(), SHUT_RDWR);
  slot.watch.reset();
  update_live();
  // At once, unless sockets die as soon as they are made, or too many sessions are unfinished.
  if (Clock::now() - slot.installed_at >= timing_.retry_max) slot.delay = 0ms;
  if (mailbox_->statistics().unfinished > limits::kKernelUnfinishedMax)
    slot.delay = timing_.crowded;
  schedule_retry(slot);
}

void SocketKeeper::update_live() {
  mailbox_->set_live(static_cast<size_t>(
      std::ranges::count_if(slots_, [](const auto& slot) { return bool(slot->watch); })));
}

void SocketKeeper::replace_due() {
  if (!driver_.can_replace()) {
    if (std::ranges::any_of(slots_, [](const auto& slot) { return !slot->watch; })) {
      lose(Error(Errc::kShutdown, "the kernel's only connection ended, and the device with it"));
    }
    return;
  }
  for (const auto& slot : slots_) {
    if (!lost_ && !slot->watch && slot->retry_at <= Clock::now()) replace(*slot);
  }
}

void SocketKeeper::replace(Slot& slot) {
  Result<SocketPair> pair = SocketPair::make();
  Result<void> done = pair ? driver_.replace(pair->kernels.get()) : pair.error();
  if (done) {
    pair->kernels.reset();
    if (has_hung_up(pair->ours.get())) {
      mailbox_->count(&KeeperStatistics::refusals);
      schedule_retry(slot);
      return;
    }
    done = install(slot, std::move(pair->ours));
  }
  if (!done) {
    handle_failure(slot, done.error());
    return;
  }
  mailbox_->count(&KeeperStatistics::reconnects);
  update_live();
}

void SocketKeeper::handle_failure(Slot& slot, const Error& error) {
  if (++slot.failures == 1) {
    log::warning("cannot replace a dead kernel socket yet: {}", error.message());
  }
  if (slot.failures >= limits::kKernelFailuresMax) {
    lose(Error(error.code(),
               "the kernel takes no new socket: somebody has disconnected the device"));
  }
  schedule_retry(slot);
}

void SocketKeeper::schedule_retry(Slot& slot) {
  slot.retry_at = Clock::now() + slot.delay;
  slot.delay = std::clamp(slot.delay * 2, timing_.retry_min, timing_.retry_max);
}

void SocketKeeper::lose(const Error& error) {
  lost_ = true;
  if (on_lost_) on_lost_(error);
}

}  // namespace usbd::nbd
