// SPDX-License-Identifier: Apache-2.0
//
// Option haggling. Everything the server says is checked: this client is there to find its
// mistakes.

#include "client/nbd_handshake.h"

#include <algorithm>

#include <fmt/core.h>

namespace usbd::testing {
namespace {

using Buffer = std::vector<std::byte>;

constexpr uint32_t kOptionReplyMax = 1U << 20;
constexpr size_t kOptionRepliesMax = 10'000;
constexpr size_t kExportNamePadding = 124;

struct OptionHeader {
  Be64 magic = wire::kIHaveOpt;
  Be32 option;
  Be32 length;
};
struct ReplyHeader {
  Be64 magic;
  Be32 option;
  Be32 type;
  Be32 length;
};
struct Greeting {
  Be64 magic;
  Be64 option_magic;
  Be16 flags;
};
struct SizeAndFlags {
  Be64 size;
  Be16 flags;
};
struct BlockSizes {
  Be32 min;
  Be32 preferred;
  Be32 max;
};

Error violation(std::string what) {
  return Error(Errc::kInvalid, "the server violates the protocol: " + std::move(what));
}

template <typename T>
void put(Buffer& buffer, T value) {
  const Be<T> wire_value = value;
  const Bytes bytes = std::as_bytes(std::span(&wire_value, 1));
  buffer.insert(buffer.end(), bytes.begin(), bytes.end());
}

void put_text(Buffer& buffer, const std::string& text) {
  put(buffer, static_cast<uint32_t>(text.size()));
  const Bytes bytes = std::as_bytes(std::span(text));
  buffer.insert(buffer.end(), bytes.begin(), bytes.end());
}

std::string text_of(Bytes bytes) {
  std::string text(bytes.size(), '\0');
  std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}

template <WireStruct T>
Result<T> take(Bytes& from, const char* what) {
  if (from.size() < sizeof(T)) return violation(fmt::format("{} is too short", what));
  T value;
  std::memcpy(&value, from.data(), sizeof value);
  from = from.subspan(sizeof value);
  return value;
}

Result<void> take_info(const NbdOptionReply& reply, NbdExportInfo& info, bool& has_export) {
  Bytes rest = reply.data;
  USBD_TRY(const Be16 type, take<Be16>(rest, "NBD_REP_INFO"));
  if (type == wire::kInfoExport) {
    USBD_TRY(const SizeAndFlags export_info, take<SizeAndFlags>(rest, "NBD_INFO_EXPORT"));
    if (!rest.empty()) return violation("NBD_INFO_EXPORT is too long");
    info.size = export_info.size;
    info.flags = export_info.flags;
    has_export = true;
  } else if (type == wire::kInfoName) {
    info.name = text_of(rest);
  } else if (type == wire::kInfoDescription) {
    info.description = text_of(rest);
  } else if (type == wire::kInfoBlockSize) {
    USBD_TRY(const BlockSizes sizes, take<BlockSizes>(rest, "NBD_INFO_BLOCK_SIZE"));
    info.block_size_min = sizes.min;
    info.block_size_preferred = sizes.preferred;
    info.block_size_max = sizes.max;
  }
  return {};
}

}  // namespace

std::string NbdOptionReply::text() const {
  return fmt::format("reply {:#x} \"{}\"", type, text_of(data));
}

Result<void> NbdHandshake::greet(bool no_zeroes) {
  USBD_TRY(const Greeting greeting, socket_.receive_struct<Greeting>());
  if (greeting.magic != wire::kGreeting || greeting.option_magic != wire::kIHaveOpt) {
    return violation("the greeting is not that of a newstyle NBD server");
  }
  const uint16_t flags = greeting.flags;
  if ((flags & wire::kFlagFixedNewstyle) == 0) return violation("it is not fixed newstyle");
  if ((flags & ~(wire::kFlagFixedNewstyle | wire::kFlagNoZeroes)) != 0) {
    return violation(fmt::format("handshake flags {:#x}", flags));
  }
  no_zeroes_ = no_zeroes && (flags & wire::kFlagNoZeroes) != 0;
  const Be32 answer = no_zeroes_ ? uint32_t{wire::kFlagFixedNewstyle | wire::kFlagNoZeroes}
                                 : uint32_t{wire::kFlagFixedNewstyle};
  return socket_.send_struct(answer);
}

Result<void> NbdHandshake::send_option(uint32_t option, Bytes data) {
  OptionHeader header;
  header.option = option;
  header.length = static_cast<uint32_t>(data.size());
  USBD_TRY_VOID(socket_.send_struct(header));
  return socket_.send(data);
}

Result<NbdOptionReply> NbdHandshake::receive_reply(uint32_t option) {
  USBD_TRY(const ReplyHeader header, socket_.receive_struct<ReplyHeader>());
  if (header.magic != wire::kOptionReply) return violation("a reply to an option has no magic");
  if (header.option != option) {
    return violation(fmt::format("a reply to option {} came for option {}",
                                 static_cast<uint32_t>(header.option), option));
  }
  if (header.length > kOptionReplyMax) return violation("a reply to an option is very long");
  NbdOptionReply reply;
  reply.type = header.type;
  reply.data.resize(header.length);
  USBD_TRY_VOID(socket_.receive(reply.data));
  return reply;
}

Result<std::vector<NbdOptionReply>> NbdHandshake::ask(uint32_t option, Bytes data) {
  USBD_TRY_VOID(send_option(option, data));
  std::vector<NbdOptionReply> replies;
  for (;;) {
    USBD_TRY(NbdOptionReply reply, receive_reply(option));
    replies.push_back(std::move(reply));
    if (replies.back().type == wire::kRepAck || replies.back().is_error()) return replies;
    if (replies.size() > kOptionRepliesMax) return violation("an option has too many replies");
  }
}

Result<std::vector<std::string>> NbdHandshake::list() {
  USBD_TRY(const auto replies, ask(wire::kOptList, {}));
  std::vector<std::string> names;
  for (const NbdOptionReply& reply : replies) {
    if (reply.is_error()) return Error(Errc::kAccess, "no list of exports: " + reply.text());
    if (reply.type == wire::kRepAck) continue;
    if (reply.type != wire::kRepServer) return violation("a list has " + reply.text());
    Bytes rest = reply.data;
    USBD_TRY(const Be32 length, take<Be32>(rest, "NBD_REP_SERVER"));
    if (length > rest.size()) return violation("the name in NBD_REP_SERVER is cut off");
    names.push_back(text_of(rest.first(length)));
  }
  return names;
}

Result<NbdExportInfo> NbdHandshake::info(const std::string& export_name, bool go) {
  Buffer data;
  put_text(data, export_name);
  put(data, uint16_t{3});
  put(data, uint16_t{wire::kInfoName});
  put(data, uint16_t{wire::kInfoDescription});
  put(data, uint16_t{wire::kInfoBlockSize});
  USBD_TRY(const auto replies, ask(go ? wire::kOptGo : wire::kOptInfo, data));
  NbdExportInfo info;
  bool has_export = false;
  for (const NbdOptionReply& reply : replies) {
    if (reply.is_error()) {
      return Error(Errc::kNotFound, fmt::format("export \"{}\": {}", export_name, reply.text()));
    }
    if (reply.type == wire::kRepInfo) USBD_TRY_VOID(take_info(reply, info, has_export));
  }
  if (!has_export) return violation("there was no NBD_INFO_EXPORT");
  return info;
}

Result<NbdExportInfo> NbdHandshake::export_name(const std::string& export_name) {
  USBD_TRY_VOID(send_option(wire::kOptExportName, std::as_bytes(std::span(export_name))));
  USBD_TRY(const SizeAndFlags answer, socket_.receive_struct<SizeAndFlags>());
  if (!no_zeroes_) {
    Buffer padding(kExportNamePadding);
    USBD_TRY_VOID(socket_.receive(padding));
    if (std::ranges::any_of(padding, [](std::byte byte) { return byte != std::byte{0}; })) {
      return violation("the padding after NBD_OPT_EXPORT_NAME is not zero");
    }
  }
  NbdExportInfo info;
  info.size = answer.size;
  info.flags = answer.flags;
  return info;
}

Result<bool> NbdHandshake::structured_replies() {
  USBD_TRY(const auto replies, ask(wire::kOptStructuredReply, {}));
  return replies.back().type == wire::kRepAck;
}

Result<std::vector<NbdContext>> NbdHandshake::meta_contexts(
    uint32_t option, const std::string& export_name, const std::vector<std::string>& queries) {
  Buffer data;
  put_text(data, export_name);
  put(data, static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) put_text(data, query);
  USBD_TRY(const auto replies, ask(option, data));
  std::vector<NbdContext> contexts;
  for (const NbdOptionReply& reply : replies) {
    if (reply.is_error()) return Error(Errc::kNotFound, "no contexts: " + reply.text());
    if (reply.type != wire::kRepMetaContext) continue;
    Bytes rest = reply.data;
    USBD_TRY(const Be32 id, take<Be32>(rest, "NBD_REP_META_CONTEXT"));
    contexts.push_back({.id = id, .name = text_of(rest)});
  }
  return contexts;
}

Result<void> NbdHandshake::abort() {
  USBD_TRY_VOID(send_option(wire::kOptAbort, {}));
  const Result<NbdOptionReply> reply = receive_reply(wire::kOptAbort);
  if (reply && reply->type != wire::kRepAck) return violation("abort: " + reply->text());
  return {};
}

Result<NbdAgreement> NbdHandshake::negotiate(const NbdWishes& wishes) {
  NbdAgreement agreement;
  if (wishes.structured_replies) {
    USBD_TRY(agreement.structured_replies, structured_replies());
  }
  if (wishes.allocation && agreement.structured_replies) {
    auto contexts = meta_contexts(wire::kOptSetMeta, wishes.export_name, {"base:allocation"});
    if (contexts) agreement.contexts = *std::move(contexts);
  }
  if (wishes.go) {
    USBD_TRY(agreement.info, info(wishes.export_name, true));
  } else {
    USBD_TRY(agreement.info, export_name(wishes.export_name));
  }
  if (!agreement.info.has(wire::kHasFlags)) return violation("NBD_FLAG_HAS_FLAGS is not set");
  return agreement;
}

}  // namespace usbd::testing
