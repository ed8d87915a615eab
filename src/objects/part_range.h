// SPDX-License-Identifier: Apache-2.0
//
// Which bytes of an object of a known size a Part means: the same for every kind that cuts its
// objects itself.

#pragma once

#include <algorithm>

#include "objects/object_store.h"

namespace usbd::objects {

/// The bytes that `part` means, within the object's.
/// Errors: kOverflow: all of a larger object than the part takes.
inline Result<ByteRange> range_of(const Part& part, uint64_t object_size) {
  switch (part.kind) {
    case Part::Kind::kRange: {
      const uint64_t offset = std::min(part.offset, object_size);
      return ByteRange(offset, std::min(part.length, object_size - offset));
    }
    case Part::Kind::kTail: {
      const uint64_t length = std::min(part.length, object_size);
      return ByteRange(object_size - length, length);
    }
    case Part::Kind::kWhole:
      break;
  }
  if (object_size > part.length) return Errc::kOverflow;
  return ByteRange(0, object_size);
}

}  // namespace usbd::objects
