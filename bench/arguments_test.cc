// SPDX-License-Identifier: Apache-2.0
//
// Tests of the benchmark programs' command lines.

#include "bench/arguments.h"

#include <array>

#include <gtest/gtest.h>

namespace usbd::bench {
namespace {

struct Values {
  std::string text;
  bool flag = false;
  uint64_t size = 0;
  uint64_t number = 0;
  double seconds = 0;
  std::string choice;
};

/// Parses `words` into `values`; returns the complaint, empty if there is none.
std::string parse(Values& values, std::vector<std::string> words) {
  const std::array<Argument, 6> table{{
      {"text", "TEXT", "", into(values.text)},
      {"flag", "", "", into(values.flag)},
      {"size", "SIZE", "", into_size(values.size)},
      {"number", "N", "", into_number(values.number, 1, 10)},
      {"seconds", "S", "", into_seconds(values.seconds)},
      {"choice", "KIND", "", into_choice(values.choice, {"this", "that"})},
  }};
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  const Result<void> parsed = parse_arguments(table, pointers);
  return parsed ? "" : parsed.error().context();
}

TEST(Arguments, TakesBothSpellingsOfAValue) {
  Values values;
  EXPECT_EQ(parse(values, {"--text", "a b", "--flag", "--size=64KiB", "--number", "10",
                           "--seconds=0.5", "--choice", "that"}),
            "");
  EXPECT_EQ(values.text, "a b");
  EXPECT_TRUE(values.flag);
  EXPECT_EQ(values.size, 65536U);
  EXPECT_EQ(values.number, 10U);
  EXPECT_EQ(values.seconds, 0.5);
  EXPECT_EQ(values.choice, "that");
}

TEST(Arguments, NamesWhatItRefuses) {
  for (const auto& [words, named] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--nothing"}, "--nothing"},
           {{"text"}, "text"},
           {{"--text"}, "--text needs TEXT"},
           {{"--flag=yes"}, "--flag"},
           {{"--number", "11"}, "from 1 to 10"},
           {{"--number", "0"}, "from 1 to 10"},
           {{"--number", "3x"}, "3x"},
           {{"--seconds", "-1"}, "-1"},
           {{"--seconds", "nan"}, "nan"},
           {{"--choice", "other"}, "one of this, that"},
           {{"--size", "4kb"}, "4kb"},
       }) {
    Values values;
    EXPECT_NE(parse(values, words).find(named), std::string::npos) << words.back();
  }
}

TEST(Arguments, ReadsSizes) {
  EXPECT_EQ(*parse_size("0"), 0U);
  EXPECT_EQ(*parse_size("3MiB"), 3U << 20);
  EXPECT_EQ(*parse_size("2gib"), 2ULL << 30);
  for (const char* const bad : {"", "KiB", "1K", "-1", "1.5GiB", "9999999999GiB", "1 KiB"}) {
    EXPECT_FALSE(parse_size(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace usbd::bench
