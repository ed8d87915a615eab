// SPDX-License-Identifier: Apache-2.0
//
// How documents look to people.

#include "ctl/console.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace usbd::ctl {
namespace {

using Json = nlohmann::ordered_json;

TEST(Console, ShowsADocumentAsIndentedLines) {
  Json document;
  document["volume"] = "disk";
  document["size_bytes"] = 1536;
  document["created"] = nullptr;
  document["head"] = {{"clean", true}, {"last_seq", 7}};
  document["journals"] = Json::array();
  document["journals"].push_back(Json{{"file", "a"}, {"used_bytes", 12}});
  document["journals"].push_back(Json{{"file", "b"}, {"used_bytes", 0}});
  document["snapshots"] = Json::array();
  document["needs_key"] = {"space"};
  EXPECT_EQ(to_lines(document),
            "volume: disk\n"
            "size bytes: 1.5 KiB (1536)\n"
            "created: -\n"
            "head:\n"
            "  clean: yes\n"
            "  last seq: 7\n"
            "journals:\n"
            "  - file: a\n"
            "    used bytes: 12 B\n"
            "  - file: b\n"
            "    used bytes: 0 B\n"
            "snapshots: none\n"
            "needs key:\n"
            "  - space\n");
}

TEST(Console, ShowsNoControlCharactersOfOthers) {
  const Json document{{"name", "a\x1b[2J\nb"}};
  EXPECT_EQ(to_lines(document), "name: a\\x1b[2J\\x0ab\n");
}

TEST(Console, RoundsSizes) {
  EXPECT_EQ(rough_size(0), "0 B");
  EXPECT_EQ(rough_size(1023), "1023 B");
  EXPECT_EQ(rough_size(1536), "1.5 KiB");
  EXPECT_EQ(rough_size(uint64_t{3} << 40U), "3.0 TiB");
  EXPECT_EQ(rough_size(UINT64_MAX), "16.0 EiB");
}

}  // namespace
}  // namespace usbd::ctl
