// SPDX-License-Identifier: Apache-2.0
//
// Session: one NBD connection from its first byte to its last, on one loop. It receives into a
// buffer that all connections of the loop share, parses every request that is there, does what can
// be done at once, starts coroutines for the rest, and sends all replies of a round together.
//
// What a session may hold is bounded: requests and payload bytes per connection, payload bytes of
// all together (Budget), and what it has received but may not start yet (one receive's worth). At a
// bound it stops reading its socket; other connections do not notice. A client that keeps buffers
// others wait for, since it does not read or stops in the middle of a write, is closed, the sooner
// the more wait (docs/adr/0009-shared-buffers.md).
//
// Ghost writes. A kernel that gives up a socket (its timeout) sends the requests again on another,
// while their first copies may still lie unread in ours. So for a kernel's sockets (Options::
// drop_when_hung_up) changes are claimed first, then the socket is asked whether its end was given
// up, and only then are they done: a copy that was sent again is either seen to be dead here, or
// claimed before the second copy, which then waits for it and repeats it. Tested in
// session_in_place_test.cc.
//
// Large writes into a device's own memory are received in place, under a loan of their range
// (RangeLocks::Loan). When another change wants the range, what has come is moved aside into a
// buffer and the range is given back; the write is then done as a whole later. So a client that
// stops in the middle of a payload holds nobody up.
//
// Ref: NBD protocol, "Transmission".

#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "base/limits.h"
#include "base/log.h"
#include "core/buffer_pool.h"
#include "core/export.h"
#include "frontends/nbd/negotiation.h"
#include "frontends/nbd/reply_queue.h"
#include "frontends/nbd/transport.h"

namespace usbd::nbd {

/// The exports a session can enter; describe() and at() agree on the index.
class ExportTable : public ExportDirectory {
 public:
  [[nodiscard]] virtual Export& at(size_t index) const = 0;
};

/// One request of a batch: where it lies in what was received, and what it was decoded to.
struct BatchItem {
  static constexpr size_t kNoClaim = ~size_t{0};

  usbd::Request request;
  uint64_t cookie = 0;
  /// The errno value it is refused with; 0: it may be done.
  int refused = 0;
  bool request_one = false;
  /// Where its header begins, in what is being processed.
  size_t position = 0;
  Bytes payload;
  size_t claim = kNoClaim;
};

/// What the sessions of one loop share. Threads: the loop's.
struct LoopContext {
  LoopContext(Loop& l, unsigned i, Budget& budget)
      : loop(l),
        index(i),
        buffers(budget),
        receive_buffer(limits::kReceiveBufferBytes + kHeadroom) {}

  /// Room before the receive buffer for the start of a header that came with the bytes before.
  static constexpr size_t kHeadroom = 64;

  Loop& loop;
  const unsigned index;
  BufferPool buffers;
  AlignedBuffer receive_buffer;
  std::vector<BatchItem> items;
  std::vector<RangeLocks::Claim> claims;
  /// Of what is logged of slow clients.
  log::Limiter slow_limiter;
};

// NOLINTNEXTLINE(cppcoreguidelines-virtual-class-destructor): its definition, below, is final
class Session;

/// Whoever keeps sessions. Threads: the session's loop.
class SessionOwner {
 public:
  /// The handshake is over.
  virtual void handshake_done(Session& session) = 0;
  /// The other end is gone; requests of it may still be running. Called at most once.
  virtual void connection_lost(Session& session) = 0;
  /// Nothing runs any more: the owner destroys the session. The last call.
  virtual void session_ended(Session& session) = 0;
  /// How much one receive may take now. Units: bytes; at most limits::kReceiveBufferBytes.
  virtual size_t receive_size() = 0;

 protected:
  ~SessionOwner() = default;
};

/// Threads: its loop's.
class Session final : private TransportUser, private Requester {
 public:
  struct Options {
    /// For a kernel's sockets: see above.
    bool drop_when_hung_up = false;
    /// For logs: "unix client 12", "kernel socket 0 of /dev/nbd3".
    std::string peer;
  };

  /// Lifetime: everything outlives the session.
  Session(LoopContext& context, std::unique_ptr<Transport> transport, const ExportTable& exports,
          SessionOwner& owner, Options options);
  ~Session();

  /// Begins with the handshake. After an error the session is destroyed, nothing else is called.
  Result<void> start();
  /// Begins with transmission: both sides know already what they would negotiate.
  Result<void> start_transmission(Agreement agreement);
  /// Takes no further request; ends once what runs is done and answered.
  void stop();
  /// Ends without sending what is not sent; requests that run are still waited for.
  void abort(std::string_view why);

  [[nodiscard]] const std::string& peer() const { return options_.peer; }
  [[nodiscard]] bool in_handshake() const { return state_ == State::kHandshake; }

 private:
  enum class State : uint8_t { kHandshake, kTransmission, kDraining, kLost };

  template <void (Session::*kMethod)()>
  struct MethodWork final : Work {
    explicit MethodWork(Session& s) : session(s) {
      run = [](Work& work) { (static_cast<MethodWork&>(work).session.*kMethod)(); };
    }
    Session& session;
  };

  /// A write whose payload has not all come.
  struct Incoming {
    bool active = false;
    BatchItem item;
    MutableBytes target;
    size_t received = 0;
    BufferPool::Lease lease;
    [[nodiscard]] MutableBytes rest() const { return target.subspan(received); }
  };

  // TransportUser, Requester
  void on_readable() override;
  void on_writable() override;
  void on_hang_up() override;
  [[nodiscard]] bool is_gone() override;

  // session.cc: receiving, the handshake, pausing, ending
  Result<void> open();
  bool receive_once();
  void process(MutableBytes data);
  MutableBytes take_stash(MutableBytes data);
  MutableBytes handshake(MutableBytes data);
  void keep(MutableBytes data);
  void pause() { paused_ = true; }
  [[nodiscard]] bool may_go_on() const;
  void resume();
  void go_on();
  void send_replies();
  void schedule_send();
  void update_interest();
  void lose(std::string_view why);
  void leave_budget();
  void maybe_end();
  void end();
  void arm(Timer& timer, Nanos delay);
  void disarm(Timer& timer);
  void on_handshake_timeout();
  void on_budget_granted();
  void on_slow_check();
  void watch_slowness();
  void begin_slow_watch();
  void close_slow();
  [[nodiscard]] bool client_holds_shared() const;
  [[nodiscard]] size_t others_waiting() const;

  // session_requests.cc: parsing and doing requests
  MutableBytes requests(MutableBytes data);
  MutableBytes parse_batch(MutableBytes data, bool& disconnect);
  bool parse_one(MutableBytes data, size_t& position, bool& disconnect);
  bool take_split(const BatchItem& item, uint64_t length, Bytes available);
  [[nodiscard]] bool may_admit() const;
  static int decode(const Request& wire, const Agreement& agreement, BatchItem& item);
  size_t run_batch();
  void claim_batch();
  bool run_item(BatchItem& item);
  bool run_read(BatchItem& item);
  bool run_write(BatchItem& item);
  bool run_write_with(BatchItem& item, bool held, BufferPool::Lease lease);
  bool run_extents(BatchItem& item);
  void run_other(BatchItem& item);
  void refuse(const BatchItem& item);
  MutableBytes skip(MutableBytes data);
  bool take_claim(BatchItem& item);
  BufferPool::Lease lease(size_t length);
  bool begin_incoming(const BatchItem& item, Bytes available);
  bool choose_target(const BatchItem& item);
  MutableBytes continue_incoming(MutableBytes data);
  void finish_incoming();
  void drop_incoming();
  bool take_loan(ByteRange range);
  void give_loan_back();
  void on_loan_wanted();
  bool move_incoming_aside();
  void settle_direct();

  Task<void> serve_read(BatchItem item, BufferPool::Lease lease);
  Task<void> serve_change(BatchItem item, BufferPool::Lease lease, bool claimed);
  Task<void> serve_other(BatchItem item);
  Task<void> serve_extents(BatchItem item, BufferPool::Lease lease);
  void done(const BatchItem& item, uint64_t bytes);
  void failed(const BatchItem& item, const Error& error);
  void finish_async(const BatchItem& item, const Result<void>& result, Nanos start);
  void reply_status(const BatchItem& item, int error);
  void reply_read(const BatchItem& item, Bytes data, BufferPool::Lease lease);
  void flush_tally();

  LoopContext& context_;
  Loop& loop_;
  std::unique_ptr<Transport> transport_;
  const ExportTable& exports_;
  SessionOwner& owner_;
  const Options options_;

  State state_ = State::kHandshake;
  std::unique_ptr<Negotiation> negotiation_;
  Agreement agreement_;
  Export* export_ = nullptr;
  LoopStats* stats_ = nullptr;

  /// The start of a header whose rest has not come.
  std::array<std::byte, sizeof(Request)> stash_;
  size_t stash_length_ = 0;
  /// Received, and not to be started yet.
  std::vector<std::byte> leftover_;
  /// Payload bytes of a refused write that are thrown away; it is answered after them, since a
  /// client may not look for answers before it has sent all.
  uint64_t skip_ = 0;
  BatchItem skipped_;
  /// Buffers that do not come from the budget: at most one receive's worth, so that a connection
  /// with small requests goes on whatever others hold. Units: bytes.
  uint64_t reserve_used_ = 0;
  /// What the first request that waits needs of it; 0: none waits for the reserve.
  uint64_t reserve_wanted_ = 0;
  Incoming incoming_;
  /// The range of an incoming write that is received in place.
  RangeLocks::Loan loan_;
  /// Whether another waits for it, and there was no buffer to move what has come into.
  bool loan_overdue_ = false;
  /// Whether loan_wanted_work_ has run for the present loan.
  bool loan_asked_ = false;
  /// Whether loan_wanted_work_ is queued for a loan that has been given back meanwhile.
  bool loan_work_queued_ = false;

  bool paused_ = false;
  bool processing_ = false;
  /// Whether send_work_ is in the loop's queue.
  bool send_scheduled_ = false;
  bool lost_reported_ = false;
  bool end_posted_ = false;
  bool waiting_for_budget_ = false;
  uint64_t paid_ = 0;

  size_t in_flight_ = 0;
  uint64_t in_flight_bytes_ = 0;
  Nanos batch_start_{0};
  struct Tally {
    uint64_t operations = 0;
    uint64_t bytes = 0;
  };
  std::array<Tally, kOps> tally_{};
  bool tallied_ = false;
  uint64_t bytes_moved_ = 0;
  /// Whether the client holds what others may be waiting for, whether anybody waited when that was
  /// looked at last, since when it has been too slow for them, and what it had moved until then.
  bool slow_watch_ = false;
  bool others_waited_ = false;
  Nanos slow_since_{0};
  uint64_t bytes_moved_before_ = 0;

  ReplyQueue replies_;
  Scope scope_;
  Budget::Waiter waiter_;
  Timer handshake_timer_;
  Timer slow_timer_;
  /// Timers that are armed, or have fired and whose work has not run.
  unsigned timers_ = 0;
  MethodWork<&Session::go_on> send_work_{*this};
  MethodWork<&Session::end> end_work_{*this};
  MethodWork<&Session::on_budget_granted> granted_work_{*this};
  MethodWork<&Session::on_handshake_timeout> handshake_timeout_work_{*this};
  MethodWork<&Session::on_slow_check> slow_work_{*this};
  MethodWork<&Session::on_loan_wanted> loan_wanted_work_{*this};
};

}  // namespace usbd::nbd
