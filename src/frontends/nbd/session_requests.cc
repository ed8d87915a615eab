// SPDX-License-Identifier: Apache-2.0
//
// Requests of a session: parsed as a batch, claimed as a batch, then done one after the other, in
// place where the device allows it, else by coroutines of the session's scope.

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/log.h"
#include "base/uncached_copy.h"
#include "frontends/nbd/session.h"

namespace usbd::nbd {
namespace {

/// Requests that are parsed before they are done.
constexpr size_t kBatchMax = 256;

/// The flags that each command may carry; FUA may stand anywhere and means nothing on most.
constexpr uint16_t allowed_flags(Command command) {
  switch (command) {
    case Command::kRead:
      return kCmdFlagFua | kCmdFlagDf;
    case Command::kWriteZeroes:
      return kCmdFlagFua | kCmdFlagNoHole | kCmdFlagFastZero;
    case Command::kBlockStatus:
      return kCmdFlagFua | kCmdFlagReqOne;
    default:
      return kCmdFlagFua;
  }
}

std::optional<Op> op_of(Command command) {
  switch (command) {
    case Command::kRead:
      return Op::kRead;
    case Command::kWrite:
      return Op::kWrite;
    case Command::kFlush:
      return Op::kFlush;
    case Command::kTrim:
      return Op::kTrim;
    case Command::kCache:
      return Op::kCache;
    case Command::kWriteZeroes:
      return Op::kWriteZeroes;
    case Command::kBlockStatus:
      return Op::kExtents;
    default:
      return std::nullopt;
  }
}

}  // namespace

bool Session::may_admit() const {
  return in_flight_ + replies_.size() < limits::kRequestsPerConnectionMax &&
         in_flight_bytes_ + replies_.held_bytes() < limits::kBytesPerConnectionMax;
}

MutableBytes Session::requests(MutableBytes data) {
  while (state_ == State::kTransmission && !paused_) {
    bool disconnect = false;
    MutableBytes rest = parse_batch(data, disconnect);
    const size_t parsed = context_.items.size();
    const size_t done = run_batch();
    if (state_ == State::kLost) return {};
    if (done < parsed) {
      pause();
      return data.subspan(context_.items[done].position);
    }
    if (disconnect) {
      state_ = State::kDraining;
      return {};
    }
    if (parsed == 0 || paused_) return rest;
    data = rest;
  }
  return data;
}

/// Parses complete requests into the batch and returns what follows them: nothing, or the start of
/// a request. A write whose payload is not all there becomes the incoming one, once it stands
/// first.
MutableBytes Session::parse_batch(MutableBytes data, bool& disconnect) {
  context_.items.clear();
  size_t position = 0;
  while (context_.items.size() < kBatchMax && parse_one(data, position, disconnect)) {
  }
  return data.subspan(position);
}

/// Parses the request at `position` and moves past it. False: no further one is to be parsed now.
bool Session::parse_one(MutableBytes data, size_t& position, bool& disconnect) {
  if (data.size() - position < sizeof(Request)) return false;
  const size_t waiting = in_flight_ + replies_.size() + context_.items.size();
  if (waiting >= limits::kRequestsPerConnectionMax || !may_admit()) {
    pause();
    return false;
  }
  const auto wire = wire_read<Request>(data.subspan(position));
  const auto command = static_cast<Command>(static_cast<uint16_t>(wire.command));
  if (wire.magic != kRequestMagic) {
    log::warning("{}: sent something that is no request (magic {:#x}): closing", options_.peer,
                 static_cast<uint32_t>(wire.magic));
    state_ = State::kDraining;
  }
  disconnect = wire.magic == kRequestMagic && command == Command::kDisconnect;
  if (disconnect || state_ == State::kDraining) {
    position = data.size();
    return false;
  }
  BatchItem item;
  item.refused = decode(wire, agreement_, item);
  if (item.refused == 0) item.refused = export_->check(item.request);
  item.position = position;
  const size_t body = position + sizeof(Request);
  const Bytes available = data.subspan(body);
  const uint64_t length = command == Command::kWrite ? uint64_t{wire.length} : 0;
  if (length > available.size()) {
    if (take_split(item, length, available)) position = data.size();
    return false;
  }
  item.payload = available.first(static_cast<size_t>(length));
  position = body + static_cast<size_t>(length);
  context_.items.push_back(item);
  return true;
}

/// Takes a write of which only a part is there, `available`. False: not yet.
bool Session::take_split(const BatchItem& item, uint64_t length, Bytes available) {
  if (!context_.items.empty()) return false;  // its turn comes when those before it are done
  if (item.refused != 0) {
    skip_ = length - available.size();
    skipped_ = item;
    return true;
  }
  if (begin_incoming(item, available)) return true;
  if (state_ == State::kTransmission) pause();
  return false;
}

int Session::decode(const Request& wire, const Agreement& agreement, BatchItem& item) {
  const auto command = static_cast<Command>(static_cast<uint16_t>(wire.command));
  const uint16_t flags = wire.flags;
  item.cookie = wire.cookie;
  item.request.range = ByteRange(wire.offset, wire.length);
  const std::optional<Op> op = op_of(command);
  if (!op) return EINVAL;
  item.request.op = *op;
  item.request.fua = (flags & kCmdFlagFua) != 0;
  item.request.no_hole = (flags & kCmdFlagNoHole) != 0;
  item.request.fast_only = (flags & kCmdFlagFastZero) != 0;
  item.request_one = (flags & kCmdFlagReqOne) != 0;
  if ((flags & ~allowed_flags(command)) != 0) return EINVAL;
  if ((flags & kCmdFlagDf) != 0 && !agreement.structured_replies) return EINVAL;
  if (item.request.fast_only && (agreement.transmission_flags & kTransmitFastZero) == 0) {
    return EINVAL;
  }
  if (*op == Op::kExtents && !agreement.base_allocation) return EINVAL;
  if (*op == Op::kFlush && (wire.offset != 0 || wire.length != 0)) return EINVAL;
  return 0;
}

void Session::claim_batch() {
  context_.claims.clear();
  for (BatchItem& item : context_.items) {
    if (item.refused != 0 || !Export::changes(item.request.op)) continue;
    const ByteRange range = export_->claim_of(item.request);
    if (range.empty()) continue;
    item.claim = context_.claims.size();
    context_.claims.push_back({.range = range});
  }
  if (!context_.claims.empty()) export_->locks().try_acquire(context_.claims);
}

size_t Session::run_batch() {
  std::vector<BatchItem>& items = context_.items;
  if (items.empty()) return 0;
  claim_batch();
  size_t index = 0;
  // Claimed first, then asked: see session.h.
  if (!context_.claims.empty() && options_.drop_when_hung_up && transport_->is_hung_up()) {
    export_->locks().release(context_.claims);
    lose("the kernel gave the socket up");
    return 0;
  }
  while (index < items.size() && run_item(items[index])) ++index;
  if (!context_.claims.empty()) export_->locks().release(context_.claims);
  return index;
}

bool Session::run_item(BatchItem& item) {
  if (item.refused != 0) {
    refuse(item);
    return true;
  }
  switch (item.request.op) {
    case Op::kRead:
      return run_read(item);
    case Op::kWrite:
      return run_write(item);
    case Op::kExtents:
      return run_extents(item);
    default:
      run_other(item);
      return true;
  }
}

void Session::refuse(const BatchItem& item) {
  stats_->record_error(item.request.op, Nanos(0));
  reply_status(item, item.refused);
}

/// Throws away what is left of a refused write's payload, and answers the write after it.
MutableBytes Session::skip(MutableBytes data) {
  if (skip_ == 0) return data;
  const auto part = static_cast<size_t>(std::min<uint64_t>(skip_, data.size()));
  skip_ -= part;
  if (skip_ == 0 && state_ == State::kTransmission) refuse(skipped_);
  return data.subspan(part);
}

/// Whether the item's range is claimed; the claim is then the item's, not the batch's.
bool Session::take_claim(BatchItem& item) {
  return item.claim != BatchItem::kNoClaim &&
         std::exchange(context_.claims[item.claim].held, false);
}

BufferPool::Lease Session::lease(size_t length) {
  BufferPool& buffers = context_.buffers;
  const uint64_t cost = BufferPool::cost(length);
  if (paid_ > 0) {
    const uint64_t paid = std::exchange(paid_, 0);
    if (paid == cost) return buffers.lease_paid(length);
    buffers.budget().give(paid);
  }
  if (!may_admit()) return {};
  if (reserve_used_ + cost <= owner_.receive_size()) {
    return buffers.lease_reserved(length, reserve_used_);
  }
  BufferPool::Lease result = buffers.try_lease(length);
  if (result) return result;
  if (reserve_used_ > 0 && cost <= owner_.receive_size()) {
    reserve_wanted_ = cost;  // its own requests give that back, whatever others do
    return {};
  }
  waiter_.bytes = cost;
  if (buffers.budget().take_or_wait(waiter_)) return buffers.lease_paid(length);
  waiting_for_budget_ = true;
  return {};
}

bool Session::run_read(BatchItem& item) {
  const ByteRange range = item.request.range;
  const MutableBytes memory = export_->direct(range);
  if (!memory.empty()) {
    reply_read(item, memory, {});
    done(item, range.length);
    return true;
  }
  BufferPool::Lease buffer = lease(range.length);
  if (!buffer) return false;
  const std::optional<Result<void>> result = export_->try_read(range, buffer.bytes());
  if (!result) {
    scope_.spawn(serve_read(item, std::move(buffer)));
  } else if (*result) {
    const Bytes data = buffer.bytes();
    reply_read(item, data, std::move(buffer));
    done(item, range.length);
  } else {
    failed(item, result->error());
  }
  return true;
}

bool Session::run_write(BatchItem& item) {
  const bool held = item.claim != BatchItem::kNoClaim && context_.claims[item.claim].held;
  return run_write_with(item, held, {});
}

/// `buffer`: holds the payload, or is empty: the payload lies in what was received.
bool Session::run_write_with(BatchItem& item, bool held, BufferPool::Lease buffer) {
  if (held) {
    const MutableBytes memory = export_->direct_for(item.request);
    if (!memory.empty()) {
      copy_uncached(memory, item.payload);
      export_->device().direct_written(item.request.range);
      reply_status(item, 0);
      done(item, item.request.range.length);
      return true;
    }
    const std::optional<Result<void>> result = export_->try_write(item.request, item.payload);
    if (result) {
      if (*result) {
        reply_status(item, 0);
        done(item, item.request.range.length);
      } else {
        failed(item, result->error());
      }
      return true;
    }
  }
  if (!buffer) {
    buffer = lease(item.payload.size());
    if (!buffer) return false;
    std::memcpy(buffer.bytes().data(), item.payload.data(), item.payload.size());
    item.payload = buffer.bytes();
  }
  const bool claimed = take_claim(item);
  scope_.spawn(serve_change(item, std::move(buffer), claimed));
  return true;
}

bool Session::run_extents(BatchItem& item) {
  const size_t extents_max = item.request_one ? 1 : limits::kExtentsPerReplyMax;
  BufferPool::Lease buffer = lease(extents_max * sizeof(BlockStatusExtent));
  if (!buffer) return false;
  scope_.spawn(serve_extents(item, std::move(buffer)));
  return true;
}

void Session::run_other(BatchItem& item) {
  if (item.request.op == Op::kFlush) {
    const std::optional<Result<void>> result = export_->try_flush();
    if (result && *result) {
      reply_status(item, 0);
      done(item, 0);
    } else if (result) {
      failed(item, result->error());
    } else {
      scope_.spawn(serve_other(item));
    }
  } else if (item.request.op == Op::kCache) {
    scope_.spawn(serve_other(item));
  } else {
    const bool claimed = take_claim(item);
    scope_.spawn(serve_change(item, {}, claimed));
  }
}

/// Decides where the payload of `item` goes. False: there is no buffer now, or the session is lost.
bool Session::choose_target(const BatchItem& item) {
  incoming_.item = item;
  if (item.request.range.length >= limits::kDirectReceiveMin && !loan_work_queued_) {
    const MutableBytes memory = export_->direct_for(item.request);
    if (!memory.empty() && take_loan(export_->claim_of(item.request))) {
      incoming_.target = memory;
      return true;
    }
    if (state_ == State::kLost) return false;
  }
  incoming_.lease = lease(item.request.range.length);
  if (!incoming_.lease) return false;
  incoming_.target = incoming_.lease.bytes();
  return true;
}

/// Borrows the range of a write that is to be received in place. False: another holds or wants it,
/// or the session is lost.
bool Session::take_loan(ByteRange range) {
  loan_.range = range;
  loan_asked_ = loan_overdue_ = false;
  export_->locks().try_acquire(loan_);
  if (!loan_.held) return false;
  if (options_.drop_when_hung_up && transport_->is_hung_up()) {
    give_loan_back();
    lose("the kernel gave the socket up");
    return false;
  }
  return true;
}

void Session::give_loan_back() {
  const bool asked = export_->locks().give_back(loan_);
  loan_work_queued_ = asked && !loan_asked_;
  loan_overdue_ = false;
}

/// Another change waits for the range that the incoming write is received into.
void Session::on_loan_wanted() {
  if (std::exchange(loan_work_queued_, false)) {  // it has been given back meanwhile
    maybe_end();
    return;
  }
  loan_asked_ = true;
  loan_overdue_ = !move_incoming_aside();
  watch_slowness();
}

/// Continues in a buffer with a write that is being received in place. False: there is no buffer.
bool Session::move_incoming_aside() {
  BufferPool::Lease buffer = context_.buffers.try_lease(incoming_.target.size());
  if (!buffer) return false;
  std::memcpy(buffer.bytes().data(), incoming_.target.data(), incoming_.received);
  settle_direct();
  incoming_.target = buffer.bytes();
  incoming_.lease = std::move(buffer);
  return true;
}

/// Tells the device what has been received in place, and gives the range back.
void Session::settle_direct() {
  const ByteRange range(incoming_.item.request.range.offset, incoming_.received);
  if (!range.empty()) export_->device().direct_written(range);
  give_loan_back();
}

bool Session::begin_incoming(const BatchItem& item, Bytes available) {
  incoming_ = Incoming();
  if (!choose_target(item)) return false;
  incoming_.active = true;
  std::memcpy(incoming_.target.data(), available.data(), available.size());
  incoming_.received = available.size();
  return true;
}

/// Takes what belongs to the incoming write from `data`, and does the write once it is complete.
MutableBytes Session::continue_incoming(MutableBytes data) {
  if (!incoming_.active) return data;
  const size_t part = std::min(incoming_.rest().size(), data.size());
  std::memcpy(incoming_.rest().data(), data.data(), part);
  incoming_.received += part;
  if (incoming_.rest().empty()) finish_incoming();
  return data.subspan(part);
}

void Session::finish_incoming() {
  const bool in_place = loan_.held;
  if (in_place) settle_direct();
  Incoming whole = std::exchange(incoming_, Incoming());
  BatchItem& item = whole.item;
  if (in_place) {
    reply_status(item, 0);
    done(item, item.request.range.length);
    return;
  }
  item.payload = whole.lease.bytes();
  context_.items.assign(1, item);
  claim_batch();
  if (options_.drop_when_hung_up && transport_->is_hung_up()) {
    export_->locks().release(context_.claims);
    lose("the kernel gave the socket up");
    return;
  }
  BatchItem& claimed = context_.items.front();
  const bool held = claimed.claim != BatchItem::kNoClaim && context_.claims.front().held;
  [[maybe_unused]] const bool started = run_write_with(claimed, held, std::move(whole.lease));
  USBD_ASSERT(started);
  export_->locks().release(context_.claims);
}

Task<void> Session::serve_read(BatchItem item, BufferPool::Lease buffer) {
  const Nanos start = batch_start_;
  const uint64_t length = item.request.range.length;
  ++in_flight_;
  in_flight_bytes_ += length;
  stats_->started(1);
  const Result<void> result = co_await export_->read(item.request.range, buffer.bytes());
  in_flight_bytes_ -= length;
  if (result && state_ != State::kLost) {
    const Bytes data = buffer.bytes();
    reply_read(item, data, std::move(buffer));
  } else {
    buffer.reset();
  }
  finish_async(item, result, start);
}

Task<void> Session::serve_change(BatchItem item, BufferPool::Lease buffer, bool claimed) {
  const Nanos start = batch_start_;
  const uint64_t held = item.payload.size();
  ++in_flight_;
  in_flight_bytes_ += held;
  stats_->started(1);
  Requester& requester = *this;
  const Result<void> result =
      co_await export_->change(item.request, item.payload, claimed, requester);
  in_flight_bytes_ -= held;
  buffer.reset();
  if (result) reply_status(item, 0);
  finish_async(item, result, start);
}

Task<void> Session::serve_other(BatchItem item) {
  const Nanos start = batch_start_;
  ++in_flight_;
  stats_->started(1);
  Result<void> result;
  if (item.request.op == Op::kFlush) {
    result = co_await export_->flush();
  } else {
    result = co_await export_->cache(item.request.range);
  }
  if (result) reply_status(item, 0);
  finish_async(item, result, start);
}

/// `buffer`: for the answer, as large as it may become.
Task<void> Session::serve_extents(BatchItem item, BufferPool::Lease buffer) {
  const Nanos start = batch_start_;
  const uint64_t held = buffer.bytes().size();
  ++in_flight_;
  in_flight_bytes_ += held;
  stats_->started(1);
  const size_t extents_max = held / sizeof(BlockStatusExtent);
  const Result<std::vector<Extent>> extents =
      co_await export_->extents(item.request.range, extents_max);
  in_flight_bytes_ -= held;
  const Result<void> result = extents ? Result<void>() : Result<void>(extents.error());
  if (extents && state_ != State::kLost) {
    size_t length = 0;
    for (const Extent& extent : *extents) {
      const uint32_t flags = (extent.hole ? kStateHole : 0U) | (extent.zero ? kStateZero : 0U);
      const BlockStatusExtent entry{.length = static_cast<uint32_t>(extent.length), .flags = flags};
      std::memcpy(buffer.bytes().subspan(length).data(), &entry, sizeof entry);
      length += sizeof entry;
    }
    const Bytes list = buffer.bytes().first(length);
    replies_.status_chunk(item.cookie, kBaseAllocationId, list, std::move(buffer));
  } else {
    buffer.reset();
  }
  finish_async(item, result, start);
}

void Session::finish_async(const BatchItem& item, const Result<void>& result, Nanos start) {
  const Nanos now = loop_.now();
  --in_flight_;
  stats_->finished(1);
  if (result) {
    const bool moves = item.request.op != Op::kFlush && item.request.op != Op::kExtents;
    stats_->record(item.request.op, 1, moves ? item.request.range.length : 0, now - start);
  } else if (!result.error().is(Errc::kCanceled)) {  // nobody waits for a dropped one
    stats_->record_error(item.request.op, now - start);
    export_->log_failure(item.request.op, item.request.range, result.error(), now);
    reply_status(item, result.error().number());
  }
  schedule_send();
  maybe_end();
}

void Session::done(const BatchItem& item, uint64_t bytes) {
  Tally& tally = tally_[static_cast<size_t>(item.request.op)];
  ++tally.operations;
  tally.bytes += bytes;
  tallied_ = true;
}

void Session::flush_tally() {
  if (!std::exchange(tallied_, false)) return;
  const Nanos latency = loop_.now() - batch_start_;
  for (size_t op = 0; op < kOps; ++op) {
    Tally& tally = tally_[op];
    if (tally.operations == 0) continue;
    stats_->record(static_cast<Op>(op), tally.operations, tally.bytes, latency);
    tally = Tally();
  }
}

void Session::failed(const BatchItem& item, const Error& error) {
  stats_->record_error(item.request.op, Nanos(0));
  export_->log_failure(item.request.op, item.request.range, error, batch_start_);
  reply_status(item, error.number());
}

void Session::reply_status(const BatchItem& item, int error) {
  if (state_ == State::kLost) return;
  const WireError wire = error == 0 ? WireError::kNone : wire_error(error);
  if (error != 0 && agreement_.structured_replies) {
    replies_.error_chunk(item.cookie, wire);
  } else {
    replies_.simple(item.cookie, wire);
  }
}

void Session::reply_read(const BatchItem& item, Bytes data, BufferPool::Lease owner) {
  if (agreement_.structured_replies) {
    replies_.data_chunk(item.cookie, item.request.range.offset, data, std::move(owner));
  } else {
    replies_.simple_data(item.cookie, data, std::move(owner));
  }
}

}  // namespace usbd::nbd
