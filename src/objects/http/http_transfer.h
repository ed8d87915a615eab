// SPDX-License-Identifier: Apache-2.0
//
// HttpTransfer: one request of an HttpClient between its hand-over and its answer. It lives in the
// frame of the coroutine that waits. While curl has it, only curl's thread touches it, but for
// `canceled`.

#pragma once

#include <array>
#include <atomic>
#include <optional>

#include <curl/curl.h>

#include "objects/http/http_client.h"

namespace usbd::objects {

struct HttpTransfer {
  HttpTransfer(HttpRequest asked, const HttpClient::Options& client_options)
      : request(std::move(asked)), options(client_options) {}
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;
  ~HttpTransfer() { curl_slist_free_all(header_list); }

  const HttpRequest request;
  const HttpClient::Options& options;
  /// On the clock of the client's loop.
  Nanos deadline{0};
  std::atomic<bool> canceled{false};

  CURL* easy = nullptr;
  curl_slist* header_list = nullptr;
  std::array<char, CURL_ERROR_SIZE> error_text{};
  /// When a byte was last moved; set by who drives, from `moved`.
  Nanos last_progress{0};
  bool moved = false;
  /// It has been handed to a connection.
  bool sent = false;
  size_t body_sent = 0;
  size_t header_bytes = 0;
  bool headers_complete = false;
  /// Enough of an error's body has come.
  bool cut = false;
  /// Why we stopped it ourselves.
  std::optional<Error> failure;

  HttpResponse response;
  /// Posted to the client's loop when `result` is known and curl has let go.
  ResumeWork done;
  std::optional<Result<HttpResponse>> result;

  /// Makes `easy_handle` carry this request. Errors: kNoMemory; kInvalid.
  Result<void> prepare(CURL* easy_handle);
  /// Sets `result` from what curl says of the end.
  void finish(CURLcode code);
  /// When it is to be given up if nothing more moves.
  [[nodiscard]] Nanos expiry() const;
  /// Why it is given up at `expiry`.
  [[nodiscard]] Error expired(Nanos now) const;
};

}  // namespace usbd::objects
