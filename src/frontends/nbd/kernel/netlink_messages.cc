// SPDX-License-Identifier: Apache-2.0
//
// Building and reading the messages of the family "nbd". No system call here, so that all of it is
// tested without a kernel.

#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>

#include "base/assert.h"
#include "frontends/nbd/kernel/netlink.h"
#include "frontends/nbd/kernel/uapi.h"

namespace usbd::nbd::netlink {
namespace {

/// Writes attributes until one does not fit; then the whole message is void.
class Builder {
 public:
  Builder(int family, uapi::Command command) : message_(nlmsg_alloc()) {
    ok_ = message_ && genlmsg_put(message_.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command,
                                  uapi::kFamilyVersion) != nullptr;
  }

  void add_u32(int attribute, uint32_t value) {
    ok_ = ok_ && nla_put_u32(message_.get(), attribute, value) == 0;
  }
  void add_u64(int attribute, uint64_t value) {
    ok_ = ok_ && nla_put_u64(message_.get(), attribute, value) == 0;
  }
  void add_string(int attribute, const std::string& value) {
    ok_ = ok_ && nla_put_string(message_.get(), attribute, value.c_str()) == 0;
  }
  void add_sockets(const std::vector<int>& sockets) {
    if (!ok_) return;
    nlattr* list = nla_nest_start(message_.get(), uapi::kAttrSockets);
    for (const int socket : sockets) {
      nlattr* item = nla_nest_start(message_.get(), uapi::kSockItem);
      add_u32(uapi::kSockFd, static_cast<uint32_t>(socket));
      if (item != nullptr) nla_nest_end(message_.get(), item);
    }
    if (list != nullptr) nla_nest_end(message_.get(), list);
    ok_ = ok_ && list != nullptr;
  }

  Message finish() && { return ok_ ? std::move(message_) : nullptr; }

 private:
  Message message_;
  bool ok_ = false;
};

/// The attributes of `message` by number; false: it is malformed.
bool parse(nl_msg* message, nlattr* (&attributes)[uapi::kAttrMax + 1]) {
  return genlmsg_parse(nlmsg_hdr(message), 0, attributes, uapi::kAttrMax, nullptr) == 0;
}

bool is_u32(const nlattr* attribute) {
  return attribute != nullptr && nla_len(attribute) >= static_cast<int>(sizeof(uint32_t));
}

}  // namespace

void MessageDeleter::operator()(nl_msg* message) const {
  nlmsg_free(message);
}

Message build_connect(int family, const ConnectRequest& request, const std::vector<int>& sockets) {
  Builder builder(family, uapi::kCmdConnect);
  if (request.index) builder.add_u32(uapi::kAttrIndex, *request.index);
  builder.add_u64(uapi::kAttrSize, request.size);
  builder.add_u64(uapi::kAttrBlockSize, request.block_size);
  builder.add_u64(uapi::kAttrServerFlags, request.flags & uapi::kKnownFlags);
  builder.add_u64(uapi::kAttrTimeout, static_cast<uint64_t>(request.timeout.count()));
  builder.add_u64(uapi::kAttrDeadConnTimeout, static_cast<uint64_t>(request.dead_timeout.count()));
  // Given, and none of them: a former user's NBD_CFLAG_DESTROY_ON_DISCONNECT would stay otherwise.
  builder.add_u64(uapi::kAttrClientFlags, 0);
  if (!request.backend.empty()) builder.add_string(uapi::kAttrBackendIdentifier, request.backend);
  builder.add_sockets(sockets);
  return std::move(builder).finish();
}

Message build_reconfigure(int family, const ReconfigureRequest& request) {
  USBD_ASSERT(request.sockets.empty() || !request.size);
  Builder builder(family, uapi::kCmdReconfigure);
  builder.add_u32(uapi::kAttrIndex, request.index);
  if (!request.backend.empty()) builder.add_string(uapi::kAttrBackendIdentifier, request.backend);
  if (request.size) builder.add_u64(uapi::kAttrSize, *request.size);
  if (!request.sockets.empty()) builder.add_sockets(request.sockets);
  return std::move(builder).finish();
}

Message build_disconnect(int family, uint32_t index) {
  Builder builder(family, uapi::kCmdDisconnect);
  builder.add_u32(uapi::kAttrIndex, index);
  return std::move(builder).finish();
}

Message build_status(int family, uint32_t index) {
  Builder builder(family, uapi::kCmdStatus);
  builder.add_u32(uapi::kAttrIndex, index);
  return std::move(builder).finish();
}

std::optional<uint32_t> parse_index(nl_msg* message) {
  nlattr* attributes[uapi::kAttrMax + 1] = {};
  if (!parse(message, attributes) || !is_u32(attributes[uapi::kAttrIndex])) return std::nullopt;
  return nla_get_u32(attributes[uapi::kAttrIndex]);
}

bool parse_connected(nl_msg* message, uint32_t index) {
  nlattr* attributes[uapi::kAttrMax + 1] = {};
  if (!parse(message, attributes) || attributes[uapi::kAttrDeviceList] == nullptr) return false;
  nlattr* item = nullptr;
  int rest = 0;
  nla_for_each_nested(item, attributes[uapi::kAttrDeviceList], rest) {
    nlattr* device[uapi::kDeviceAttrMax + 1] = {};
    if (nla_parse_nested(device, uapi::kDeviceAttrMax, item, nullptr) != 0) continue;
    const nlattr* connected = device[uapi::kDeviceConnected];
    if (!is_u32(device[uapi::kDeviceIndex]) || connected == nullptr || nla_len(connected) < 1) {
      continue;
    }
    if (nla_get_u32(device[uapi::kDeviceIndex]) == index) return nla_get_u8(connected) != 0;
  }
  return false;
}

}  // namespace usbd::nbd::netlink
