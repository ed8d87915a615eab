// SPDX-License-Identifier: Apache-2.0
//
// See reply_decoder.h.

#include "bench/reply_decoder.h"

#include <fmt/format.h>

#include "frontends/nbd/protocol.h"

namespace usbd::bench {
namespace {

using Decoded = std::optional<ReplyHeader>;

Error malformed(const nbd::ChunkHeader& chunk) {
  return Error(Errc::kInvalid, fmt::format("a chunk of type {} has a length of {} bytes",
                                           uint16_t{chunk.type}, uint32_t{chunk.length}));
}

Decoded decode_simple(Bytes received) {
  const auto reply = wire_read<nbd::SimpleReply>(received);
  return ReplyHeader{.size = sizeof(reply),
                     .cookie = reply.cookie,
                     .error = reply.error,
                     .simple = true,
                     .last = true};
}

/// Reads the fields that begin the chunk's payload into `header`. Returns false if they are not
/// there yet. Range: chunk.length >= sizeof(T).
template <typename T>
bool take_fields(Bytes payload, const nbd::ChunkHeader& chunk, T& fields, ReplyHeader& header) {
  if (payload.size() < sizeof(T)) return false;
  fields = wire_read<T>(payload);
  header.size += sizeof(T);
  header.ignored_length = chunk.length - sizeof(T);
  return true;
}

Result<Decoded> decode_data(Bytes payload, const nbd::ChunkHeader& chunk, ReplyHeader header) {
  nbd::OffsetData fields;
  if (chunk.length <= sizeof(fields)) return malformed(chunk);
  if (!take_fields(payload, chunk, fields, header)) return Decoded();
  header.offset = fields.offset;
  header.data_length = std::exchange(header.ignored_length, 0);
  return Decoded(header);
}

Result<Decoded> decode_hole(Bytes payload, const nbd::ChunkHeader& chunk, ReplyHeader header) {
  nbd::OffsetHole fields;
  if (chunk.length != sizeof(fields)) return malformed(chunk);
  if (!take_fields(payload, chunk, fields, header)) return Decoded();
  header.offset = fields.offset;
  header.hole_length = fields.length;
  return Decoded(header);
}

Result<Decoded> decode_error(Bytes payload, const nbd::ChunkHeader& chunk, ReplyHeader header) {
  nbd::ErrorChunk fields;
  if (chunk.length < sizeof(fields)) return malformed(chunk);
  if (!take_fields(payload, chunk, fields, header)) return Decoded();
  header.error = fields.error;
  if (header.error == 0) return malformed(chunk);
  return Decoded(header);
}

Result<Decoded> decode_chunk(Bytes received) {
  if (received.size() < sizeof(nbd::ChunkHeader)) return Decoded();
  const auto chunk = wire_read<nbd::ChunkHeader>(received);
  const Bytes payload = received.subspan(sizeof(chunk));
  const ReplyHeader header{.size = sizeof(chunk),
                           .cookie = chunk.cookie,
                           .last = (chunk.flags & nbd::kChunkFlagDone) != 0,
                           .ignored_length = chunk.length};
  switch (static_cast<nbd::Chunk>(uint16_t{chunk.type})) {
    case nbd::Chunk::kOffsetData:
      return decode_data(payload, chunk, header);
    case nbd::Chunk::kOffsetHole:
      return decode_hole(payload, chunk, header);
    default:
      if ((chunk.type & nbd::kChunkErrorBit) != 0) return decode_error(payload, chunk, header);
      return Decoded(header);
  }
}

}  // namespace

Result<std::optional<ReplyHeader>> decode_reply(Bytes received) {
  if (received.size() < sizeof(nbd::SimpleReply)) return Decoded();
  const uint32_t magic = wire_read<Be32>(received);
  if (magic == nbd::kSimpleReplyMagic) return decode_simple(received);
  if (magic == nbd::kStructuredReplyMagic) return decode_chunk(received);
  return Error(Errc::kInvalid, fmt::format("a reply begins with {:#010x}", magic));
}

}  // namespace usbd::bench
