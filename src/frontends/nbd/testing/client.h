// SPDX-License-Identifier: Apache-2.0
//
// For tests and the fuzzer: the client's side of transmission. It makes requests, and takes the
// server's stream of replies apart by itself, from the specification's numbers: what does not
// belong into such a stream is a violation (an unknown or repeated cookie, an error with data, data
// that was not asked for, a chunk of the wrong kind).

#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace usbd::nbd {

class StreamClient {
 public:
  enum Command : uint16_t {
    kRead = 0,
    kWrite = 1,
    kDisc = 2,
    kFlush = 3,
    kTrim = 4,
    kCache = 5,
    kZero = 6,
    kStatus = 7,
  };
  static constexpr uint16_t kFua = 1;
  static constexpr uint16_t kNoHole = 2;
  static constexpr uint16_t kDf = 4;
  static constexpr uint16_t kReqOne = 8;
  static constexpr uint16_t kFastZero = 16;

  struct Ask {
    uint16_t command = kRead;
    uint64_t offset = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
  };
  struct Answer {
    uint32_t error = 0;
    /// Bytes that were read, and how many.
    std::string data = {};
    size_t length = 0;
    /// Length and flags of each extent.
    std::vector<std::pair<uint32_t, uint32_t>> extents = {};
    unsigned chunks = 0;
  };

  explicit StreamClient(bool structured) : structured_(structured) {}

  /// What the handshake came to.
  void set_structured(bool structured) { structured_ = structured; }
  /// From now on the data of reads is only counted.
  void forget_data() { keep_data_ = false; }

  /// The bytes of a request with a new cookie, and room for `payload` bytes; a write's payload
  /// follows by itself.
  std::string request(Ask ask, size_t payload = 0) {
    last_cookie_ = next_cookie_;
    next_cookie_ = next_cookie_ * 6364136223846793005U + 1442695040888963407U;
    if (ask.command != kDisc) pending_.emplace(last_cookie_, ask);
    std::string bytes;
    bytes.reserve(28 + payload);
    bytes += be(uint32_t{0x25609513});
    bytes += be(ask.flags);
    bytes += be(ask.command);
    bytes += be(last_cookie_);
    bytes += be(ask.offset);
    bytes += be(ask.length);
    return bytes;
  }
  /// The same with a payload of `fill`s for a write.
  std::string request(Ask ask, char fill) {
    const size_t payload = ask.command == kWrite ? ask.length : 0;
    std::string bytes = request(ask, payload);
    bytes.append(payload, fill);
    return bytes;
  }
  [[nodiscard]] uint64_t last_cookie() const { return last_cookie_; }

  /// Takes a part of the server's stream, cut anywhere.
  void feed(std::string_view bytes) {
    stream_ += bytes;
    size_t used = 0;
    while (violation_.empty()) {
      const size_t length = take_reply(std::string_view(stream_).substr(used));
      if (length == 0) break;
      used += length;
    }
    stream_.erase(0, used);
  }

  /// Empty: everything so far was in order.
  [[nodiscard]] const std::string& violation() const { return violation_; }
  [[nodiscard]] size_t pending() const { return pending_.size(); }
  [[nodiscard]] bool in_the_middle() const { return !stream_.empty(); }
  [[nodiscard]] const std::map<uint64_t, Answer>& answers() const { return answers_; }
  [[nodiscard]] const Answer* answer(uint64_t cookie) const {
    const auto found = answers_.find(cookie);
    return found == answers_.end() || pending_.contains(cookie) ? nullptr : &found->second;
  }

  template <typename T>
  static std::string be(T value) {
    std::string out;
    for (size_t i = sizeof(T); i-- > 0;) out += static_cast<char>(value >> (8 * i));
    return out;
  }
  static uint64_t number(std::string_view text, size_t offset, size_t size) {
    uint64_t value = 0;
    for (const char c : text.substr(offset, size)) value = value << 8 | static_cast<uint8_t>(c);
    return value;
  }

 private:
  size_t fail(std::string what) {
    violation_ = std::move(what);
    return 0;
  }

  /// The length of the reply at the start of `text`, which has been taken; 0: there is no whole
  /// one, or it is wrong.
  size_t take_reply(std::string_view text) {
    if (text.size() < 4) return 0;
    const uint64_t magic = number(text, 0, 4);
    if (magic == 0x67446698) return take_simple(text);
    if (magic == 0x668e33ef && structured_) return take_chunk(text);
    return fail("something that is no reply");
  }

  size_t take_simple(std::string_view text) {
    if (text.size() < 16) return 0;
    const auto error = static_cast<uint32_t>(number(text, 4, 4));
    const uint64_t cookie = number(text, 8, 8);
    const auto found = pending_.find(cookie);
    if (found == pending_.end()) return fail("a reply to no request");
    const Ask& ask = found->second;
    if (answers_.contains(cookie)) return fail("a simple reply after a chunk");
    if (error != 0 && !is_known(error)) return fail("an error value that the protocol has not");
    size_t length = 16;
    Answer answer{.error = error};
    if (ask.command == kRead && error == 0) {
      if (structured_) return fail("a simple reply to a read, with structured replies");
      if (text.size() < length + ask.length) return 0;
      answer.length = ask.length;
      if (keep_data_) answer.data = text.substr(length, ask.length);
      length += ask.length;
    }
    if (ask.command == kStatus && error == 0) return fail("a simple answer to block status");
    answers_.emplace(cookie, std::move(answer));
    pending_.erase(found);
    return length;
  }

  size_t take_chunk(std::string_view text) {
    if (text.size() < 20) return 0;
    const uint64_t flags = number(text, 4, 2);
    const uint64_t type = number(text, 6, 2);
    const uint64_t cookie = number(text, 8, 8);
    const size_t length = number(text, 16, 4);
    const auto found = pending_.find(cookie);
    if (found == pending_.end()) return fail("a chunk for no request");
    if ((flags & ~1U) != 0) return fail("unknown chunk flags");
    if (length > (64U << 20)) return fail("an endless chunk");
    if (text.size() < 20 + length) return 0;
    Answer& answer = answers_[cookie];
    ++answer.chunks;
    if (!take_payload(type, text.substr(20, length), found->second, answer)) return 0;
    if ((flags & 1) != 0) {
      if (found->second.command == kRead && answer.error == 0 &&
          answer.length != found->second.length) {
        return fail("a read that ends before its data");
      }
      pending_.erase(found);
    }
    return 20 + length;
  }

  bool take_payload(uint64_t type, std::string_view payload, const Ask& ask, Answer& answer) {
    if (type == 0x8001) {
      if (payload.size() < 6 || payload.size() != 6 + number(payload, 4, 2)) {
        return fail("an error chunk of the wrong size") != 0;
      }
      answer.error = static_cast<uint32_t>(number(payload, 0, 4));
      if (!is_known(answer.error)) return fail("an error value that the protocol has not") != 0;
      if (answer.length > 0) return fail("an error after data") != 0;
      return true;
    }
    if (type == 1 && ask.command == kRead) {
      if (payload.size() != 8 + ask.length || number(payload, 0, 8) != ask.offset) {
        return fail("data that was not asked for") != 0;
      }
      answer.length = ask.length;
      if (keep_data_) answer.data = payload.substr(8);
      return true;
    }
    if (type == 5 && ask.command == kStatus) return take_extents(payload, ask, answer);
    if (type == 0 && payload.empty() && ask.command != kRead) return true;
    return fail("a chunk of the wrong kind") != 0;
  }

  bool take_extents(std::string_view payload, const Ask& ask, Answer& answer) {
    if (payload.size() < 12 || payload.size() % 8 != 4 || number(payload, 0, 4) != 1) {
      return fail("block status of a wrong form") != 0;
    }
    uint64_t covered = 0;
    for (size_t at = 4; at < payload.size(); at += 8) {
      const auto length = static_cast<uint32_t>(number(payload, at, 4));
      if (length == 0 || covered >= ask.length) return fail("extents of nothing") != 0;
      covered += length;
      answer.extents.emplace_back(length, static_cast<uint32_t>(number(payload, at + 4, 4)));
    }
    if ((ask.flags & kReqOne) != 0 && (answer.extents.size() > 1 || covered > ask.length)) {
      return fail("more than one extent, or beyond the range") != 0;
    }
    return true;
  }

  static bool is_known(uint64_t error) {
    constexpr uint32_t kErrors[] = {1, 5, 12, 22, 28, 75, 95, 108};
    return std::ranges::find(kErrors, error) != std::end(kErrors);
  }

  bool structured_;
  bool keep_data_ = true;
  uint64_t next_cookie_ = 0x1234;
  uint64_t last_cookie_ = 0;
  std::map<uint64_t, Ask> pending_;
  std::map<uint64_t, Answer> answers_;
  std::string stream_;
  std::string violation_;
};

}  // namespace usbd::nbd
