// SPDX-License-Identifier: Apache-2.0
//
// FaultProxy: stands between a store and a real server, and lets requests fail: before they reach
// the server, on the way there, on the way back, or after their effect.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "objects/http/testing.h"

namespace usbd::objects::testing {

enum class Fault : uint8_t {
  kNone,
  // The server sees nothing of the request.
  kBusy,     ///< 503 SlowDown
  kTooMany,  ///< 429
  kBroken,   ///< 500 without a document
  kReset,    ///< after the head of the request
  kStall,
  // The server has done it.
  kResetAnswer,     ///< a reset in place of the answer
  kStallAnswer,     ///< nothing in place of the answer
  kBadGateway,      ///< 502 in place of the answer
  kCutAnswer,       ///< half of the answer, then the end
  kResetMidAnswer,  ///< half of the answer, then a reset
  kStallMidAnswer,  ///< half of the answer, then nothing
};
inline constexpr Fault kAllFaults[] = {
    Fault::kBusy,      Fault::kTooMany,        Fault::kBroken,        Fault::kReset,
    Fault::kStall,     Fault::kResetAnswer,    Fault::kStallAnswer,   Fault::kBadGateway,
    Fault::kCutAnswer, Fault::kResetMidAnswer, Fault::kStallMidAnswer};

constexpr bool has_effect(Fault fault) {
  return fault >= Fault::kResetAnswer;
}

class FaultProxy {
 public:
  /// `port`: the real server's. `choose`: the fault of each request; called on any thread.
  FaultProxy(uint16_t port, std::function<Fault(const TestServer::Request&)> choose)
      : port_(port),
        choose_(std::move(choose)),
        server_([this](TestServer::Connection& connection, const TestServer::Request& request) {
          serve(connection, request);
        }) {}

  [[nodiscard]] std::string url() const { return server_.url(); }

 private:
  static void answer_error(TestServer::Connection& connection, std::string_view status,
                           const std::string& code) {
    connection.answer(status, code.empty() ? "" : "<Error><Code>" + code + "</Code></Error>");
  }

  void serve(TestServer::Connection& connection, const TestServer::Request& request) {
    const Fault fault = choose_(request);
    switch (fault) {
      case Fault::kBusy:
        return answer_error(connection, "503 Slow Down", "SlowDown");
      case Fault::kTooMany:
        return answer_error(connection, "429 Too Many Requests", "");
      case Fault::kBroken:
        return answer_error(connection, "500 Internal Server Error", "");
      case Fault::kReset:
        connection.read_some(1000);
        return connection.reset();
      case Fault::kStall:
        return connection.stall();
      default:
        break;
    }
    spoil(connection, fault, forward(request, connection.read_body()));
  }

  static void spoil(TestServer::Connection& connection, Fault fault, const std::string& answer) {
    const std::string_view half = std::string_view(answer).substr(0, answer.size() / 2);
    switch (fault) {
      case Fault::kResetAnswer:
        return connection.reset();
      case Fault::kStallAnswer:
        return connection.stall();
      case Fault::kBadGateway:
        return answer_error(connection, "502 Bad Gateway", "");
      case Fault::kCutAnswer:
        connection.send(half);
        return connection.close();
      case Fault::kResetMidAnswer:
        connection.send(half);
        connection.pause(std::chrono::milliseconds(5));
        return connection.reset();
      case Fault::kStallMidAnswer:
        connection.send(half);
        return connection.stall();
      default:
        connection.send(answer);
        connection.close();
    }
  }

  /// The server's whole answer.
  [[nodiscard]] std::string forward(const TestServer::Request& request,
                                    const std::string& body) const {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return {};
    std::string text = request.method + " " + request.target + " HTTP/1.1\r\n" + request.head +
                       "Connection: close\r\n\r\n" + body;
    std::string_view rest = text;
    while (!rest.empty()) {
      const ssize_t sent = ::send(fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;
      rest.remove_prefix(static_cast<size_t>(sent));
    }
    std::string answer;
    char piece[65536];
    for (ssize_t got = 0; (got = ::recv(fd.get(), piece, sizeof(piece), 0)) > 0;) {
      answer.append(piece, static_cast<size_t>(got));
    }
    return answer;
  }

  const uint16_t port_;
  const std::function<Fault(const TestServer::Request&)> choose_;
  /// Last: its threads end first.
  TestServer server_;
};

}  // namespace usbd::objects::testing
