// SPDX-License-Identifier: Apache-2.0
//
// The words are found again by the rules of parse_arguments(): which of them are values follows
// from the kinds of the flags before them.

#include "daemon/command_line.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <unistd.h>

namespace usbd::daemon {

std::vector<std::string> environment_words() {
  std::vector<std::string> words;
  for (char** word = environ; *word != nullptr; ++word) words.emplace_back(*word);
  return words;
}

void hide_secrets(const FlagValues& values, int argc, char** argv) {
  const auto hide = [](char* text) { std::memset(text, 'x', std::strlen(text)); };
  for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string_view word = argv[i];
    const size_t start = std::min(word.find_first_not_of('-'), word.size());
    const size_t equals = word.find('=');
    const FlagSpec* const spec = values.find(word.substr(start, equals - start));
    if (start == 0 || start > 2 || spec == nullptr || spec->positional) continue;
    const bool in_next_word = equals == word.npos && spec->kind != FlagKind::kSwitch;
    if (in_next_word) ++i;
    if (spec->secret && i < argc) hide(in_next_word ? argv[i] : argv[i] + equals + 1);
  }
}

}  // namespace usbd::daemon
