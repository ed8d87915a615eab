// SPDX-License-Identifier: Apache-2.0
//
// What the thread sanitizer has to be told. A client may read what it is writing at that moment and
// gets old or new bytes, as from any disk; for a device's own memory, which is sent from and
// received into, such a pair of requests is a data race that no lock could end.

#pragma once

#include "usbd/buffer.h"

#if defined(__SANITIZE_THREAD__)
// Of the sanitizer's runtime; no header declares it.
extern "C" void AnnotateBenignRaceSized(const char* file, int line, const volatile void* memory,
                                        size_t length, const char* why);
#endif

namespace usbd {

/// Accesses to `data`, which belongs to clients, are not checked against each other from now on.
inline void ignore_races_of_clients([[maybe_unused]] MutableBytes data) {
#if defined(__SANITIZE_THREAD__)
  AnnotateBenignRaceSized(__FILE__, __LINE__, data.data(), data.size(), "clients' data");
#endif
}

}  // namespace usbd
