// SPDX-License-Identifier: Apache-2.0
//
// See bare_session.h.

#include "bench/bare_session.h"

#include <algorithm>
#include <cstring>

#include <sys/socket.h>

#include <fmt/format.h>

#include "bench/nbd_handshake.h"

namespace usbd::bench {
namespace {

/// Most pieces the kernel takes in one call. Ref: UIO_MAXIOV.
constexpr size_t kPiecesMax = 1024;

/// Moves `pieces` past `sent` bytes; returns how many of them are done with.
size_t advance(std::span<iovec> pieces, size_t sent) {
  size_t done = 0;
  while (sent > 0) {
    iovec& piece = pieces[done];
    const size_t taken = std::min(sent, piece.iov_len);
    piece.iov_base = static_cast<std::byte*>(piece.iov_base) + taken;
    piece.iov_len -= taken;
    sent -= taken;
    if (piece.iov_len == 0) ++done;
  }
  return done;
}

}  // namespace

BareSession::BareSession(Socket socket, MutableBytes memory, const BareOptions& options)
    : socket_(std::move(socket)),
      memory_(memory),
      options_(options),
      buffer_(make_aligned_buffer(options.receive_buffer)),
      batch_(std::make_unique<Batch>()) {}

Result<void> BareSession::run() {
  USBD_TRY(const bool serving, accept_client(socket_, memory_.size()));
  return serving ? serve() : Result<void>();
}

Result<void> BareSession::serve() {
  while (!leaving_) {
    USBD_TRY_VOID(receive());
    take_partial_write();
    bool full = true;
    while (full) {
      USBD_TRY_VOID(handle_requests());
      full = batch_->header_count == kBatchMax;
      USBD_TRY_VOID(send_batch());
    }
  }
  return {};
}

Result<void> BareSession::receive() {
  std::array<iovec, 2> pieces{};
  msghdr message{};
  message.msg_iov = pieces.data();
  size_t room = options_.receive_buffer - received_;
  size_t direct = 0;
  if (received_ == 0 && partial_.missing.size() >= options_.direct_min) {
    direct = partial_.missing.size();
    room = std::min(room, options_.lookahead);
    pieces[message.msg_iovlen++] = {partial_.missing.data(), direct};
  }
  pieces[message.msg_iovlen++] = {buffer_.get() + received_, room};

  const ssize_t result = ::recvmsg(socket_.fd(), &message, 0);
  if (result < 0) return Error::from_errno(errno, "cannot receive");
  if (result == 0) return Error(Errc::kIo, "the client left without saying so");
  const auto total = static_cast<size_t>(result);
  const size_t placed = std::min(total, direct);
  partial_.missing = partial_.missing.subspan(placed);
  received_ += total - placed;
  if (placed > 0 && partial_.missing.empty()) reply(partial_.cookie, nbd::WireError::kNone, {});
  return {};
}

void BareSession::take_partial_write() {
  const size_t taken = std::min(partial_.missing.size(), received_);
  if (taken == 0) return;
  if (!options_.discard) std::memcpy(partial_.missing.data(), buffer_.get(), taken);
  partial_.missing = partial_.missing.subspan(taken);
  received_ -= taken;
  std::memmove(buffer_.get(), buffer_.get() + taken, received_);
  if (partial_.missing.empty()) reply(partial_.cookie, nbd::WireError::kNone, {});
}

Result<void> BareSession::handle_requests() {
  const Bytes all(buffer_.get(), received_);
  size_t used = 0;
  while (all.size() - used >= sizeof(nbd::Request) && batch_->header_count < kBatchMax &&
         partial_.missing.empty() && !leaving_) {
    // Read in place: a copy on the stack would wait for the stores of the payload copied before.
    const auto& request = *reinterpret_cast<const nbd::Request*>(all.data() + used);
    used += sizeof(request);
    USBD_TRY(const size_t payload, handle_request(request, all.subspan(used)));
    used += payload;
  }
  received_ -= used;
  if (used > 0 && received_ > 0) std::memmove(buffer_.get(), buffer_.get() + used, received_);
  return {};
}

Result<size_t> BareSession::handle_request(const nbd::Request& request, Bytes following) {
  const uint64_t offset = request.offset;
  const uint32_t length = request.length;
  if (request.magic != nbd::kRequestMagic || offset > memory_.size() ||
      length > memory_.size() - offset) {
    return Error(Errc::kInvalid, fmt::format("request {:#010x} for {} bytes at {}",
                                             uint32_t{request.magic}, length, offset));
  }
  const MutableBytes target = memory_.subspan(offset, length);
  switch (static_cast<nbd::Command>(uint16_t{request.command})) {
    case nbd::Command::kRead:
      reply(request.cookie, nbd::WireError::kNone, target);
      return size_t{0};
    case nbd::Command::kWrite:
      return handle_write(request, target, following);
    case nbd::Command::kTrim:
    case nbd::Command::kWriteZeroes:
      std::memset(target.data(), 0, target.size());
      [[fallthrough]];
    case nbd::Command::kFlush:
      reply(request.cookie, nbd::WireError::kNone, {});
      return size_t{0};
    case nbd::Command::kDisconnect:
      leaving_ = true;
      return size_t{0};
    default:
      reply(request.cookie, nbd::WireError::kInvalid, {});
      return size_t{0};
  }
}

size_t BareSession::handle_write(const nbd::Request& request, MutableBytes target, Bytes received) {
  const size_t here = std::min(target.size(), received.size());
  if (!options_.discard && here > 0) std::memcpy(target.data(), received.data(), here);
  if (here == target.size()) {
    reply(request.cookie, nbd::WireError::kNone, {});
  } else {
    partial_ = {.missing = target.subspan(here), .cookie = request.cookie};
  }
  return here;
}

void BareSession::reply(Be64 cookie, nbd::WireError error, Bytes data) {
  Batch& batch = *batch_;
  nbd::SimpleReply& header = batch.headers[batch.header_count++];
  header = {.error = static_cast<uint32_t>(error), .cookie = cookie};
  // Headers lie one behind the other, so those with no data between them are one piece.
  iovec* const last = batch.piece_count > 0 ? &batch.pieces[batch.piece_count - 1] : nullptr;
  auto* const start = reinterpret_cast<std::byte*>(&header);
  if (last != nullptr && static_cast<std::byte*>(last->iov_base) + last->iov_len == start) {
    last->iov_len += sizeof(header);
  } else {
    batch.pieces[batch.piece_count++] = {start, sizeof(header)};
  }
  if (!data.empty()) {
    batch.pieces[batch.piece_count++] = {const_cast<std::byte*>(data.data()), data.size()};
  }
}

Result<void> BareSession::send_batch() {
  std::span<iovec> unsent(batch_->pieces.data(), batch_->piece_count);
  while (!unsent.empty()) {
    msghdr message{};
    message.msg_iov = unsent.data();
    message.msg_iovlen = std::min(unsent.size(), kPiecesMax);
    const ssize_t sent = ::sendmsg(socket_.fd(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return Error::from_errno(errno, "cannot send");
    unsent = unsent.subspan(advance(unsent, static_cast<size_t>(sent)));
  }
  batch_->header_count = 0;
  batch_->piece_count = 0;
  return {};
}

}  // namespace usbd::bench
