// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes pages of S3 listings.

#include <cstdint>
#include <string_view>

#include "fuzz/input.h"
#include "objects/s3/s3_answers.h"

using usbd::fuzz::promise;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto page = usbd::objects::s3::parse_list(text);
  if (!page) {
    promise(!page.error().context().empty(), "an error says what is wrong");
    return 0;
  }
  promise(page->objects.size() <= usbd::objects::kListPageMax, "a page is bounded");
  size_t names = 0;
  for (const usbd::objects::ObjectInfo& object : page->objects) {
    promise(!object.name.empty(), "each object has a name");
    names += object.name.size() + object.tag.size();
  }
  promise(names <= size, "nothing is expanded");
  promise(text.find("<!DOCTYPE") == std::string_view::npos, "no document types");
  return 0;
}
