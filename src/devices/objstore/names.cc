// SPDX-License-Identifier: Apache-2.0
//
// Names are made here only.

#include "devices/objstore/names.h"

#include <fmt/format.h>

namespace usbd::objstore {

std::string head_name(const std::string& volume) {
  return volume + "/head";
}

std::string data_name(const std::string& volume, const ObjectId& id) {
  const char kind = id.kind == ObjectKind::kData ? 'd' : 'g';
  return fmt::format("{}/{}/{:016x}/{:016x}", volume, kind, id.epoch, id.seq);
}

std::string map_name(const std::string& volume, uint64_t epoch, uint64_t id) {
  return fmt::format("{}/m/{:016x}/{:016x}", volume, epoch, id);
}

}  // namespace usbd::objstore
