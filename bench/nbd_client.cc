// SPDX-License-Identifier: Apache-2.0
//
// See nbd_client.h.

#include "bench/nbd_client.h"

#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "frontends/nbd/protocol.h"

namespace usbd::bench {
namespace {

/// More than any server's answer to the two options that we send. Units: bytes.
constexpr uint32_t kReplyDataMax = 64U << 10;

struct OptionAnswer {
  uint32_t type = 0;
  std::vector<std::byte> data;
};

Result<void> greet(const Socket& socket) {
  USBD_TRY(const nbd::Greeting greeting, read_message<nbd::Greeting>(socket));
  if (greeting.init_magic != nbd::kInitMagic || greeting.option_magic != nbd::kOptionMagic ||
      (greeting.handshake_flags & nbd::kFlagFixedNewstyle) == 0) {
    return Error(Errc::kNotSupported, "the server does not speak NBD's fixed newstyle");
  }
  const auto both = nbd::kFlagFixedNewstyle | nbd::kFlagNoZeroes;
  const nbd::ClientFlags answer{.flags = static_cast<uint32_t>(greeting.handshake_flags & both)};
  return write_exactly(socket, wire_bytes(answer));
}

Result<void> send_option(const Socket& socket, nbd::Option option, Bytes data) {
  nbd::OptionHeader header;
  header.option = static_cast<uint32_t>(option);
  header.length = static_cast<uint32_t>(data.size());
  USBD_TRY_VOID(write_exactly(socket, wire_bytes(header)));
  return write_exactly(socket, data);
}

Result<OptionAnswer> receive_answer(const Socket& socket) {
  USBD_TRY(const nbd::OptionReplyHeader header, read_message<nbd::OptionReplyHeader>(socket));
  if (header.magic != nbd::kOptionReplyMagic || header.length > kReplyDataMax) {
    return Error(Errc::kInvalid, "the server's answer to an option is malformed");
  }
  OptionAnswer answer{.type = header.type, .data = std::vector<std::byte>(header.length)};
  USBD_TRY_VOID(read_exactly(socket, answer.data));
  return answer;
}

bool is(const OptionAnswer& answer, nbd::OptionReply type) {
  return answer.type == static_cast<uint32_t>(type);
}

Result<bool> ask_for_structured(const Socket& socket) {
  USBD_TRY_VOID(send_option(socket, nbd::Option::kStructuredReply, {}));
  USBD_TRY(const OptionAnswer answer, receive_answer(socket));
  return is(answer, nbd::OptionReply::kAck);
}

Result<void> send_go(const Socket& socket, const std::string& export_name) {
  const Be32 name_length = static_cast<uint32_t>(export_name.size());
  const Be16 no_requests;
  std::vector<std::byte> data(sizeof(name_length) + export_name.size() + sizeof(no_requests));
  std::memcpy(data.data(), &name_length, sizeof(name_length));
  std::memcpy(data.data() + sizeof(name_length), export_name.data(), export_name.size());
  return send_option(socket, nbd::Option::kGo, data);
}

void note_info(const OptionAnswer& answer, ExportInfo& info) {
  if (answer.data.size() != sizeof(nbd::InfoExport)) return;
  const auto message = wire_read<nbd::InfoExport>(answer.data);
  if (message.type != static_cast<uint16_t>(nbd::Info::kExport)) return;
  info.size = message.size;
  info.flags = message.transmission_flags;
}

}  // namespace

Result<ExportInfo> negotiate(const Socket& socket, const std::string& export_name,
                             bool want_structured) {
  ExportInfo info;
  USBD_TRY_VOID(greet(socket));
  if (want_structured) {
    USBD_TRY(info.structured, ask_for_structured(socket));
    if (!info.structured) {
      return Error(Errc::kNotSupported, "the server has no structured replies");
    }
  }
  USBD_TRY_VOID(send_go(socket, export_name));
  while (true) {
    USBD_TRY(const OptionAnswer answer, receive_answer(socket));
    if (is(answer, nbd::OptionReply::kAck)) return info;
    if (is(answer, nbd::OptionReply::kInfo)) note_info(answer, info);
    if ((answer.type & nbd::kOptionErrorBit) != 0) {
      return Error(Errc::kNotSupported,
                   fmt::format("the server refuses export \"{}\" (NBD reply {:#x})", export_name,
                               answer.type));
    }
  }
}

}  // namespace usbd::bench
