// SPDX-License-Identifier: Apache-2.0
//
// See load_connection.h.

#include "bench/load_connection.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include <sys/socket.h>

#include <fmt/format.h>

namespace usbd::bench {
namespace {

/// Units: bytes. Payloads that do not fit go straight to their buffer.
constexpr size_t kReceiveBufferSize = 256U << 10;
/// Most pieces the kernel takes in one call. Ref: UIO_MAXIOV.
constexpr size_t kPiecesMax = 1024;
constexpr unsigned kSlotBits = 16;
/// How many errors a connection describes; all are counted.
constexpr uint64_t kErrorsShown = 3;

std::byte* as_bytes(nbd::Request& request) {
  return reinterpret_cast<std::byte*>(&request);
}

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

}  // namespace

void LoadCounters::merge(const LoadCounters& other) {
  reads += other.reads;
  writes += other.writes;
  others += other.others;
  bytes += other.bytes;
  errors += other.errors;
  send_calls += other.send_calls;
  receive_calls += other.receive_calls;
  latency.merge(other.latency);
}

LoadConnection::LoadConnection(Socket socket, const LoadConnectionOptions& options,
                               Workload workload, LoadCounters& counters)
    : socket_(std::move(socket)),
      options_(options),
      workload_(std::move(workload)),
      counters_(counters),
      slots_(options.depth),
      receive_buffer_(make_aligned_buffer(kReceiveBufferSize)) {
  for (uint32_t i = options.depth; i > 0; --i) free_slots_.push_back(i - 1);
  headers_.reserve(options.depth);
  unsent_.reserve(2 * size_t{options.depth});
  allocate_buffers();
}

void LoadConnection::allocate_buffers() {
  // Slots share one buffer unless what is in it matters.
  const bool own = options_.verify || options_.data != DataKind::kStatic;
  const size_t block = options_.block_size;
  const size_t total = own ? block * slots_.size() : block;
  payloads_ = make_aligned_buffer(total);
  fill_pattern(MutableBytes(payloads_.get(), total), options_.seed, ~total);
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].buffer = payloads_.get() + (own ? i * block : 0);
  }
}

Result<void> LoadConnection::submit() {
  if (has_unsent()) {
    USBD_TRY_VOID(send_rest());
    if (has_unsent()) return {};
  }
  const uint64_t now = clock_now();
  while (!free_slots_.empty() && !exhausted_) {
    const std::optional<Operation> operation = workload_.next();
    exhausted_ = !operation.has_value();
    if (operation) enqueue(*operation, now);
  }
  return send_rest();
}

void LoadConnection::enqueue(const Operation& operation, uint64_t now) {
  const uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  Slot& slot = slots_[index];
  slot = {.busy = true,
          .generation = slot.generation + 1,
          .started = now,
          .operation = operation,
          .buffer = slot.buffer};

  const bool is_write = operation.command == nbd::Command::kWrite;
  const bool modifies = is_write || operation.command == nbd::Command::kTrim ||
                        operation.command == nbd::Command::kWriteZeroes;
  nbd::Request& header = headers_.emplace_back();
  header.flags = options_.fua && modifies ? nbd::kCmdFlagFua : uint16_t{0};
  header.command = static_cast<uint16_t>(operation.command);
  header.cookie = (slot.generation << kSlotBits) | index;
  header.offset = operation.offset;
  header.length = operation.length;

  // Headers lie one behind the other, so those with no payload between them are one piece.
  iovec* const previous = unsent_.empty() ? nullptr : &unsent_.back();
  if (previous != nullptr &&
      static_cast<std::byte*>(previous->iov_base) + previous->iov_len == as_bytes(header)) {
    previous->iov_len += sizeof(header);
  } else {
    unsent_.push_back({&header, sizeof(header)});
  }
  if (is_write) {
    workload_.prepare(MutableBytes(slot.buffer, operation.length), operation.offset);
    unsent_.push_back({slot.buffer, operation.length});
  }
}

Result<void> LoadConnection::send_rest() {
  while (has_unsent()) {
    msghdr message{};
    message.msg_iov = &unsent_[unsent_first_];
    message.msg_iovlen = std::min(unsent_.size() - unsent_first_, kPiecesMax);
    const ssize_t sent = ::sendmsg(socket_.fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    ++counters_.send_calls;
    if (sent < 0) {
      if (would_block()) return {};
      return Error::from_errno(errno, "cannot send requests");
    }
    advance_unsent(static_cast<size_t>(sent));
  }
  headers_.clear();
  unsent_.clear();
  unsent_first_ = 0;
  return {};
}

void LoadConnection::advance_unsent(size_t sent) {
  while (sent > 0) {
    iovec& piece = unsent_[unsent_first_];
    const size_t taken = std::min(sent, piece.iov_len);
    piece.iov_base = static_cast<std::byte*>(piece.iov_base) + taken;
    piece.iov_len -= taken;
    sent -= taken;
    if (piece.iov_len == 0) ++unsent_first_;
  }
}

bool LoadConnection::receives_directly() const {
  // The last condition keeps an error's endless text out of the slot's buffer.
  return received_ == 0 && incoming_.slot != nullptr && incoming_.left >= kReceiveBufferSize &&
         incoming_.left <= incoming_.slot->operation.length;
}

Result<bool> LoadConnection::receive(Wait wait) {
  std::array<iovec, 2> pieces{};
  msghdr message{};
  message.msg_iov = pieces.data();
  const uint64_t direct = receives_directly() ? incoming_.left : 0;
  if (direct > 0) {
    Slot& slot = *incoming_.slot;
    std::byte* const ignored = slot.buffer + slot.operation.length - incoming_.left;
    pieces[message.msg_iovlen++] = {incoming_.destination ? incoming_.destination : ignored,
                                    direct};
  }
  pieces[message.msg_iovlen++] = {receive_buffer_.get() + received_,
                                  kReceiveBufferSize - received_};

  const ssize_t result = ::recvmsg(socket_.fd(), &message, wait == Wait::kYes ? 0 : MSG_DONTWAIT);
  ++counters_.receive_calls;
  if (result < 0) {
    if (would_block() && wait == Wait::kNo) return false;
    if (errno == EINTR) return false;
    if (would_block()) return Error(Errc::kTimedOut, "the server has stopped answering");
    return Error::from_errno(errno, "cannot receive replies");
  }
  if (result == 0) return Error(Errc::kIo, "the server closed the connection");

  received_at_ = clock_now();
  const auto total = static_cast<uint64_t>(result);
  const uint64_t taken = std::min(total, direct);
  if (taken > 0) advance_payload(taken);
  received_ += total - taken;
  USBD_TRY_VOID(handle_received());
  return true;
}

Result<void> LoadConnection::handle_received() {
  const Bytes all(receive_buffer_.get(), received_);
  size_t used = 0;
  while (true) {
    used += take_payload(all.subspan(used));
    if (incoming_.left > 0) break;
    USBD_TRY(const std::optional<ReplyHeader> header, decode_reply(all.subspan(used)));
    if (!header) break;
    used += header->size;
    USBD_TRY_VOID(begin_reply(*header));
  }
  received_ -= used;
  if (used > 0 && received_ > 0) {
    std::memmove(receive_buffer_.get(), receive_buffer_.get() + used, received_);
  }
  return {};
}

Result<void> LoadConnection::begin_reply(const ReplyHeader& header) {
  USBD_TRY(Slot* const slot, find_slot(header.cookie));
  if (header.error != 0) slot->error = header.error;
  const bool is_read = slot->operation.command == nbd::Command::kRead;
  if (header.simple) {
    const bool has_data = is_read && header.error == 0;
    incoming_ = {.slot = slot,
                 .destination = options_.verify ? slot->buffer : nullptr,
                 .left = has_data ? slot->operation.length : 0,
                 .last = true};
    slot->received = incoming_.left;
  } else {
    USBD_TRY_VOID(check_range(*slot, header));
    const uint64_t at = header.offset - slot->operation.offset;
    const bool keep = options_.verify && header.data_length > 0;
    incoming_ = {.slot = slot,
                 .destination = keep ? slot->buffer + at : nullptr,
                 .left = header.data_length + header.ignored_length,
                 .last = header.last};
    slot->received += header.data_length + header.hole_length;
    if (options_.verify && header.hole_length > 0) {
      std::memset(slot->buffer + at, 0, header.hole_length);
    }
  }
  if (incoming_.left == 0) advance_payload(0);
  return {};
}

Result<LoadConnection::Slot*> LoadConnection::find_slot(uint64_t cookie) {
  const uint64_t index = cookie & ((1U << kSlotBits) - 1);
  if (index >= slots_.size() || !slots_[index].busy ||
      slots_[index].generation != cookie >> kSlotBits) {
    return Error(Errc::kInvalid, fmt::format("a reply has the cookie {:#x}, which is that of no "
                                             "request",
                                             cookie));
  }
  return &slots_[index];
}

Result<void> LoadConnection::check_range(const Slot& slot, const ReplyHeader& header) const {
  const uint64_t length = header.data_length + header.hole_length;
  if (length == 0) return {};
  const ByteRange asked(slot.operation.offset, slot.operation.length);
  const bool inside = slot.operation.command == nbd::Command::kRead &&
                      header.offset >= asked.offset && length <= asked.length &&
                      header.offset - asked.offset <= asked.length - length;
  if (!inside) {
    return Error(Errc::kInvalid, fmt::format("a chunk of {} bytes at {} is not part of what was "
                                             "asked for",
                                             length, header.offset));
  }
  return {};
}

size_t LoadConnection::take_payload(Bytes received) {
  const uint64_t taken = std::min<uint64_t>(incoming_.left, received.size());
  if (taken == 0) return 0;
  if (incoming_.destination != nullptr) {
    std::memcpy(incoming_.destination, received.data(), taken);
  }
  advance_payload(taken);
  return taken;
}

void LoadConnection::advance_payload(uint64_t length) {
  incoming_.left -= length;
  if (incoming_.destination != nullptr) incoming_.destination += length;
  if (incoming_.left > 0) return;
  const Incoming done = std::exchange(incoming_, Incoming{});
  if (done.last) finish(*done.slot);
}

void LoadConnection::finish(Slot& slot) {
  const Operation& operation = slot.operation;
  const bool is_read = operation.command == nbd::Command::kRead;
  const bool wrong = is_read && slot.error == 0 &&
                     (slot.received != operation.length ||
                      (options_.verify && !has_pattern(Bytes(slot.buffer, operation.length),
                                                       options_.seed, operation.offset)));
  if (slot.error != 0 || wrong) {
    if (counters_.errors++ < kErrorsShown) {
      const std::string what =
          wrong ? "wrong data" : fmt::format("the server's error {}", slot.error);
      fmt::print(stderr, "nbdload: {} for command {} at {}, {} bytes\n", what,
                 static_cast<unsigned>(operation.command), operation.offset, operation.length);
    }
  }
  if (counters_.measuring) {
    counters_.latency.add(received_at_ - slot.started);
    counters_.bytes += operation.length;
    ++(is_read                                     ? counters_.reads
       : operation.command == nbd::Command::kWrite ? counters_.writes
                                                   : counters_.others);
  }
  slot.busy = false;
  free_slots_.push_back(static_cast<uint32_t>(&slot - slots_.data()));
}

Result<void> LoadConnection::disconnect() {
  nbd::Request request;
  request.command = static_cast<uint16_t>(nbd::Command::kDisconnect);
  return write_exactly(socket_, wire_bytes(request));
}

}  // namespace usbd::bench
