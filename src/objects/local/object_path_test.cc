// SPDX-License-Identifier: Apache-2.0
//
// Tests of paths: no two names share one, none can leave the container, and folders keep the order.

#include "objects/local/object_path.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "objects/object_store.h"

namespace usbd::objects {
namespace {

std::string joined(const ObjectPath& path) {
  return fmt::format("{}{}{}", fmt::join(path.folders, "/"), path.folders.empty() ? "" : "/",
                     path.file);
}

/// The name that the walk of a container would give the file at `path`.
std::optional<std::string> name_of(const ObjectPath& path) {
  std::string name;
  bool in_more = false;
  std::vector<std::string> all = path.folders;
  all.push_back(path.file);
  for (const std::string& each : all) {
    const std::optional<PathEntry> entry = read_entry(each, in_more);
    if (!entry) return std::nullopt;
    EXPECT_EQ(entry_file_name(*entry, in_more), each);
    name += entry->key;
    in_more = entry->kind == PathEntry::Kind::kMore;
  }
  return name;
}

std::string random_name(Rng& rng) {
  static constexpr std::string_view kBytes = "ab.-_0Z/";
  std::string name;
  while (!is_object_name(name)) {
    name.clear();
    const size_t size = rng.between(1, rng.one_in(3) ? 512 : 8);
    const bool long_parts = rng.one_in(2);
    while (name.size() < size) {
      char c = kBytes[rng.below(kBytes.size())];
      if (long_parts && c == '/' && !rng.one_in(20)) c = 'a';
      name += c;
    }
  }
  return name;
}

TEST(ObjectPath, ReadsLikeTheName) {
  EXPECT_EQ(joined(object_path("head")), "head,obj");
  EXPECT_EQ(joined(object_path("vol/d/7/00ff")), "vol/d/7/00ff,obj");
  const std::string piece(kPathPiece, 'x');
  EXPECT_EQ(joined(object_path(piece)), piece + ",more/,,obj");
  EXPECT_EQ(joined(object_path(piece + "/y")), piece + ",more/,/y,obj");
  EXPECT_EQ(joined(object_path(piece + piece + "z/y")),
            piece + ",more/," + piece + ",more/,z/y,obj");
}

TEST(ObjectPath, GivesEveryNameAPathOfItsOwnThatReadsBack) {
  SeededRng rng(7);
  std::set<std::string> names;
  std::set<std::string> paths;
  for (int i = 0; i < 20'000; ++i) {
    const std::string name = random_name(rng);
    const ObjectPath path = object_path(name);
    EXPECT_EQ(name_of(path), name);
    names.insert(name);
    paths.insert(joined(path));
    for (const std::string& folder : path.folders) EXPECT_LE(folder.size(), kPathPiece + 6);
  }
  EXPECT_EQ(names.size(), paths.size());
}

TEST(ObjectPath, KeepsTheOrderOfNamesFolderByFolder) {
  SeededRng rng(8);
  for (int i = 0; i < 20'000; ++i) {
    const std::string first = random_name(rng);
    // A relative of the first: what differs is near.
    std::string second = first.substr(0, rng.below(first.size())) + random_name(rng);
    if (!is_object_name(second) || first == second) continue;
    ObjectPath a = object_path(first);
    ObjectPath b = object_path(second);
    a.folders.push_back(a.file);
    b.folders.push_back(b.file);
    const size_t depth =
        static_cast<size_t>(std::ranges::mismatch(a.folders, b.folders).in1 - a.folders.begin());
    const bool in_more = depth > 0 && a.folders[depth - 1].ends_with(",more");
    const std::string key_a = read_entry(a.folders[depth], in_more)->key;
    const std::string key_b = read_entry(b.folders[depth], in_more)->key;
    EXPECT_EQ(key_a < key_b, first < second) << first << "\n" << second;
  }
}

TEST(ObjectPath, IsReadFromNothingElse) {
  for (const char* name : {"", ".", "..", ".usbd", ",obj", "a,obj,obj", "a,v", "a b,obj", "a~",
                           "a,more", "x,obj~", ",a,obj"}) {
    const std::optional<PathEntry> entry = read_entry(name, false);
    EXPECT_TRUE(!entry || entry->key == "./" || entry->key == "../" || entry->key == ".usbd/")
        << name;
  }
  EXPECT_FALSE(read_entry("a,obj", true));
  EXPECT_FALSE(read_entry(std::string(kPathPiece, 'x') + ",obj", false));
  EXPECT_FALSE(read_entry(std::string(kPathPiece, 'x'), false));
  EXPECT_FALSE(read_entry(std::string(kPathPiece + 1, 'x') + ",more", false));
}

}  // namespace
}  // namespace usbd::objects
