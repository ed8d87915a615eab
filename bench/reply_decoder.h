// SPDX-License-Identifier: Apache-2.0
//
// decode_reply: the header of the next reply, simple or structured, in a buffer of received bytes.
// Pure: it keeps nothing between calls and touches no socket.

#pragma once

#include <cstdint>
#include <optional>

#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::bench {

struct ReplyHeader {
  /// How much of the buffer the header takes, with a chunk's own leading fields. Units: bytes.
  uint64_t size = 0;
  uint64_t cookie = 0;
  /// An NBD error value; 0 is success.
  uint32_t error = 0;
  /// A simple reply: how much follows is up to the request. All below is about chunks.
  bool simple = false;
  /// Whether nothing more follows for this request.
  bool last = false;
  /// Where the chunk's data or hole lies in the export.
  uint64_t offset = 0;
  /// Bytes of data that follow the header.
  uint64_t data_length = 0;
  /// Bytes that read as zeros, and of which nothing follows.
  uint64_t hole_length = 0;
  /// Bytes that follow the header and mean nothing to us, such as an error's text.
  uint64_t ignored_length = 0;
};

/// Returns empty if `received` does not hold the whole header yet.
/// Errors: kInvalid if it is none.
Result<std::optional<ReplyHeader>> decode_reply(Bytes received);

}  // namespace usbd::bench
