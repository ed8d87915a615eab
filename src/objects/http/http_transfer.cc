// SPDX-License-Identifier: Apache-2.0
//
// A transfer's options and callbacks: what curl is told, what is taken of an answer and what is too
// much of it, and the errors that curl's codes stand for.

#include "objects/http/http_transfer.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <fmt/format.h>

#include "base/units.h"

namespace usbd::objects {
namespace {

constexpr long kYes = 1;
constexpr long kNo = 0;

HttpTransfer& transfer_of(void* self) {
  return *static_cast<HttpTransfer*>(self);
}

long status_of(const HttpTransfer& transfer) {
  long status = 0;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

void add_header(HttpTransfer& transfer, std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return;
  std::string name(line.substr(0, colon));
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  const auto is_blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && is_blank(value.front())) value.remove_prefix(1);
  while (!value.empty() && is_blank(value.back())) value.remove_suffix(1);
  transfer.response.headers.emplace_back(std::move(name), value);
}

// Callbacks: C calls them, so nothing may be thrown through them; out of memory ends the process.

/// One line, ended by a newline; those of answers 1xx and of trailers too.
size_t on_header(char* data, size_t, size_t length, void* self) noexcept {
  HttpTransfer& transfer = transfer_of(self);
  transfer.moved = true;
  transfer.header_bytes += length;
  if (transfer.header_bytes > limits::kHttpHeadersMax) {
    transfer.failure = Error(Errc::kIo, fmt::format("an answer with headers of more than {}",
                                                    format_size(limits::kHttpHeadersMax)));
    return 0;
  }
  const std::string_view line(data, length);
  const bool interim = status_of(transfer) / 100 == 1;
  if (transfer.headers_complete && !line.starts_with("HTTP/")) return length;  // a trailer
  if (line.starts_with("HTTP/")) {
    transfer.response.headers.clear();
    transfer.headers_complete = false;
  } else if (line == "\r\n" || line == "\n") {
    transfer.headers_complete = !interim;
  } else {
    add_header(transfer, line);
  }
  return length;
}

/// The most that is taken of the body that begins.
uint64_t body_max(const HttpTransfer& transfer) {
  return status_of(transfer) / 100 == 2 ? transfer.request.response_max : limits::kHttpErrorBodyMax;
}

size_t on_body(char* data, size_t, size_t length, void* self) noexcept {
  HttpTransfer& transfer = transfer_of(self);
  transfer.moved = true;
  std::vector<std::byte>& body = transfer.response.body;
  const uint64_t most = body_max(transfer);
  curl_off_t announced = -1;
  if (body.empty()) {
    curl_easy_getinfo(transfer.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
    if (announced > 0) body.reserve(std::min(static_cast<uint64_t>(announced), most));
  }
  const bool error = status_of(transfer) / 100 != 2;
  const bool beyond =
      length > most - body.size() || (announced > 0 && static_cast<uint64_t>(announced) > most);
  if (beyond && !error) {
    transfer.failure = Error(Errc::kOverflow, fmt::format("a body of more than {} bytes", most));
    return 0;
  }
  const size_t taken = std::min<uint64_t>(length, most - body.size());
  const auto* const bytes = reinterpret_cast<const std::byte*>(data);
  body.insert(body.end(), bytes, bytes + taken);
  transfer.cut = taken < length;
  return taken;
}

size_t on_read(char* data, size_t, size_t length, void* self) noexcept {
  HttpTransfer& transfer = transfer_of(self);
  transfer.moved = true;
  const Bytes rest = transfer.request.body.subspan(transfer.body_sent);
  const size_t taken = std::min(length, rest.size());
  if (taken > 0) std::memcpy(data, rest.data(), taken);
  transfer.body_sent += taken;
  return taken;
}

/// The request is about to be written, for the first time or, if a kept connection turned out to be
/// closed, once more.
int on_ready(void* self, char*, char*, int, int) noexcept {
  HttpTransfer& transfer = transfer_of(self);
  const std::string& method = transfer.request.method;
  if (transfer.sent && method != "GET" && method != "HEAD") {
    transfer.failure = Error(Errc::kIo, "the connection was closed before an answer came");
    return CURL_PREREQFUNC_ABORT;
  }
  transfer.sent = true;
  return CURL_PREREQFUNC_OK;
}

template <typename T>
bool set(CURL* easy, CURLoption option, T value) {
  return curl_easy_setopt(easy, option, value) == CURLE_OK;
}

bool set_method(CURL* easy, const HttpRequest& request) {
  if (request.method == "GET") return set(easy, CURLOPT_HTTPGET, kYes);
  if (request.method == "HEAD") return set(easy, CURLOPT_NOBODY, kYes);
  if (request.method == "PUT") {
    return set(easy, CURLOPT_UPLOAD, kYes) &&
           set(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  }
  return set(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
}

bool set_callbacks(CURL* easy, HttpTransfer& transfer) {
  return set(easy, CURLOPT_HEADERFUNCTION, on_header) && set(easy, CURLOPT_HEADERDATA, &transfer) &&
         set(easy, CURLOPT_WRITEFUNCTION, on_body) && set(easy, CURLOPT_WRITEDATA, &transfer) &&
         set(easy, CURLOPT_READFUNCTION, on_read) && set(easy, CURLOPT_READDATA, &transfer) &&
         set(easy, CURLOPT_PREREQFUNCTION, on_ready) && set(easy, CURLOPT_PREREQDATA, &transfer) &&
         set(easy, CURLOPT_ERRORBUFFER, transfer.error_text.data()) &&
         set(easy, CURLOPT_PRIVATE, &transfer);
}

bool set_connection(CURL* easy, const HttpClient::Options& options) {
  const auto connect = std::chrono::ceil<std::chrono::milliseconds>(options.connect_timeout);
#if LIBCURL_VERSION_NUM >= 0x075500
  bool done = set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  bool done = set(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
  // Without it a cancelled look-up of a name would hold up all requests until it ends.
  done = done && set(easy, CURLOPT_QUICK_EXIT, kYes);
#endif
  if (!options.ca_file.empty()) {
    done = done && set(easy, CURLOPT_CAINFO, options.ca_file.c_str()) &&
           set(easy, CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  return done && set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect.count())) &&
         set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1)) &&
         set(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2)) &&
         set(easy, CURLOPT_NOSIGNAL, kYes) && set(easy, CURLOPT_TCP_NODELAY, kYes) &&
         set(easy, CURLOPT_TCP_KEEPALIVE, kYes) && set(easy, CURLOPT_PROXY, "") &&
         set(easy, CURLOPT_FOLLOWLOCATION, kNo) && set(easy, CURLOPT_PATH_AS_IS, kYes) &&
         set(easy, CURLOPT_BUFFERSIZE, limits::kHttpReceiveBytes) &&
         set(easy, CURLOPT_UPLOAD_BUFFERSIZE, limits::kHttpSendBytes);
}

/// `complete` becomes false if there is no memory for all of it.
curl_slist* make_header_list(const HttpRequest& request, bool& complete) {
  curl_slist* list = nullptr;
  const auto append = [&](const std::string& line) {
    curl_slist* const longer = curl_slist_append(list, line.c_str());
    complete = complete && longer != nullptr;
    if (longer != nullptr) list = longer;
  };
  append("Expect:");  // a server that knows no 100-continue would cost a second
  // An empty value is sent only if the line says so by a semicolon.
  for (const auto& [name, value] : request.headers) {
    append(value.empty() ? name + ";" : fmt::format("{}: {}", name, value));
  }
  return list;
}

Errc errc_of(CURLcode code) {
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return Errc::kTimedOut;
    case CURLE_OUT_OF_MEMORY:
      return Errc::kNoMemory;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return Errc::kAccess;
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_FUNCTION_ARGUMENT:
      return Errc::kInvalid;
    default:
      return Errc::kIo;
  }
}

}  // namespace

Result<void> HttpTransfer::prepare(CURL* easy_handle) {
  easy = easy_handle;
  bool complete = true;
  header_list = make_header_list(request, complete);
  complete = complete && set(easy, CURLOPT_URL, request.url.c_str()) && set_method(easy, request) &&
             set(easy, CURLOPT_HTTPHEADER, header_list) && set_callbacks(easy, *this) &&
             set_connection(easy, options);
  if (!complete) return Error(Errc::kNoMemory, "curl did not take the request's options");
  return {};
}

void HttpTransfer::finish(CURLcode code) {
  if (failure.has_value()) {
    result = *std::move(failure);
  } else if (code == CURLE_OK && !headers_complete) {
    // curl takes it for an answer without a body.
    result = Error(Errc::kIo, "the answer ended in its headers");
  } else if (code == CURLE_OK || cut) {
    response.status = static_cast<int>(status_of(*this));
    result = std::move(response);
  } else {
    const char* const text = error_text[0] != '\0' ? error_text.data() : curl_easy_strerror(code);
    result = Error(errc_of(code), text);
  }
}

Nanos HttpTransfer::expiry() const {
  return std::min(deadline, last_progress + options.stall);
}

Error HttpTransfer::expired(Nanos now) const {
  if (now >= deadline) return Error(Errc::kTimedOut, "no complete answer in the time it was given");
  return Error(Errc::kTimedOut,
               fmt::format("nothing moved for {}", format_duration(options.stall)));
}

}  // namespace usbd::objects
