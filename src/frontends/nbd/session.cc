// SPDX-License-Identifier: Apache-2.0
//
// The life of a session: receiving, the handshake, back-pressure, and the end. What it does with
// requests stands in session_requests.cc.

#include "frontends/nbd/session.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "base/log.h"

namespace usbd::nbd {
namespace {

/// Receives in a row for one connection before others of the loop have their turn.
constexpr int kReceivesPerTurn = 8;
/// Handshake answers that may wait to be sent before more options are read.
constexpr size_t kHandshakeRepliesMax = 16;

/// How long a client may hold up so many.
Nanos slow_grace(size_t waiting) {
  if (waiting <= limits::kSlowConnectionFew) return limits::kSlowConnectionGraceMax;
  const Nanos share = Nanos(limits::kSlowConnectionGraceMax) * limits::kSlowConnectionFew / waiting;
  return std::max<Nanos>(share, limits::kSlowConnectionGraceMin);
}

}  // namespace

Session::Session(LoopContext& context, std::unique_ptr<Transport> transport,
                 const ExportTable& exports, SessionOwner& owner, Options options)
    : context_(context),
      loop_(context.loop),
      transport_(std::move(transport)),
      exports_(exports),
      owner_(owner),
      options_(std::move(options)),
      negotiation_(std::make_unique<Negotiation>(exports)) {
  waiter_.loop = &loop_;
  waiter_.granted = &granted_work_;
  handshake_timer_.work = &handshake_timeout_work_;
  slow_timer_.work = &slow_work_;
  loan_.loop = &loop_;
  loan_.wanted = &loan_wanted_work_;
}

Session::~Session() {
  USBD_ASSERT(in_flight_ == 0 && !waiting_for_budget_ && !incoming_.active);
  USBD_ASSERT(timers_ == 0 && !send_scheduled_ && !loan_.held && !loan_work_queued_);
}

Result<void> Session::open() {
  return transport_->open(*this);
}

Result<void> Session::start() {
  USBD_TRY_VOID(open());
  std::vector<std::byte> greeting;
  negotiation_->greet(greeting);
  replies_.raw(std::move(greeting));
  arm(handshake_timer_, limits::kHandshakeTimeout);
  send_replies();
  return {};
}

Result<void> Session::start_transmission(Agreement agreement) {
  USBD_TRY_VOID(open());
  agreement_ = agreement;
  negotiation_.reset();
  export_ = &exports_.at(agreement.export_index);
  stats_ = &export_->stats().of_loop(context_.index);
  state_ = State::kTransmission;
  return {};
}

void Session::on_readable() {
  const uint64_t before = bytes_moved_;
  for (int i = 0; i < kReceivesPerTurn; ++i) {
    if (!receive_once()) return;
    // What the device has to work on is begun, and answered, before much more is received.
    if (in_flight_bytes_ > 0 && bytes_moved_ - before >= limits::kReceiveTurnBytes) return;
  }
}

bool Session::receive_once() {
  if (paused_ || state_ == State::kDraining || state_ == State::kLost) return false;
  std::array<iovec, 2> vectors{};
  size_t count = 0;
  size_t direct = 0;
  if (incoming_.active && incoming_.rest().size() >= limits::kDirectReceiveMin) {
    direct = incoming_.rest().size();
    vectors[count++] = {incoming_.rest().data(), direct};
  }
  std::byte* const buffer = context_.receive_buffer.bytes().data() + LoopContext::kHeadroom;
  size_t room = owner_.receive_size();
  // What comes with the end of a large payload is copied again: little of the next one should.
  if (direct > 0) room = std::min(room, limits::kDirectLookahead);
  vectors[count++] = {buffer, room};
  const int64_t received = transport_->receive(std::span(vectors).first(count));
  if (received == Transport::kWouldBlock) return false;
  if (received == Transport::kClosed) {
    lose("the client closed the connection");
    return false;
  }
  const auto bytes = static_cast<size_t>(received);
  bytes_moved_ += bytes;
  const size_t into_target = std::min(bytes, direct);
  incoming_.received += into_target;
  if (state_ == State::kTransmission) batch_start_ = loop_.now();
  process(MutableBytes(buffer, bytes - into_target));
  return true;
}

void Session::process(MutableBytes data) {
  processing_ = true;
  data = continue_incoming(data);
  data = take_stash(skip(data));
  if (state_ == State::kHandshake) data = handshake(data);
  if (state_ == State::kTransmission) data = requests(data);
  if (state_ == State::kHandshake || state_ == State::kTransmission) keep(data);
  if (paid_ > 0 && !paused_) context_.buffers.budget().give(std::exchange(paid_, 0));
  processing_ = false;
  flush_tally();
  send_replies();
  // Not at once: a client that reads as fast as it is answered would keep the loop for itself.
  if (may_go_on()) schedule_send();
}

MutableBytes Session::take_stash(MutableBytes data) {
  if (stash_length_ == 0 || data.empty()) return data;
  // In front of `data` is the receive buffer's headroom, or that of resume().
  std::byte* const begin = data.data() - stash_length_;
  std::memcpy(begin, stash_.data(), stash_length_);
  return {begin, data.size() + std::exchange(stash_length_, 0)};
}

void Session::keep(MutableBytes data) {
  if (data.empty()) return;
  if (!paused_ && data.size() < sizeof(Request)) {
    std::memcpy(stash_.data(), data.data(), data.size());
    stash_length_ = data.size();
    return;
  }
  USBD_ASSERT(paused_);
  leftover_.assign(data.begin(), data.end());
}

MutableBytes Session::handshake(MutableBytes data) {
  while (!data.empty() && state_ == State::kHandshake) {
    if (replies_.size() >= kHandshakeRepliesMax) {
      if (replies_.send(*transport_) != ReplyQueue::Sent::kAll) {
        pause();
        return data;
      }
    }
    std::vector<std::byte> output;
    const Negotiation::Step step = negotiation_->feed(data, output);
    data = data.subspan(step.consumed);
    if (!output.empty()) replies_.raw(std::move(output));
    if (step.next == Negotiation::Next::kTransmission) {
      agreement_ = negotiation_->agreement();
      negotiation_.reset();
      export_ = &exports_.at(agreement_.export_index);
      stats_ = &export_->stats().of_loop(context_.index);
      state_ = State::kTransmission;
      disarm(handshake_timer_);
      batch_start_ = loop_.now();
      owner_.handshake_done(*this);
    } else if (step.next == Negotiation::Next::kClose) {
      if (!negotiation_->close_reason().empty()) {
        log::info("{}: handshake ended: {}", options_.peer, negotiation_->close_reason());
      }
      state_ = State::kDraining;
    }
  }
  return data;
}

bool Session::may_go_on() const {
  if (!paused_ || processing_ || waiting_for_budget_) return false;
  const bool reserve_comes_free = reserve_wanted_ > 0 && reserve_used_ > 0;
  if (reserve_comes_free && reserve_used_ + reserve_wanted_ > owner_.receive_size()) return false;
  if (state_ == State::kTransmission) return may_admit();
  return state_ == State::kHandshake && replies_.empty();
}

void Session::resume() {
  if (!may_go_on()) return;
  paused_ = false;
  reserve_wanted_ = 0;
  std::vector<std::byte> data(LoopContext::kHeadroom);
  data.insert(data.end(), leftover_.begin(), leftover_.end());
  leftover_ = {};
  if (state_ == State::kTransmission) batch_start_ = loop_.now();
  process(MutableBytes(data).subspan(LoopContext::kHeadroom));
}

void Session::go_on() {
  send_scheduled_ = false;
  send_replies();
  resume();
}

void Session::send_replies() {
  if (state_ == State::kLost) {
    maybe_end();
    return;
  }
  if (!replies_.empty()) {
    const uint64_t before = replies_.sent_bytes();
    if (replies_.send(*transport_) == ReplyQueue::Sent::kClosed) {
      lose("the client closed the connection");
      return;
    }
    bytes_moved_ += replies_.sent_bytes() - before;
  }
  update_interest();
  watch_slowness();
  maybe_end();
}

void Session::schedule_send() {
  if (processing_ || send_scheduled_ || state_ == State::kLost) return;
  send_scheduled_ = true;
  loop_.defer(send_work_);
}

void Session::update_interest() {
  const bool reading = state_ == State::kHandshake || state_ == State::kTransmission;
  transport_->want(reading && !paused_, !replies_.empty());
}

void Session::on_writable() {
  send_replies();
  resume();
}

void Session::on_hang_up() {
  lose("the connection was reset");
}

bool Session::is_gone() {
  return state_ == State::kLost || (options_.drop_when_hung_up && transport_->is_hung_up());
}

void Session::stop() {
  if (state_ == State::kDraining || state_ == State::kLost) return;
  state_ = State::kDraining;
  drop_incoming();
  leftover_ = {};
  send_replies();
}

void Session::abort(std::string_view why) {
  lose(why);
}

void Session::lose(std::string_view why) {
  if (state_ == State::kLost) return;
  if (in_flight_ > 0 || incoming_.active || !replies_.empty()) {
    log::debug("{}: {}, with {} requests unanswered", options_.peer, why,
               in_flight_ + replies_.size() + (incoming_.active ? 1 : 0));
  }
  state_ = State::kLost;
  drop_incoming();
  leftover_ = {};
  replies_.clear();
  transport_->close();
  if (!std::exchange(lost_reported_, true)) owner_.connection_lost(*this);
  maybe_end();
}

void Session::drop_incoming() {
  if (loan_.held) settle_direct();
  incoming_ = Incoming();
}

/// Gives up what it waits for and what it has been granted and no longer needs.
void Session::leave_budget() {
  Budget& budget = context_.buffers.budget();
  if (waiting_for_budget_ && budget.stop_waiting(waiter_)) waiting_for_budget_ = false;
  if (paid_ > 0) budget.give(std::exchange(paid_, 0));
}

void Session::maybe_end() {
  if ((state_ != State::kDraining && state_ != State::kLost) || processing_ || end_posted_) return;
  leave_budget();
  if (waiting_for_budget_) return;  // on_budget_granted() is on its way
  if (loan_work_queued_) return;    // on_loan_wanted() likewise
  if (in_flight_ > 0 || (state_ == State::kDraining && !replies_.empty())) return;
  end_posted_ = true;
  loop_.post(end_work_);
}

void Session::end() {
  disarm(handshake_timer_);
  disarm(slow_timer_);
  // A deferred send or a timer that has fired may be queued behind this, in the same round; they
  // must find the session alive.
  if (send_scheduled_ || timers_ > 0) {
    loop_.post(end_work_);
    return;
  }
  transport_->close();
  if (!std::exchange(lost_reported_, true)) owner_.connection_lost(*this);
  owner_.session_ended(*this);
}

void Session::arm(Timer& timer, Nanos delay) {
  timer.deadline = loop_.now() + delay;
  loop_.arm(timer);
  ++timers_;
}

void Session::disarm(Timer& timer) {
  if (timer.slot == 0) return;
  loop_.disarm(timer);
  --timers_;
}

void Session::on_handshake_timeout() {
  --timers_;
  if (state_ != State::kHandshake) return;
  log::info("{}: no export was chosen within {} s: closing", options_.peer,
            limits::kHandshakeTimeout.count());
  lose("handshake timeout");
}

void Session::on_budget_granted() {
  waiting_for_budget_ = false;
  paid_ = waiter_.bytes;
  if (state_ == State::kDraining || state_ == State::kLost) {
    maybe_end();
  } else {
    resume();
  }
}

/// Whether its client keeps it from giving back what others may be waiting for.
bool Session::client_holds_shared() const {
  return loan_overdue_ || replies_.shared_bytes() > 0 ||
         (incoming_.active && incoming_.lease.is_shared());
}

/// How many others it may be holding up.
size_t Session::others_waiting() const {
  const size_t waiting = context_.buffers.budget().waiting() + (loan_overdue_ ? 1 : 0);
  // It may be one of them itself: with another request, for another buffer.
  return waiting - std::min<size_t>(waiting, waiting_for_budget_ ? 1 : 0);
}

void Session::watch_slowness() {
  if (state_ == State::kLost || !client_holds_shared()) {
    slow_watch_ = false;  // the timer runs out by itself
    return;
  }
  if (!std::exchange(slow_watch_, true)) {
    others_waited_ = others_waiting() > 0;
    begin_slow_watch();
  }
  if (slow_timer_.slot == 0) arm(slow_timer_, limits::kSlowConnectionGraceMin);
}

void Session::begin_slow_watch() {
  slow_since_ = loop_.now();
  bytes_moved_before_ = bytes_moved_;
}

void Session::close_slow() {
  if (uint64_t held_back = 0; context_.slow_limiter.allow(loop_.now(), held_back)) {
    log::warning(
        "{}: holds what others wait for, and does not keep up: closing ({} such lines held back)",
        options_.peer, held_back);
  }
  lose("too slow");
}

void Session::on_slow_check() {
  --timers_;
  if (state_ == State::kLost || !slow_watch_) return;
  const size_t waiting = others_waiting();
  // Time in which nobody waited is not held against it.
  const bool others_waited = std::exchange(others_waited_, waiting > 0);
  if (!others_waited || bytes_moved_ - bytes_moved_before_ >= limits::kSlowConnectionBytes) {
    begin_slow_watch();
  } else if (waiting > 0 && loop_.now() - slow_since_ >= slow_grace(waiting)) {
    close_slow();
    return;
  }
  watch_slowness();
}

}  // namespace usbd::nbd
