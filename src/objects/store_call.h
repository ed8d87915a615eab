// SPDX-License-Identifier: Apache-2.0
//
// The kinds of calls to an ObjectStore, for those that count them or make them fail.

#pragma once

#include <cstddef>
#include <cstdint>

namespace usbd::objects {

enum class StoreCall : uint8_t { kPut, kGet, kHead, kList, kRemove };
inline constexpr size_t kStoreCalls = 5;

/// "put", "get", "head", "list", "remove".
constexpr const char* store_call_name(StoreCall call) {
  constexpr const char* kNames[kStoreCalls] = {"put", "get", "head", "list", "remove"};
  return kNames[static_cast<size_t>(call)];
}

}  // namespace usbd::objects
