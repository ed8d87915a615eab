// SPDX-License-Identifier: Apache-2.0
//
// HttpClient: HTTP/1.1 requests over connections that are kept, for object stores. libcurl is the
// transport, on a thread of its own; a request goes there by a queue, and its answer comes back as
// work of the caller's loop, so that no coroutine ever runs on curl's thread.
//
// What it does not do: follow redirects, take proxies or credentials from the environment or from
// files, decompress, speak HTTP/2 (one connection would stall all requests at once), or send a
// request again on its own, except a GET or HEAD on a kept connection that the server had closed:
// a change that was sent twice could be refused for what its first copy did.

#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "usbd/buffer.h"
#include "usbd/loop.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objects {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  /// GET, HEAD, PUT or DELETE.
  std::string method;
  /// http or https, with all that must be encoded encoded.
  std::string url;
  HttpHeaders headers = {};
  /// PUT: what is sent. Lifetime: until the task has finished.
  Bytes body = {};
  /// Bytes of body that are taken of an answer 2xx.
  uint64_t response_max = 0;
  /// From the call on; zero: the client's own.
  Nanos timeout{0};
  std::stop_token stop = {};
};

struct HttpResponse {
  int status = 0;
  /// Names in small letters.
  HttpHeaders headers;
  std::vector<std::byte> body;

  /// The first value of a header, `name` in small letters; null if there is none.
  [[nodiscard]] const std::string* find(std::string_view name) const {
    for (const auto& [each, value] : headers) {
      if (each == name) return &value;
    }
    return nullptr;
  }
  [[nodiscard]] std::string_view text() const {
    return {reinterpret_cast<const char*>(body.data()), body.size()};
  }
};

struct HttpTransfer;

/// Threads:  one loop's; any number of requests outstanding at once.
/// Lifetime: close() before the destructor.
class HttpClient {
 public:
  struct Options {
    unsigned connections_max = limits::kHttpConnectionsMax;
    Nanos connect_timeout = limits::kHttpConnectTimeout;
    /// Of a request, its wait for a connection included.
    Nanos timeout = limits::kHttpTimeout;
    /// How long a request may go without moving a byte; waiting for the answer counts.
    Nanos stall = limits::kHttpStall;
    /// Certificates to trust in place of the system's (PEM).
    std::string ca_file = {};
  };

  /// Lifetime: `home`, the loop of all calls, outlives the client.
  /// Errors:   kNoMemory; kInvalid: the CA file cannot be read.
  static Result<std::unique_ptr<HttpClient>> create(Loop& home, Options options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// Makes a request. An answer of any status is a success.
  /// Order:  requests may overtake each other.
  /// Errors: kTimedOut (the timeout, the stall, connecting), kCanceled, kOverflow (a body longer
  ///         than response_max), kAccess (the server's certificate is not trusted), kInvalid (URL),
  ///         kNoMemory, kIo (no connection, broken, or nonsense).
  Task<Result<HttpResponse>> send(HttpRequest request);

  /// Ends the thread and closes the connections; requests outstanding end with kCanceled.
  Task<void> close();

 private:
  class Driver;
  HttpClient(Loop& home, Options options, std::unique_ptr<Driver> driver);

  Loop& home_;
  const Options options_;
  std::unique_ptr<Driver> driver_;
};

}  // namespace usbd::objects
