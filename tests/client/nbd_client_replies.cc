// SPDX-License-Identifier: Apache-2.0
//
// Replies, simple and structured, and the rules that they must keep.

#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include "client/nbd_client.h"

namespace usbd::testing {
namespace {

struct StatusDescriptor {
  Be32 length;
  Be32 flags;
};
struct ErrorHead {
  Be32 error;
  Be16 text_length;
};
struct HoleBody {
  Be64 offset;
  Be32 length;
};

constexpr uint16_t kErrorBit = 0x8000;

Error violation(std::string what) {
  return Error(Errc::kInvalid, "the server violates the protocol: " + std::move(what));
}

template <WireStruct T>
T read_at(Bytes data, size_t offset) {
  T value;
  std::memcpy(&value, data.data() + offset, sizeof value);
  return value;
}

}  // namespace

Result<NbdCall*> NbdClient::find(uint64_t cookie) {
  const auto found = calls_.find(cookie);
  if (found == calls_.end()) return violation(fmt::format("a reply has cookie {:#x}", cookie));
  return found->second;
}

/// False: more bytes are needed.
Result<bool> NbdClient::parse_header() {
  const Bytes data = Bytes(receive_buffer_).subspan(parsed_, filled_ - parsed_);
  if (data.size() < sizeof(wire::SimpleReply)) return false;
  const uint32_t magic = read_at<Be32>(data, 0);
  if (magic == wire::kSimpleReplyMagic) {
    parsed_ += sizeof(wire::SimpleReply);
    USBD_TRY_VOID(begin_simple(read_at<wire::SimpleReply>(data, 0)));
    return true;
  }
  if (magic != wire::kStructuredReplyMagic) {
    return violation(fmt::format("a reply begins with {:#x}", magic));
  }
  if (data.size() < sizeof(wire::StructuredReply)) return false;
  parsed_ += sizeof(wire::StructuredReply);
  USBD_TRY_VOID(begin_chunk(read_at<wire::StructuredReply>(data, 0)));
  return true;
}

void NbdClient::expect(Phase phase, MutableBytes target) {
  phase_ = phase;
  target_ = target;
  target_filled_ = 0;
}

Result<void> NbdClient::begin_simple(const wire::SimpleReply& reply) {
  cookie_ = reply.cookie;
  USBD_TRY(call_, find(cookie_));
  if (call_->chunks > 0) return violation("a simple reply follows chunks of the same request");
  const bool is_read = call_->command == wire::kCmdRead;
  if (agreement_.structured_replies && (is_read || call_->command == wire::kCmdBlockStatus)) {
    return violation("a simple reply came where a structured one was agreed on");
  }
  call_->error = reply.error;
  call_->chunks = 1;
  chunk_is_last_ = true;
  chunk_type_ = wire::kChunkNone;
  // An error reply has no payload.
  const bool has_payload = is_read && call_->error == 0;
  expect(Phase::kData, has_payload ? call_->target : MutableBytes());
  if (has_payload) USBD_TRY_VOID(cover(call_->offset, call_->length));
  return {};
}

Result<void> NbdClient::begin_chunk(const wire::StructuredReply& reply) {
  if (!agreement_.structured_replies) return violation("a structured reply was not agreed on");
  if ((reply.flags & ~wire::kReplyFlagDone) != 0) {
    return violation(fmt::format("chunk flags {:#x}", static_cast<uint16_t>(reply.flags)));
  }
  if (reply.length > wire::kChunkMax) return violation("a chunk is very long");
  cookie_ = reply.cookie;
  USBD_TRY(call_, find(cookie_));
  ++call_->chunks;
  chunk_is_last_ = (reply.flags & wire::kReplyFlagDone) != 0;
  chunk_type_ = reply.type;
  chunk_length_ = reply.length;
  body_.resize(chunk_length_);
  if (chunk_type_ != wire::kChunkOffsetData) {
    expect(Phase::kBody, body_);
    return {};
  }
  if (call_->command != wire::kCmdRead) return violation("data came for what is no read");
  if (chunk_length_ <= sizeof(Be64)) return violation("a chunk of data has no data");
  body_.resize(sizeof(Be64));
  expect(Phase::kOffset, body_);
  return {};
}

Result<void> NbdClient::end_phase() {
  if (phase_ == Phase::kOffset) return end_offset();
  if (phase_ == Phase::kBody) {
    if (chunk_type_ == wire::kChunkNone) {
      if (chunk_length_ != 0 || !chunk_is_last_) {
        return violation("NBD_REPLY_TYPE_NONE has a body or is not the last");
      }
    } else if (chunk_type_ == wire::kChunkOffsetHole) {
      USBD_TRY_VOID(take_hole());
    } else if (chunk_type_ == wire::kChunkBlockStatus) {
      USBD_TRY_VOID(take_status());
    } else if ((chunk_type_ & kErrorBit) != 0) {
      USBD_TRY_VOID(take_error());
    } else {
      return violation(fmt::format("a chunk has type {}", chunk_type_));
    }
  }
  return end_chunk();
}

Result<void> NbdClient::end_offset() {
  const uint64_t offset = read_at<Be64>(body_, 0);
  const uint64_t length = chunk_length_ - sizeof(Be64);
  USBD_TRY_VOID(cover(offset, length));
  expect(Phase::kData, call_->target.subspan(offset - call_->offset, length));
  return {};
}

/// Notes that a part of a read has come.
Result<void> NbdClient::cover(uint64_t offset, uint64_t length) {
  const ByteRange whole(call_->offset, call_->length);
  if (offset < whole.offset || offset - whole.offset > whole.length ||
      length > whole.end() - offset) {
    return violation("data came that was not asked for");
  }
  const ByteRange part(offset, length);
  for (const ByteRange& earlier : call_->covered) {
    if (earlier.overlaps(part)) return violation("chunks of one read overlap");
  }
  if ((call_->flags & wire::kCmdFlagDf) != 0 && !call_->covered.empty()) {
    return violation("a read with DF was answered in parts");
  }
  call_->covered.push_back(part);
  return {};
}

Result<void> NbdClient::take_hole() {
  if (call_->command != wire::kCmdRead) return violation("a hole came for what is no read");
  if (body_.size() != sizeof(HoleBody)) return violation("a hole has the wrong length");
  const auto hole = read_at<HoleBody>(body_, 0);
  if (hole.length == 0) return violation("a hole is empty");
  USBD_TRY_VOID(cover(hole.offset, hole.length));
  std::ranges::fill(call_->target.subspan(hole.offset - call_->offset, hole.length), std::byte{0});
  return {};
}

Result<void> NbdClient::take_status() {
  if (call_->command != wire::kCmdBlockStatus) return violation("a block status was not asked for");
  constexpr size_t kHead = sizeof(Be32);
  if (body_.size() < kHead + sizeof(StatusDescriptor) ||
      (body_.size() - kHead) % sizeof(StatusDescriptor) != 0) {
    return violation("a block status has the wrong length");
  }
  const uint32_t id = read_at<Be32>(body_, 0);
  const auto context = std::ranges::find(agreement_.contexts, id, &NbdContext::id);
  if (context == agreement_.contexts.end()) return violation("a block status has no known context");
  if (!call_->extents.empty()) return violation("a block status came twice");
  uint64_t total = 0;
  for (size_t at = kHead; at < body_.size(); at += sizeof(StatusDescriptor)) {
    const auto descriptor = read_at<StatusDescriptor>(body_, at);
    if (descriptor.length == 0) return violation("a block status has an empty extent");
    if (total >= call_->length) return violation("a block status goes on after the request");
    total += descriptor.length;
    call_->extents.push_back({.length = descriptor.length, .flags = descriptor.flags});
  }
  if ((call_->flags & wire::kCmdFlagReqOne) != 0 &&
      (call_->extents.size() != 1 || total > call_->length)) {
    return violation("REQ_ONE was not answered with one extent within the request");
  }
  return {};
}

Result<void> NbdClient::take_error() {
  const size_t tail = chunk_type_ == wire::kChunkErrorOffset ? sizeof(Be64) : 0;
  if (body_.size() < sizeof(ErrorHead) + tail) return violation("an error chunk is too short");
  const auto head = read_at<ErrorHead>(body_, 0);
  if (head.text_length != body_.size() - sizeof(ErrorHead) - tail &&
      (chunk_type_ == wire::kChunkError || chunk_type_ == wire::kChunkErrorOffset)) {
    return violation("the text of an error chunk has the wrong length");
  }
  if (head.error == 0) return violation("an error chunk has error 0");
  if (call_->error == 0) call_->error = head.error;
  const size_t length = std::min<size_t>(head.text_length, body_.size() - sizeof(ErrorHead));
  call_->error_text.resize(length);
  std::memcpy(call_->error_text.data(), body_.data() + sizeof(ErrorHead), length);
  return {};
}

Result<void> NbdClient::end_chunk() {
  phase_ = Phase::kHeader;
  if (!chunk_is_last_) return {};
  NbdCall& call = *call_;
  calls_.erase(cookie_);
  call.done = true;
  if (call.error != 0) return {};
  if (call.command == wire::kCmdRead) {
    uint64_t total = 0;
    for (const ByteRange& part : call.covered) total += part.length;
    if (total != call.length) return violation("a read was answered in part only");
  }
  if (call.command == wire::kCmdBlockStatus && call.extents.empty()) {
    return violation("a block status succeeded without any extent");
  }
  return {};
}

}  // namespace usbd::testing
