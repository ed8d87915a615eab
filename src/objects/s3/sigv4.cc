// SPDX-License-Identifier: Apache-2.0
//
// The four steps of Signature Version 4: canonical request, string to sign, key, signature.

#include "objects/s3/sigv4.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <span>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"
#include "objects/s3/encoding.h"

namespace usbd::objects::s3 {
namespace {

using Digest = std::array<std::byte, 32>;

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr std::string_view kTerminator = "aws4_request";

Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

Digest sha256(Bytes data) {
  Digest digest{};
  // Fetched once: EVP_sha256() would look the implementation up at each call.
  static EVP_MD* const kMethod = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  const int done =
      EVP_Digest(data.data(), data.size(), reinterpret_cast<unsigned char*>(digest.data()), nullptr,
                 kMethod, nullptr);
  USBD_ASSERT(done == 1);  // fails only without memory
  return digest;
}

Digest hmac(Bytes key, std::string_view text) {
  Digest digest{};
  unsigned length = 0;
  const auto* const data = reinterpret_cast<const unsigned char*>(text.data());
  auto* const out = reinterpret_cast<unsigned char*>(digest.data());
  const unsigned char* const done =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data, text.size(), out, &length);
  USBD_ASSERT(done != nullptr && length == digest.size());  // as above
  return digest;
}

/// A header's value with each run of blanks made one.
std::string canonical_value(std::string_view value) {
  std::string canonical;
  for (const char c : trim(value)) {
    const bool blank = c == ' ' || c == '\t';
    if (!blank) canonical += c;
    if (blank && canonical.back() != ' ') canonical += ' ';
  }
  return canonical;
}

struct CanonicalHeaders {
  std::string lines;
  std::string names;
};

CanonicalHeaders canonical_headers(const NameValues& headers) {
  // Equal names: one line, the values in the order given.
  std::map<std::string, std::string> sorted;
  for (const auto& [name, value] : headers) {
    const auto [at, added] = sorted.try_emplace(to_lower(name), canonical_value(value));
    if (!added) at->second += "," + canonical_value(value);
  }
  CanonicalHeaders canonical;
  for (const auto& [name, value] : sorted) {
    canonical.lines.append(name).append(":").append(value).append("\n");
    if (!canonical.names.empty()) canonical.names += ';';
    canonical.names += name;
  }
  return canonical;
}

std::string scope_of(const SigningScope& scope, std::string_view date) {
  return fmt::format("{}/{}/{}/{}", date, scope.region, scope.service, kTerminator);
}

std::string signature(std::string_view to_sign, std::string_view secret, std::string_view date,
                      const SigningScope& scope) {
  Digest key = hmac(bytes_of("AWS4" + std::string(secret)), date);
  for (const std::string_view part :
       {std::string_view(scope.region), std::string_view(scope.service), kTerminator}) {
    key = hmac(key, part);
  }
  return to_hex(hmac(key, to_sign));
}

}  // namespace

std::string sha256_hex(Bytes data) {
  return to_hex(sha256(data));
}

std::string format_time(int64_t time) {
  constexpr int64_t kLast = 253402300799;  // 9999-12-31T23:59:59Z
  if (time < 0 || time > kLast) time = 0;
  const std::chrono::sys_seconds seconds{std::chrono::seconds(time)};
  const auto day = std::chrono::floor<std::chrono::days>(seconds);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(seconds - day);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

std::string canonical_query(const NameValues& query) {
  NameValues encoded;
  encoded.reserve(query.size());
  for (const auto& [name, value] : query) {
    encoded.emplace_back(percent_encode(name, KeepSlash::kNo),
                         percent_encode(value, KeepSlash::kNo));
  }
  std::ranges::sort(encoded);
  std::string canonical;
  for (const auto& [name, value] : encoded) {
    if (!canonical.empty()) canonical += '&';
    canonical.append(name).append("=").append(value);
  }
  return canonical;
}

std::string authorization(const SignedParts& parts, const SigningKey& key,
                          const SigningScope& scope) {
  const std::string time = format_time(scope.time);
  const std::string date = time.substr(0, 8);
  const CanonicalHeaders headers = canonical_headers(parts.headers);
  const std::string request = fmt::format(
      "{}\n{}\n{}\n{}\n{}\n{}", parts.method, percent_encode(parts.path, KeepSlash::kYes),
      canonical_query(parts.query), headers.lines, headers.names, parts.payload_hash);
  const std::string to_sign = fmt::format("{}\n{}\n{}\n{}", kAlgorithm, time, scope_of(scope, date),
                                          sha256_hex(bytes_of(request)));
  return fmt::format("{} Credential={}/{},SignedHeaders={},Signature={}", kAlgorithm, key.id,
                     scope_of(scope, date), headers.names,
                     signature(to_sign, key.secret, date, scope));
}

}  // namespace usbd::objects::s3
