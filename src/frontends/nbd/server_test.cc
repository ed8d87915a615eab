// SPDX-License-Identifier: Apache-2.0
//
// A server with real sockets and loops of its own, and clients that are a few bytes each. The
// device is an array whose writes can be held up.

#include "frontends/nbd/server.h"

#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/runtime.h"
#include "frontends/nbd/export_list.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

/// Waits for the condition; tests fail by its value, not by a clock.
bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    ::poll(nullptr, 0, 1);
  }
  return false;
}

class ArrayDevice final : public Device {
 public:
  std::string name() const override { return "array"; }
  Geometry geometry() const override { return {.size = sizeof(bytes_)}; }
  Capabilities capabilities() const override { return {}; }
  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    std::memcpy(data.data(), bytes_ + offset, data.size());
    co_return Result<void>();
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags) override {
    started_ = true;
    while (held_) co_await Loop::current().sleep_for(1ms);
    std::memcpy(bytes_ + offset, data.data(), data.size());
    co_return Result<void>();
  }
  Task<Result<void>> flush() override { co_return Result<void>(); }
  Task<Result<void>> close() override { co_return Result<void>(); }

  void hold_writes(bool held) { held_ = held; }
  bool has_started_a_write() const { return started_; }

 private:
  std::byte bytes_[65536]{};
  std::atomic<bool> held_{false};
  std::atomic<bool> started_{false};
};

/// A blocking client.
class Client {
 public:
  explicit Client(UniqueFd fd) : fd_(std::move(fd)) {}

  static Client to_unix(const std::string& path) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return Client(std::move(fd));
  }
  static Client to_port(uint16_t port) {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return Client(std::move(fd));
  }

  void send(Bytes bytes) {
    EXPECT_EQ(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  /// What comes, up to `size` bytes; less only if the server has closed.
  std::vector<std::byte> receive(size_t size) {
    std::vector<std::byte> out(size);
    size_t got = 0;
    while (got < size) {
      const ssize_t more = ::recv(fd_.get(), out.data() + got, size - got, 0);
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    out.resize(got);
    return out;
  }
  bool is_closed_by_server() {
    pollfd state{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&state, 1, 5000) != 1) return false;
    char byte;
    return ::recv(fd_.get(), &byte, 1, 0) <= 0;
  }
  bool has_greeting() { return receive(sizeof(Greeting)).size() == sizeof(Greeting); }

  /// Goes through the handshake to the export of that name.
  void enter(std::string_view export_name) {
    ASSERT_TRUE(has_greeting());
    const ClientFlags flags{.flags = kFlagFixedNewstyle | kFlagNoZeroes};
    send(wire_bytes(flags));
    const OptionHeader option{.option = 1, .length = static_cast<uint32_t>(export_name.size())};
    send(wire_bytes(option));
    if (!export_name.empty()) send(std::as_bytes(std::span(export_name)));
    EXPECT_EQ(receive(sizeof(ExportNameReply)).size(), sizeof(ExportNameReply));
  }
  void request(Command command, uint64_t offset, uint32_t length) {
    const Request request{.flags = 0,
                          .command = static_cast<uint16_t>(command),
                          .cookie = 7,
                          .offset = offset,
                          .length = length};
    send(wire_bytes(request));
  }
  void request_write(uint64_t offset, std::string_view data) {
    request(Command::kWrite, offset, static_cast<uint32_t>(data.size()));
    send(std::as_bytes(std::span(data)));
  }
  /// The error field of the next simple reply; -1: the connection ended.
  int64_t reply() {
    const std::vector<std::byte> bytes = receive(sizeof(SimpleReply));
    if (bytes.size() < sizeof(SimpleReply)) return -1;
    const auto reply = wire_read<SimpleReply>(bytes);
    EXPECT_EQ(reply.cookie, 7U);
    return reply.error;
  }
  std::string read(uint64_t offset, uint32_t length) {
    request(Command::kRead, offset, length);
    EXPECT_EQ(reply(), 0);
    const std::vector<std::byte> data = receive(length);
    return {reinterpret_cast<const char*>(data.data()), data.size()};
  }
  void hang_up() { fd_.reset(); }

 private:
  UniqueFd fd_;
};

class NbdServer : public testing::Test {
 public:
  NbdServer() {
    std::string pattern = testing::TempDir() + "usbd-server-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    path_ = folder_ + "/s.sock";
    Result<std::unique_ptr<Runtime>> runtime = Runtime::start({.loops = 2});
    EXPECT_TRUE(runtime.has_value());
    runtime_ = *std::move(runtime);
    Result<ExportList> exports = ExportList::create({&export_});
    EXPECT_TRUE(exports.has_value());
    exports_.emplace(*std::move(exports));
  }
  ~NbdServer() override {
    if (server_) stop();
    server_.reset();
    runtime_.reset();
    std::filesystem::remove_all(folder_);
  }

 protected:
  void make(Server::Options options = {}) {
    server_ =
        std::make_unique<Server>(std::vector<EventLoop*>{&runtime_->loop(0), &runtime_->loop(1)},
                                 *exports_, budget_, options);
  }
  void serve(Server::Options options = {}) {
    make(options);
    EXPECT_TRUE(server_->listen({.kind = Endpoint::Kind::kUnix, .path = path_}).has_value());
    start();
  }
  void start() {
    const Result<void> started = runtime_->run(start_on_loop(*server_));
    EXPECT_TRUE(started.has_value());
  }
  void stop(Nanos timeout = 10s) { runtime_->run(server_->stop(timeout)); }
  static Task<Result<void>> start_on_loop(Server& server) { co_return server.start(); }

  Client connect() { return Client::to_unix(path_); }

  std::string folder_;
  std::string path_;
  ArrayDevice device_;
  Export export_{device_, {.name = "disk", .description = "for tests", .loops = 2}};
  std::optional<ExportList> exports_;
  Budget budget_{32U << 20};
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Server> server_;
};

TEST_F(NbdServer, ServesManyClientsOfAUnixSocket) {
  serve();
  std::vector<Client> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(connect());
    clients.back().enter(i % 2 == 0 ? "disk" : "");
  }
  clients[0].request_write(4096, "from the first");
  EXPECT_EQ(clients[0].reply(), 0);
  for (Client& client : clients) EXPECT_EQ(client.read(4096, 14), "from the first");
  EXPECT_EQ(server_->connections(), 8U);
}

TEST_F(NbdServer, ServesTcpOnThePortItTells) {
  make();
  ASSERT_TRUE(
      server_->listen({.kind = Endpoint::Kind::kTcp, .host = "127.0.0.1", .port = 0}).has_value());
  start();
  const std::vector<Endpoint> endpoints = server_->endpoints();
  ASSERT_EQ(endpoints.size(), 1U);
  Client client = Client::to_port(endpoints[0].port);
  client.enter("disk");
  client.request_write(0, "hello");
  EXPECT_EQ(client.reply(), 0);
  EXPECT_EQ(client.read(0, 5), "hello");
}

TEST_F(NbdServer, ForgetsClientsThatLeave) {
  serve();
  for (int i = 0; i < 20; ++i) {
    Client client = connect();
    client.enter("disk");
    if (i % 2 == 0) client.request(Command::kDisconnect, 0, 0);
  }
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
}

TEST_F(NbdServer, TurnsClientsAwayBeyondTheLimit) {
  serve({.connections_max = 2});
  Client first = connect();
  first.enter("disk");
  Client second = connect();
  second.enter("disk");
  Client third = connect();
  EXPECT_TRUE(third.is_closed_by_server());
  second.hang_up();
  EXPECT_TRUE(eventually([&] { return server_->connections() == 1; }));
  Client fourth = connect();
  fourth.enter("disk");
  EXPECT_EQ(first.read(0, 1).size(), 1U);
}

TEST_F(NbdServer, ClosesTheOldestHandshakeForTheNewest) {
  serve({.handshakes_max = 4});  // two on each loop
  Client busy = connect();
  busy.enter("disk");
  std::vector<Client> silent;
  for (int i = 0; i < 20; ++i) {
    silent.push_back(connect());
    EXPECT_TRUE(silent.back().has_greeting());
  }
  EXPECT_TRUE(silent.front().is_closed_by_server());
  EXPECT_TRUE(eventually([&] { return server_->connections() <= 5; }));
  Client talking = connect();
  talking.enter("disk");
  EXPECT_EQ(talking.read(0, 1).size(), 1U);
  EXPECT_EQ(busy.read(0, 1).size(), 1U);
}

TEST_F(NbdServer, SpreadsConnectionsOverTheLoops) {
  serve({.handshakes_max = 8});  // four on each loop: were all on one, four would be closed
  std::vector<Client> silent;
  for (int i = 0; i < 8; ++i) {
    silent.push_back(connect());
    EXPECT_TRUE(silent.back().has_greeting());
  }
  EXPECT_EQ(server_->connections(), 8U);
}

TEST_F(NbdServer, StopAnswersWhatRunsAndClosesTheRest) {
  serve();
  Client idle = connect();
  idle.enter("disk");
  Client silent = connect();
  EXPECT_TRUE(silent.has_greeting());
  Client writing = connect();
  writing.enter("disk");
  device_.hold_writes(true);
  writing.request_write(0, "kept");
  ASSERT_TRUE(eventually([&] { return device_.has_started_a_write(); }));

  std::jthread release([&] {
    EXPECT_TRUE(idle.is_closed_by_server());
    EXPECT_TRUE(silent.is_closed_by_server());
    EXPECT_FALSE(std::filesystem::exists(path_));
    device_.hold_writes(false);
  });
  stop();
  EXPECT_EQ(writing.reply(), 0);
  EXPECT_EQ(writing.reply(), -1);
  EXPECT_EQ(server_->connections(), 0U);
}

TEST_F(NbdServer, StopClosesAClientThatDoesNotReadItsReplies) {
  serve();
  Client deaf = connect();
  deaf.enter("disk");
  for (int i = 0; i < 64; ++i) deaf.request(Command::kRead, 0, 65536);
  ASSERT_TRUE(eventually([&] {
    const StatsSnapshot stats = export_.stats().snapshot();
    return stats.of(Op::kRead).operations > 0;
  }));
  stop(50ms);
  EXPECT_EQ(server_->connections(), 0U);
}

TEST_F(NbdServer, StopEndsItsWaitForClientsWhenHurried) {
  serve();
  Client deaf = connect();
  deaf.enter("disk");
  for (int i = 0; i < 64; ++i) deaf.request(Command::kRead, 0, 65536);
  ASSERT_TRUE(eventually([&] { return export_.stats().snapshot().of(Op::kRead).operations > 0; }));
  std::stop_source hurry;
  std::jthread second_signal([&] {
    EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(path_); }));
    hurry.request_stop();
  });
  const auto before = std::chrono::steady_clock::now();
  runtime_->run(server_->stop(10min, hurry.get_token()));
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5min);
  EXPECT_EQ(server_->connections(), 0U);
}

TEST_F(NbdServer, StopWaitsForTheDeviceAlsoWhenHurried) {
  serve();
  Client writing = connect();
  writing.enter("disk");
  device_.hold_writes(true);
  writing.request_write(0, "kept");
  ASSERT_TRUE(eventually([&] { return device_.has_started_a_write(); }));
  std::stop_source hurry;
  hurry.request_stop();
  std::jthread release([&] {
    EXPECT_TRUE(writing.is_closed_by_server());
    EXPECT_EQ(server_->connections(), 1U);
    device_.hold_writes(false);
  });
  runtime_->run(server_->stop(10min, hurry.get_token()));
  EXPECT_EQ(server_->connections(), 0U);
}

TEST_F(NbdServer, GoesOnWhenDescriptorsHaveRunOut) {
  serve();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  // The lowest free descriptor is the client's; none is left for accept4.
  UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UniqueFd next(::dup(client.get()));
  rlimit low = before;
  low.rlim_cur = static_cast<rlim_t>(next.get());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  std::memcpy(address.sun_path, path_.data(), path_.size());
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
            0);
  timespec used_before{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used_before);
  pollfd state{.fd = client.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&state, 1, 300), 0) << "accepted without a descriptor?";
  timespec used_after{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used_after);
  const int64_t used = (used_after.tv_sec - used_before.tv_sec) * 1'000'000'000 +
                       used_after.tv_nsec - used_before.tv_nsec;
  EXPECT_LT(used, 100'000'000) << "the loop has been spinning";
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  Client late(std::move(client));
  late.enter("disk");
}

TEST_F(NbdServer, ListenErrorsNameTheEndpoint) {
  make();
  const Result<void> result =
      server_->listen({.kind = Endpoint::Kind::kTcp, .host = "0.0.0.0", .port = 0});
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message(), HasSubstr("tcp:0.0.0.0:0"));
}

class KernelSinkOfNbdServer : public NbdServer {
 protected:
  /// Gives the server one end of a pair, as a kernel attach does.
  Client adopted() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    sink_->adopt(UniqueFd(ends[0]), [this] { ++closed_; });
    return Client(UniqueFd(ends[1]));
  }
  void make_sink() {
    make();
    sink_ = server_->kernel_sink(0, "/dev/nbd0");
  }

  std::unique_ptr<SocketSink> sink_;
  std::atomic<int> closed_{0};
};

TEST_F(KernelSinkOfNbdServer, ServesWithoutAHandshake) {
  make_sink();
  Client first = adopted();
  Client second = adopted();
  first.request_write(512, "kernel");
  EXPECT_EQ(first.reply(), 0);
  EXPECT_EQ(second.read(512, 6), "kernel");
  EXPECT_EQ(closed_, 0);
}

TEST_F(KernelSinkOfNbdServer, TellsOnceThatAConnectionIsGone) {
  make_sink();
  Client client = adopted();
  client.hang_up();
  EXPECT_TRUE(eventually([&] { return closed_ == 1; }));
  Client other = adopted();
  EXPECT_EQ(other.read(0, 1).size(), 1U);
  EXPECT_EQ(closed_, 1);
}

TEST_F(KernelSinkOfNbdServer, TellsOfAGoneConnectionBeforeItsRequestsHaveEnded) {
  make_sink();
  device_.hold_writes(true);
  Client client = adopted();
  client.request_write(0, "slow");
  ASSERT_TRUE(eventually([&] { return device_.has_started_a_write(); }));
  client.hang_up();
  EXPECT_TRUE(eventually([&] { return closed_ == 1; }));
  EXPECT_EQ(server_->connections(), 1U);
  device_.hold_writes(false);
  EXPECT_TRUE(eventually([&] { return server_->connections() == 0; }));
}

TEST_F(KernelSinkOfNbdServer, StopEndsItsConnectionsAndTakesNoMore) {
  make_sink();
  Client client = adopted();
  EXPECT_EQ(client.read(0, 1).size(), 1U);
  stop();
  EXPECT_TRUE(client.is_closed_by_server());
  EXPECT_EQ(closed_, 1);
  Client late = adopted();
  EXPECT_TRUE(late.is_closed_by_server());
  EXPECT_EQ(closed_, 2);
}

TEST_F(KernelSinkOfNbdServer, IsNotCountedAmongTheClients) {
  make({.connections_max = 1});
  sink_ = server_->kernel_sink(0, "/dev/nbd0");
  ASSERT_TRUE(server_->listen({.kind = Endpoint::Kind::kUnix, .path = path_}).has_value());
  start();
  Client first = adopted();
  Client second = adopted();
  Client client = connect();
  client.enter("disk");
  EXPECT_EQ(client.read(0, 1).size(), 1U);
}

TEST(TransmissionFlags, SayWhatTheExportCanDo) {
  ExportInfo nothing;
  nothing.can_flush = nothing.can_fua = nothing.can_write_zeroes = nothing.can_cache = false;
  EXPECT_EQ(transmission_flags(nothing), kTransmitHasFlags);
  ExportInfo all;
  all.can_trim = all.can_fast_zero = all.can_multi_connection = true;
  EXPECT_EQ(transmission_flags(all), kTransmitHasFlags | kTransmitFlush | kTransmitFua |
                                         kTransmitTrim | kTransmitWriteZeroes | kTransmitFastZero |
                                         kTransmitMultiConn | kTransmitCache);
}

TEST(TransmissionFlags, OfAReadOnlyExportLeaveChangesOut) {
  ExportInfo info;
  info.read_only = info.can_trim = info.can_fast_zero = true;
  info.can_cache = false;
  EXPECT_EQ(transmission_flags(info),
            kTransmitHasFlags | kTransmitReadOnly | kTransmitFlush | kTransmitFua);
}

TEST(ExportList, RefusesNamesThatCannotBeSentOrAreTaken) {
  ArrayDevice device;
  Export good(device, {.name = "a", .description = ""});
  Export same(device, {.name = "a", .description = ""});
  Export broken(device, {.name = "\xff", .description = ""});
  EXPECT_FALSE(ExportList::create({&good, &same}).has_value());
  EXPECT_FALSE(ExportList::create({&broken}).has_value());
  const Result<ExportList> list = ExportList::create({&good});
  ASSERT_TRUE(list.has_value());
  EXPECT_EQ(list->find("a"), 0U);
  EXPECT_EQ(list->find(""), 0U);
  EXPECT_EQ(list->find("b"), std::nullopt);
}

}  // namespace
}  // namespace usbd::nbd
