// SPDX-License-Identifier: Apache-2.0
//
// Cutting names into paths.

#include "objects/local/object_path.h"

#include "objects/object_store.h"

namespace usbd::objects {
namespace {

constexpr std::string_view kObjectEnd = ",obj";
constexpr std::string_view kMoreEnd = ",more";
constexpr std::string_view kMoreStart = ",";

/// Whether `text` may stand between two slashes, as far as its bytes go.
bool has_name_bytes(std::string_view text) {
  return text.find_first_of(",/") == std::string_view::npos &&
         (text.empty() || is_object_name("x" + std::string(text) + "x"));
}

}  // namespace

ObjectPath object_path(std::string_view name) {
  ObjectPath path;
  for (;;) {
    const size_t slash = name.find('/');
    std::string_view part = name.substr(0, slash);
    std::string start;
    for (; part.size() >= kPathPiece; part.remove_prefix(kPathPiece)) {
      path.folders.push_back(start.append(part.substr(0, kPathPiece)).append(kMoreEnd));
      start = kMoreStart;
    }
    if (slash == std::string_view::npos) {
      path.file = start.append(part).append(kObjectEnd);
      return path;
    }
    path.folders.push_back(start.append(part));
    name.remove_prefix(slash + 1);
  }
}

std::optional<PathEntry> read_entry(std::string_view file_name, bool in_more) {
  if (in_more) {
    if (!file_name.starts_with(kMoreStart)) return std::nullopt;
    file_name.remove_prefix(kMoreStart.size());
  }
  PathEntry entry{.kind = PathEntry::Kind::kFolder};
  if (file_name.ends_with(kMoreEnd)) {
    entry.kind = PathEntry::Kind::kMore;
    file_name.remove_suffix(kMoreEnd.size());
  } else if (file_name.ends_with(kObjectEnd)) {
    entry.kind = PathEntry::Kind::kObject;
    file_name.remove_suffix(kObjectEnd.size());
  }
  const bool full = entry.kind == PathEntry::Kind::kMore;
  const bool right_size = full ? file_name.size() == kPathPiece : file_name.size() < kPathPiece;
  if (!right_size || (file_name.empty() && !in_more) || !has_name_bytes(file_name)) {
    return std::nullopt;
  }
  entry.key = file_name;
  if (entry.kind == PathEntry::Kind::kFolder) entry.key += '/';
  return entry;
}

std::string entry_file_name(const PathEntry& entry, bool in_more) {
  std::string name(in_more ? kMoreStart : "");
  switch (entry.kind) {
    case PathEntry::Kind::kObject:
      return name.append(entry.key).append(kObjectEnd);
    case PathEntry::Kind::kMore:
      return name.append(entry.key).append(kMoreEnd);
    case PathEntry::Kind::kFolder:
      break;
  }
  return name.append(entry.key, 0, entry.key.size() - 1);
}

}  // namespace usbd::objects
