// SPDX-License-Identifier: Apache-2.0
//
// Where a store in a directory keeps the object of a name, and back. Names may be longer than file
// names, and "a" and "a/b" may both exist, so a name is no path as it stands:
//
//     vol/head         vol/head,obj             an object is a file whose name ends in ",obj"
//     vol/head/x       vol/head/x,obj           which no folder's does: names have no commas
//     <300 bytes>      <120>,more/,<120>,more/,<60>,obj
//
// A part of a name, between slashes, is cut into pieces of kPathPiece bytes. A full piece is a
// folder "<piece>,more" even if nothing follows, so that no two entries of a folder have names with
// a common start that neither owns; that keeps walks in order. What is in such a folder begins with
// a comma. Anything else that lies around is no object.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace usbd::objects {

/// Every filesystem takes this and what is added to it. Units: bytes.
inline constexpr size_t kPathPiece = 120;

struct ObjectPath {
  std::vector<std::string> folders;
  std::string file;
};

/// The path of an object, below its container. Range: `name` is an object name.
[[nodiscard]] ObjectPath object_path(std::string_view name);

/// What an entry of a folder stands for.
struct PathEntry {
  enum class Kind : uint8_t { kObject, kFolder, kMore };
  Kind kind = Kind::kObject;
  /// How the names go on from those of the folder: an object's to its end, a folder's with the
  /// slash behind it. Entries in the order of their keys have their names in order.
  std::string key = {};
};

/// Reads the name of an entry. `in_more`: of a folder that continues a part. Empty: a name that
/// object_path() makes nowhere.
[[nodiscard]] std::optional<PathEntry> read_entry(std::string_view file_name, bool in_more);
/// The other way.
[[nodiscard]] std::string entry_file_name(const PathEntry& entry, bool in_more);

}  // namespace usbd::objects
