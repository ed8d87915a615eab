// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the reading of keys. What is read has the size of a key, is the same with a line end
// behind it, and, written as hex, is read as itself.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "crypto/hmac.h"
#include "crypto/key_text.h"
#include "crypto/testing.h"
#include "fuzz/input.h"

using usbd::Bytes;
using usbd::crypto::ByteVector;
using usbd::crypto::decode_key;
using usbd::fuzz::promise;

namespace {

bool is_key(const ByteVector& content, Bytes expected) {
  const auto key = decode_key(content);
  return key && usbd::crypto::equal_secretly(key->bytes(), expected);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes content = std::as_bytes(std::span(data, size));
  const auto key = decode_key(content);
  if (!key) {
    promise(key.error().context().find("a key is 16, 24 or 32 bytes") != std::string::npos,
            "an error says what a key looks like");
    return 0;
  }
  promise(key->size() == 16 || key->size() == 24 || key->size() == 32, "the size of a key");
  promise(is_key(usbd::crypto::from_text(usbd::crypto::to_hex(key->bytes())), key->bytes()),
          "a key in hex is that key");
  const bool has_line_end = size % 4 != 0;  // all lengths of keys are multiples of 4
  ByteVector line(content.begin(), content.end());
  line.push_back(std::byte{'\n'});
  promise(has_line_end || is_key(line, key->bytes()), "a line end behind a key is ignored");
  return 0;
}
