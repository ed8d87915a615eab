// SPDX-License-Identifier: Apache-2.0
//
// Talking to the family "nbd". The kernel acts while a message is being sent, in the sender's own
// task: it takes the sockets out of this process's descriptor table, and has answered when the send
// returns.

#include "frontends/nbd/kernel/netlink.h"

#include <cerrno>

#include <fmt/format.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/socket.h>

#include "base/assert.h"
#include "frontends/nbd/kernel/uapi.h"

namespace usbd::nbd::netlink {
namespace {

Result<Socket> open_socket() {
  Socket socket(nl_socket_alloc());
  if (!socket) return Error(Errc::kNoMemory, "cannot allocate a netlink socket");
  if (const int status = genl_connect(socket.get()); status < 0) {
    return Error(Errc::kNotSupported,
                 fmt::format("cannot open a generic netlink socket ({})", nl_geterror(status)));
  }
  return socket;
}

/// What one call to the kernel comes back with.
struct Exchange {
  bool finished = false;
  /// A positive errno value; 0: acknowledged.
  int error = 0;
  int (*on_answer)(nl_msg*, void*) = nullptr;
  void* argument = nullptr;
};

int on_valid(nl_msg* message, void* argument) {
  const auto& exchange = *static_cast<Exchange*>(argument);
  return exchange.on_answer ? exchange.on_answer(message, exchange.argument) : NL_OK;
}

int on_acknowledgement(nl_msg*, void* argument) {
  static_cast<Exchange*>(argument)->finished = true;
  return NL_STOP;
}

int on_error(sockaddr_nl*, nlmsgerr* answer, void* argument) {
  auto& exchange = *static_cast<Exchange*>(argument);
  exchange.finished = true;
  exchange.error = -answer->error;
  return NL_STOP;
}

struct CallbackDeleter {
  void operator()(nl_cb* callbacks) const { nl_cb_put(callbacks); }
};

int store_index(nl_msg* message, void* argument) {
  *static_cast<std::optional<uint32_t>*>(argument) = parse_index(message);
  return NL_OK;
}

struct StatusQuery {
  uint32_t index = 0;
  bool connected = false;
};

int store_status(nl_msg* message, void* argument) {
  auto& query = *static_cast<StatusQuery*>(argument);
  query.connected = parse_connected(message, query.index);
  return NL_OK;
}

int collect_dead(nl_msg* message, void* argument) {
  if (genlmsg_hdr(nlmsg_hdr(message))->cmd != uapi::kCmdLinkDead) return NL_OK;
  if (const auto index = parse_index(message)) {
    static_cast<std::vector<uint32_t>*>(argument)->push_back(*index);
  }
  return NL_OK;
}

}  // namespace

void SocketDeleter::operator()(nl_sock* socket) const {
  nl_socket_free(socket);
}

Result<Client> Client::open() {
  USBD_TRY(Socket socket, open_socket());
  const int family = genl_ctrl_resolve(socket.get(), uapi::kFamilyName);
  if (family < 0) {
    return Error(Errc::kNotFound, "the kernel has no generic netlink family \"nbd\" here");
  }
  return Client(std::move(socket), family);
}

Result<uint32_t> Client::connect(const ConnectRequest& request, const std::vector<int>& sockets) {
  std::optional<uint32_t> index;
  USBD_TRY_VOID(call(build_connect(family_, request, sockets), store_index, &index));
  if (!index) return Error(Errc::kIo, "the kernel connected an nbd device and did not say which");
  return *index;
}

Result<void> Client::reconfigure(const ReconfigureRequest& request) {
  return call(build_reconfigure(family_, request), nullptr, nullptr);
}

Result<void> Client::disconnect(uint32_t index) {
  return call(build_disconnect(family_, index), nullptr, nullptr);
}

Result<bool> Client::is_connected(uint32_t index) {
  StatusQuery query{.index = index};
  USBD_TRY_VOID(call(build_status(family_, index), store_status, &query));
  return query.connected;
}

Result<void> Client::call(Message message, int (*on_answer)(nl_msg*, void*), void* argument) {
  Exchange exchange{.on_answer = on_answer, .argument = argument};
  const std::unique_ptr<nl_cb, CallbackDeleter> callbacks(nl_cb_alloc(NL_CB_DEFAULT));
  if (!message || !callbacks) return Error(Errc::kNoMemory, "cannot make a netlink message");
  nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_valid, &exchange);
  nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, on_acknowledgement, &exchange);
  nl_cb_err(callbacks.get(), NL_CB_CUSTOM, on_error, &exchange);

  if (const int status = nl_send_auto(socket_.get(), message.get()); status < 0) {
    return Error(Errc::kIo, fmt::format("netlink send failed ({})", nl_geterror(status)));
  }
  while (!exchange.finished) {
    const int status = nl_recvmsgs(socket_.get(), callbacks.get());
    if (status < 0 && !exchange.finished && status != -NLE_INTR) {
      return Error(Errc::kIo, fmt::format("netlink receive failed ({})", nl_geterror(status)));
    }
  }
  if (exchange.error != 0) return Error::from_errno(exchange.error);
  return {};
}

Result<DeadLinkListener> DeadLinkListener::open() {
  USBD_TRY(Socket socket, open_socket());
  const int group = genl_ctrl_resolve_grp(socket.get(), uapi::kFamilyName, uapi::kDeadGroupName);
  if (group < 0) return Error(Errc::kNotFound, "the kernel has no notices of dead nbd sockets");
  nl_socket_disable_seq_check(socket.get());
  if (nl_socket_add_membership(socket.get(), group) < 0 ||
      nl_socket_set_nonblocking(socket.get()) < 0) {
    return Error(Errc::kIo, "cannot subscribe to notices of dead nbd sockets");
  }
  return DeadLinkListener(std::move(socket));
}

int DeadLinkListener::fd() const {
  return nl_socket_get_fd(socket_.get());
}

std::vector<uint32_t> DeadLinkListener::drain() {
  std::vector<uint32_t> dead;
  nl_socket_modify_cb(socket_.get(), NL_CB_VALID, NL_CB_CUSTOM, collect_dead, &dead);
  // Ends with -NLE_AGAIN when nothing is left; an overflow only means that some were lost.
  while (nl_recvmsgs_default(socket_.get()) >= 0) {
  }
  return dead;
}

namespace {

/// Two connections to the family, since one thread replaces sockets while another resizes.
class NetlinkDriver final : public KernelDriver {
 public:
  NetlinkDriver(Client control, Client replacer, std::optional<DeadLinkListener> listener)
      : control_(std::move(control)),
        replacer_(std::move(replacer)),
        listener_(std::move(listener)) {}

  [[nodiscard]] std::string_view name() const override { return "netlink"; }

  Result<uint32_t> connect(const ConnectRequest& request,
                           const std::vector<UniqueFd>& sockets) override {
    std::vector<int> fds;
    for (const UniqueFd& socket : sockets) fds.push_back(socket.get());
    USBD_TRY(index_, control_.connect(request, fds));
    backend_ = request.backend;
    return index_;
  }

  [[nodiscard]] bool can_replace() const override { return true; }

  Result<void> replace(int socket) override {
    return replacer_.reconfigure(
        {.index = index_, .backend = backend_, .sockets = {socket}, .size = {}});
  }

  [[nodiscard]] int notification_fd() const override { return listener_ ? listener_->fd() : -1; }

  unsigned drain_notifications() override {
    unsigned ours = 0;
    for (const uint32_t index : listener_->drain()) ours += index == index_ ? 1 : 0;
    return ours;
  }

  Result<void> resize(uint64_t size) override {
    return control_.reconfigure(
        {.index = index_, .backend = backend_, .sockets = {}, .size = size});
  }

  Result<void> disconnect() override { return control_.disconnect(index_); }

 private:
  Client control_;
  Client replacer_;
  std::optional<DeadLinkListener> listener_;
  uint32_t index_ = 0;
  std::string backend_;
};

}  // namespace

Result<std::unique_ptr<KernelDriver>> make_driver() {
  USBD_TRY(Client control, Client::open());
  USBD_TRY(Client replacer, Client::open());
  // The notices only add to what the sockets themselves show, so a kernel without them will do.
  Result<DeadLinkListener> listener = DeadLinkListener::open();
  std::optional<DeadLinkListener> notices;
  if (listener) notices.emplace(*std::move(listener));
  return std::unique_ptr<KernelDriver>(
      std::make_unique<NetlinkDriver>(std::move(control), std::move(replacer), std::move(notices)));
}

}  // namespace usbd::nbd::netlink
