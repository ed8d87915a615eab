// SPDX-License-Identifier: Apache-2.0
//
// ImageModel: what a volume must hold after any prefix of its numbered changes. Every sector that
// was written says by which change, so that the image itself tells what is wrong with it.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "devices/objstore/block_map.h"

namespace usbd::sim {

class ImageModel {
 public:
  explicit ImageModel(uint64_t blocks) : blocks_(blocks) {}

  [[nodiscard]] uint64_t blocks() const { return blocks_.size(); }
  /// A stamp for the next change with data; never 0, which stands for zeros.
  uint64_t draw_stamp() { return ++stamps_; }

  /// The bytes of the blocks from `first` on as a change with this stamp leaves them.
  static void fill(MutableBytes bytes, uint64_t first, uint64_t stamp);

  /// Change `number` made `range` what `stamp` says.
  void note(objstore::BlockRange range, uint64_t number, uint64_t stamp);
  /// Forgets the changes after `number`: a crash took them.
  void forget_after(uint64_t number);

  /// Empty, or what is wrong: `bytes`, which begin with block `first`, must be what some prefix
  /// from `earliest` to `latest` leaves, each block by itself.
  [[nodiscard]] std::string check(uint64_t first, Bytes bytes, uint64_t earliest,
                                  uint64_t latest) const;

 private:
  [[nodiscard]] std::set<uint64_t> stamps_between(uint64_t block, uint64_t earliest,
                                                  uint64_t latest) const;

  /// By block: number and stamp.
  std::vector<std::map<uint64_t, uint64_t>> blocks_;
  uint64_t stamps_ = 0;
};

}  // namespace usbd::sim
