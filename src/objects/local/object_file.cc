// SPDX-License-Identifier: Apache-2.0
//
// Trailers, made and checked.

#include "objects/local/object_file.h"

#include <cstddef>

#include <fmt/format.h>

#include "base/crc32c.h"

namespace usbd::objects {
namespace {

constexpr std::array<char, 8> kMagic = {'u', 's', 'b', 'd', '-', 'o', 'b', 'j'};
constexpr uint32_t kVersion = 1;

uint32_t checksum(const ObjectTrailer& trailer) {
  return crc32c(wire_bytes(trailer).first(offsetof(ObjectTrailer, trailer_crc)));
}

}  // namespace

ObjectTrailer make_trailer(Bytes contents, const PutNonce& nonce) {
  ObjectTrailer trailer{.magic = kMagic,
                        .version = kVersion,
                        .contents_crc = crc32c(contents),
                        .contents_size = contents.size(),
                        .nonce = nonce,
                        .reserved = uint32_t{0},
                        .trailer_crc = uint32_t{0}};
  trailer.trailer_crc = checksum(trailer);
  return trailer;
}

std::optional<std::string> find_damage(const ObjectTrailer& trailer, uint64_t file_size) {
  if (trailer.magic != kMagic) {
    return "it does not end as an object's does: it was cut, extended, or is not usbd's";
  }
  if (trailer.trailer_crc != checksum(trailer)) return "its last 48 bytes are damaged";
  if (trailer.version != kVersion || trailer.reserved != 0) {
    return fmt::format("it is of version {}, and this usbd reads version {}",
                       static_cast<uint32_t>(trailer.version), kVersion);
  }
  if (trailer.contents_size != file_size - sizeof(trailer)) {
    return fmt::format("it holds {} bytes, and {} were put", file_size - sizeof(trailer),
                       static_cast<uint64_t>(trailer.contents_size));
  }
  return std::nullopt;
}

std::string tag_of(const PutNonce& nonce) {
  std::string tag;
  for (const std::byte each : nonce) tag += fmt::format("{:02x}", static_cast<unsigned>(each));
  return tag;
}

}  // namespace usbd::objects
