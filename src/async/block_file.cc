// SPDX-License-Identifier: Apache-2.0
//
// What a BlockFile does unless an implementation knows better.

#include "async/block_file.h"

namespace usbd {

std::optional<Result<void>> BlockFile::try_read(uint64_t /*offset*/, MutableBytes /*data*/) {
  return std::nullopt;
}

std::optional<Result<void>> BlockFile::try_write(uint64_t /*offset*/, Bytes /*data*/) {
  return std::nullopt;
}

}  // namespace usbd
