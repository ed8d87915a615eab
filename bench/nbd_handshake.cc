// SPDX-License-Identifier: Apache-2.0
//
// See nbd_handshake.h.

#include "bench/nbd_handshake.h"

#include <array>
#include <vector>

#include "frontends/nbd/protocol.h"

namespace usbd::bench {
namespace {

constexpr uint32_t kOptionDataMax = 8U << 10;
constexpr uint16_t kExportFlags = nbd::kTransmitHasFlags | nbd::kTransmitFlush | nbd::kTransmitFua |
                                  nbd::kTransmitTrim | nbd::kTransmitWriteZeroes |
                                  nbd::kTransmitMultiConn;

Result<void> answer(const Socket& socket, uint32_t option, nbd::OptionReply type, Bytes data) {
  nbd::OptionReplyHeader header;
  header.option = option;
  header.type = static_cast<uint32_t>(type);
  header.length = static_cast<uint32_t>(data.size());
  USBD_TRY_VOID(write_exactly(socket, wire_bytes(header)));
  return write_exactly(socket, data);
}

Result<void> describe_export(const Socket& socket, uint32_t option, uint64_t size) {
  nbd::InfoExport about;
  about.size = size;
  about.transmission_flags = kExportFlags;
  USBD_TRY_VOID(answer(socket, option, nbd::OptionReply::kInfo, wire_bytes(about)));
  nbd::InfoBlockSize blocks;
  blocks.minimum = 1;
  blocks.preferred = 4096;
  blocks.maximum_payload = nbd::kPayloadMax;
  USBD_TRY_VOID(answer(socket, option, nbd::OptionReply::kInfo, wire_bytes(blocks)));
  return answer(socket, option, nbd::OptionReply::kAck, {});
}

Result<void> answer_export_name(const Socket& socket, uint64_t size, bool no_zeroes) {
  nbd::ExportNameReply reply;
  reply.size = size;
  reply.transmission_flags = kExportFlags;
  USBD_TRY_VOID(write_exactly(socket, wire_bytes(reply)));
  if (no_zeroes) return {};
  const std::array<std::byte, nbd::kExportNamePadding> padding{};
  return write_exactly(socket, padding);
}

Result<uint32_t> greet(const Socket& socket) {
  nbd::Greeting greeting;
  greeting.handshake_flags = static_cast<uint16_t>(nbd::kFlagFixedNewstyle | nbd::kFlagNoZeroes);
  USBD_TRY_VOID(write_exactly(socket, wire_bytes(greeting)));
  USBD_TRY(const nbd::ClientFlags client, read_message<nbd::ClientFlags>(socket));
  return uint32_t{client.flags};
}

Result<uint32_t> receive_option(const Socket& socket) {
  USBD_TRY(const nbd::OptionHeader header, read_message<nbd::OptionHeader>(socket));
  if (header.magic != nbd::kOptionMagic || header.length > kOptionDataMax) {
    return Error(Errc::kInvalid, "an option is malformed");
  }
  std::vector<std::byte> ignored(header.length);
  USBD_TRY_VOID(read_exactly(socket, ignored));
  return uint32_t{header.option};
}

}  // namespace

Result<bool> accept_client(const Socket& socket, uint64_t size) {
  USBD_TRY(const uint32_t client_flags, greet(socket));
  while (true) {
    USBD_TRY(const uint32_t option, receive_option(socket));
    switch (static_cast<nbd::Option>(option)) {
      case nbd::Option::kExportName:
        USBD_TRY_VOID(answer_export_name(socket, size, (client_flags & nbd::kFlagNoZeroes) != 0));
        return true;
      case nbd::Option::kGo:
        USBD_TRY_VOID(describe_export(socket, option, size));
        return true;
      case nbd::Option::kInfo:
        USBD_TRY_VOID(describe_export(socket, option, size));
        break;
      case nbd::Option::kAbort:
        USBD_TRY_VOID(answer(socket, option, nbd::OptionReply::kAck, {}));
        return false;
      default:
        USBD_TRY_VOID(answer(socket, option, nbd::OptionReply::kErrUnsupported, {}));
    }
  }
}

}  // namespace usbd::bench
