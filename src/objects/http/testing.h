// SPDX-License-Identifier: Apache-2.0
//
// For tests: a small HTTP server on a port of loopback that the kernel chooses. A function answers
// each request, byte by byte as it likes, on a thread of the connection's own: it can cut, stall,
// reset, and say what no real server would.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "async/worker_pool.h"
#include "base/assert.h"
#include "base/mutex.h"
#include "base/unique_fd.h"

namespace usbd::objects::testing {

class TestServer {
 public:
  struct Request {
    std::string method;
    /// Path and query as they came.
    std::string target;
    /// The lines of the head after the first, each with its \r\n.
    std::string head;
    uint64_t body_length = 0;

    /// A header's value; empty if there is none. `name` as it was sent.
    [[nodiscard]] std::string header(std::string_view name) const {
      const std::string start = "\r\n" + std::string(name) + ": ";
      const std::string text = "\r\n" + head;
      const size_t at = text.find(start);
      if (at == std::string::npos) return {};
      return text.substr(at + start.size(), text.find("\r\n", at + 2) - at - start.size());
    }
  };

  class Connection {
   public:
    Connection(const std::atomic<bool>& stopping, int fd) : stopping_(stopping), fd_(fd) {}

    /// Reads what is left of the request's body.
    std::string read_body() {
      std::string body;
      while (body_left_ > 0 && fill()) take_body(body, body_left_);
      return body;
    }
    /// Reads up to `length` bytes of it.
    std::string read_some(uint64_t length) {
      std::string body;
      while (body_left_ > 0 && body.size() < length && fill()) {
        take_body(body, length - body.size());
      }
      return body;
    }
    void send(std::string_view data) {
      while (!data.empty()) {
        const ssize_t sent = ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
        if (sent <= 0) return close();
        data.remove_prefix(static_cast<size_t>(sent));
      }
    }
    /// "200 OK", headers each with its \r\n, body.
    void answer(std::string_view status, std::string_view body = {},
                const std::string& headers = {}) {
      read_body();
      std::string text = "HTTP/1.1 " + std::string(status) + "\r\n" + headers;
      text += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
      send(text.append(body));
    }
    /// Ends the connection by a reset.
    void reset() {
      const linger now{.l_onoff = 1, .l_linger = 0};
      ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
      closed_ = true;
    }
    void close() { closed_ = true; }
    /// Does nothing until the client has hung up or the server ends.
    void stall() {
      while (!stopping_.load()) {
        pollfd entry{fd_, POLLRDHUP, 0};
        if (::poll(&entry, 1, 20) > 0) break;
      }
      closed_ = true;
    }
    void pause(std::chrono::milliseconds time) {
      ::poll(nullptr, 0, static_cast<int>(time.count()));
    }

   private:
    friend class TestServer;

    /// Has at least one byte in the buffer. False: the end.
    bool fill() {
      if (!buffer_.empty()) return true;
      char data[65536];
      const ssize_t got = ::recv(fd_, data, sizeof(data), 0);
      if (got <= 0) {
        closed_ = true;
        return false;
      }
      buffer_.assign(data, static_cast<size_t>(got));
      return true;
    }
    void take_body(std::string& body, uint64_t most) {
      const size_t taken = std::min<uint64_t>({buffer_.size(), body_left_, most});
      body.append(buffer_, 0, taken);
      buffer_.erase(0, taken);
      body_left_ -= taken;
    }
    std::optional<Request> read_request() {
      std::string head;
      while (head.find("\r\n\r\n") == std::string::npos) {
        if (!fill()) return std::nullopt;
        head += std::exchange(buffer_, {});
        if (head[0] < 'A') return std::nullopt;  // TLS, for one
      }
      const size_t end = head.find("\r\n\r\n") + 2;
      buffer_ = head.substr(end + 2);
      const size_t line = head.find("\r\n");
      const size_t method = head.find(' ');
      Request request;
      request.method = head.substr(0, method);
      request.target = head.substr(method + 1, head.rfind(' ', line) - method - 1);
      request.head = head.substr(line + 2, end - line - 2);
      const std::string length = request.header("Content-Length");
      request.body_length = length.empty() ? 0 : std::stoull(length);
      body_left_ = request.body_length;
      return request;
    }

    const std::atomic<bool>& stopping_;
    const int fd_;
    bool closed_ = false;
    std::string buffer_;
    uint64_t body_left_ = 0;
  };

  /// Answers a request; what it leaves of its body is read afterwards.
  /// Threads: one for each connection.
  using Handler = std::function<void(Connection&, const Request&)>;

  explicit TestServer(Handler handler) : handler_(std::move(handler)), listener_(listen_socket()) {
    acceptor_.server = this;
    acceptor_.run = [](Work& work) { static_cast<Job&>(work).server->accept_all(); };
    pool_.emplace("server", 100U);
    pool_->submit(acceptor_);
  }
  ~TestServer() {
    stopping_.store(true);
    ::shutdown(listener_.get(), SHUT_RDWR);
    {
      const MutexLock lock(mutex_);
      for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    pool_.reset();
  }
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  [[nodiscard]] unsigned connections() const { return connections_.load(); }
  [[nodiscard]] std::vector<Request> requests() {
    const MutexLock lock(mutex_);
    return requests_;
  }

 private:
  struct Job final : Work {
    TestServer* server = nullptr;
    int fd = -1;
  };

  UniqueFd listen_socket() {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    USBD_ASSERT(::bind(fd.get(), generic, size) == 0);
    USBD_ASSERT(::listen(fd.get(), 128) == 0);
    USBD_ASSERT(::getsockname(fd.get(), generic, &size) == 0);
    port_ = ntohs(address.sin_port);
    return fd;
  }

  void accept_all() {
    while (!stopping_.load()) {
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++connections_;
      auto* const job = new Job;
      job->server = this;
      job->fd = fd;
      job->run = [](Work& work) {
        const std::unique_ptr<Job> owned(&static_cast<Job&>(work));
        owned->server->serve(owned->fd);
      };
      {
        const MutexLock lock(mutex_);
        open_.insert(fd);
        if (stopping_.load()) ::shutdown(fd, SHUT_RDWR);
      }
      pool_->submit(*job);
    }
  }

  void serve(int fd) {
    Connection connection(stopping_, fd);
    while (!connection.closed_) {
      const std::optional<Request> request = connection.read_request();
      if (!request.has_value()) break;
      {
        const MutexLock lock(mutex_);
        requests_.push_back(*request);
      }
      handler_(connection, *request);
      if (!connection.closed_) connection.read_body();
    }
    const MutexLock lock(mutex_);
    open_.erase(fd);
    ::close(fd);
  }

  const Handler handler_;
  uint16_t port_ = 0;
  const UniqueFd listener_;
  std::atomic<bool> stopping_{false};
  std::atomic<unsigned> connections_{0};
  Job acceptor_;
  Mutex mutex_;
  std::set<int> open_ USBD_GUARDED_BY(mutex_);
  std::vector<Request> requests_ USBD_GUARDED_BY(mutex_);
  /// Last: it is joined first.
  std::optional<WorkerPool> pool_;
};

}  // namespace usbd::objects::testing
