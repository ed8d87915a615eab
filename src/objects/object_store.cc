// SPDX-License-Identifier: Apache-2.0
//
// What callers and kinds of stores agree on: names, and which errors may pass.

#include "objects/object_store.h"

#include <algorithm>

namespace usbd::objects {
namespace {

bool is_name_character(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '/';
}

bool is_edge_character(char c) {
  return c != '.' && c != '/';
}

}  // namespace

bool is_object_name(std::string_view name) {
  if (name.empty() || name.size() > kObjectNameMax) return false;
  if (!is_edge_character(name.front()) || !is_edge_character(name.back())) return false;
  if (!std::ranges::all_of(name, is_name_character)) return false;
  // The edges are no slashes, so each part has one before or behind it.
  return name.find("//") == std::string_view::npos && name.find("/./") == std::string_view::npos &&
         name.find("/../") == std::string_view::npos;
}

bool is_transient(const Error& error) {
  return error.is(Errc::kTimedOut) || error.is(Errc::kAgain) || error.is(Errc::kIo);
}

}  // namespace usbd::objects
