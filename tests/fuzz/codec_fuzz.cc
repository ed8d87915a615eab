// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the decoder of each codec: bytes from a bucket, after two that say which codec and how
// large the result should be. What is decoded fills that exactly; what is right compresses and is
// decoded again to the same.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "codec/codec.h"
#include "fuzz/input.h"

using usbd::codec::CodecKind;
using usbd::fuzz::promise;

namespace {

constexpr std::byte kUntouched{0xA5};

void check_round_trip(CodecKind kind, const std::vector<std::byte>& plain) {
  const auto packed = usbd::codec::compress({.kind = kind}, plain);
  if (!packed) return;
  promise(packed->size() < plain.size(), "what is compressed is smaller");
  std::vector<std::byte> again(plain.size());
  promise(usbd::codec::decompress(kind, *packed, again).has_value() && again == plain,
          "what is compressed is decoded to the same");
}

void check_decoder(CodecKind kind, size_t size, usbd::Bytes data) {
  // A byte more than the decoder is told of.
  std::vector<std::byte> out(size + 1, kUntouched);
  const auto decoded = usbd::codec::decompress(kind, data, usbd::MutableBytes(out).first(size));
  promise(out.back() == kUntouched, "a decoder keeps to its memory");
  promise(decoded || !decoded.error().context().empty(), "an error says what is wrong");
  out.pop_back();
  if (decoded) check_round_trip(kind, out);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto codec = usbd::codec::parse_codec(text);
  if (codec) promise(*usbd::codec::parse_codec(to_text(*codec)) == *codec, "a codec's text");

  usbd::fuzz::FuzzInput input({data, size});
  const auto kind = static_cast<CodecKind>(input.byte() % usbd::codec::kCodecKinds);
  constexpr size_t kSizes[] = {0, 1, 16, 100, 4096, 65536, 1U << 20};
  const size_t wanted = input.pick(kSizes) + input.byte() % 4;
  const std::string rest = input.take(size);
  check_decoder(kind, wanted, std::as_bytes(std::span(rest)));
  check_round_trip(
      kind, std::vector<std::byte>(reinterpret_cast<const std::byte*>(rest.data()),
                                   reinterpret_cast<const std::byte*>(rest.data()) + rest.size()));
  return 0;
}
