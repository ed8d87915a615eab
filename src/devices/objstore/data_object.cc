// SPDX-License-Identifier: Apache-2.0
//
// Opening a frame: its seal is opened, or else its checksum tells damage from intent; then it is
// decompressed into exactly the bytes that the directory has promised.

#include "devices/objstore/data_object.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "devices/objstore/data_object_layout.h"

namespace usbd::objstore {
namespace {

Error forged() {
  return Error(Errc::kAccess,
               "is not what was sealed: the key is another one, or it was changed or moved");
}

}  // namespace

std::string to_text(const ObjectId& id) {
  return fmt::format("{}/{}/{}", id.kind == ObjectKind::kData ? 'd' : 'g', id.epoch, id.seq);
}

Result<FrameOpener> FrameOpener::create(const VolumeSeal& seal, const ObjectId& id,
                                        const ObjectSalt& salt) {
  USBD_TRY(std::unique_ptr<const crypto::Sealer> sealer,
           layout::make_object_sealer(seal, id, salt));
  return FrameOpener(seal.volume, id, std::move(sealer));
}

Result<void> FrameOpener::open(uint32_t index, const FrameInfo& info, Bytes stored,
                               MutableBytes plain) const {
  USBD_ASSERT(plain.size() == info.logical);
  Result<void> opened = try_open(index, info, stored, plain);
  if (opened) return opened;
  std::ranges::fill(plain, std::byte{0});
  return Error(opened.error().code(), fmt::format("frame {} of data object {} {}", index,
                                                  to_text(id_), opened.error().context()));
}

Result<void> FrameOpener::try_open(uint32_t index, const FrameInfo& info, Bytes stored,
                                   MutableBytes plain) const {
  const size_t tag_size = sealer_->tag_size();
  if (stored.size() != info.stored || stored.size() <= tag_size) {
    return Error(Errc::kDamaged,
                 fmt::format("has {} bytes where {} are stored", stored.size(), info.stored));
  }
  // Of what its seal does not prove the checksum says whether it is damage or intent.
  const auto refused = [&] {
    return crc32c(stored) == info.crc ? forged()
                                      : Error(Errc::kDamaged, "is damaged: its checksum is wrong");
  };
  const Bytes cipher = stored.first(stored.size() - tag_size);
  const Bytes tag = stored.last(tag_size);
  const layout::FrameBinding binding = layout::bind(volume_, id_, index, info);
  if (info.codec == codec::CodecKind::kIdentity) {
    if (cipher.size() != plain.size()) return Error(Errc::kDamaged, "is not as long as it claims");
    if (!sealer_->open(index, {wire_bytes(binding)}, cipher, tag, plain)) return refused();
    return {};
  }
  std::vector<std::byte> packed(cipher.size());
  if (!sealer_->open(index, {wire_bytes(binding)}, cipher, tag, packed)) return refused();
  return codec::decompress(info.codec, packed, plain);
}

}  // namespace usbd::objstore
