// SPDX-License-Identifier: Apache-2.0
//
// What the objects of a volume are called below its prefix (docs/formats/README.md). Numbers are 16
// hexadecimal digits, so that names sort as numbers do.

#pragma once

#include <cstdint>
#include <string>

#include "devices/objstore/data_object.h"

namespace usbd::objstore {

/// `<volume>/head`
[[nodiscard]] std::string head_name(const std::string& volume);
/// `<volume>/d/<epoch>/<seq>` or `<volume>/g/<epoch>/<id>`
[[nodiscard]] std::string data_name(const std::string& volume, const ObjectId& id);
/// `<volume>/m/<epoch>/<id>`
[[nodiscard]] std::string map_name(const std::string& volume, uint64_t epoch, uint64_t id);

}  // namespace usbd::objstore
