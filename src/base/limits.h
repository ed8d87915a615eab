// SPDX-License-Identifier: Apache-2.0
//
// Every limit of the project in one place: queues, pools, retries, waits. A limit that users may
// change is a flag whose default stands here.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace usbd::limits {

using namespace std::chrono_literals;

// The loop.
inline constexpr unsigned kRingEntries = 256;
inline constexpr unsigned kFileIosInRingMax = 1024;
inline constexpr int kEpollEventsMax = 64;
/// A coroutine frame above this size is not pooled.
inline constexpr size_t kPooledFrameMax = 2048;
inline constexpr size_t kPooledFramesPerClassMax = 1024;
/// File operations of one round that one pool thread does in a row, by count and by bytes.
inline constexpr unsigned kFileBatchMax = 16;
inline constexpr uint64_t kFileBatchBytesMax = 512U << 10;

// Threads.
inline constexpr unsigned kLoopsDefaultMax = 4;
inline constexpr unsigned kBlockingThreadsMax = 16;

// Requests.
inline constexpr uint32_t kRequestMax = 32U << 20;           // payload of one request
inline constexpr uint64_t kTrimChunk = 64U << 20;            // range locked at once by a long trim
inline constexpr uint32_t kZeroBufferBytes = 1U << 20;       // zeros written at once by emulation
inline constexpr unsigned kRequestsPerConnectionMax = 1024;  // parsed and not yet answered
inline constexpr uint64_t kBytesPerConnectionMax = 64U << 20;
inline constexpr uint64_t kBytesTotalMax = 96U << 20;
inline constexpr size_t kReceiveBufferBytes = 256U << 10;
inline constexpr uint32_t kDirectReceiveMin = 32U << 10;
inline constexpr size_t kExtentsPerReplyMax = 1024;

// A connection that holds buffers others wait for must move this many bytes in this time.
inline constexpr auto kSlowConnectionGrace = 3s;
inline constexpr uint64_t kSlowConnectionBytes = 256U << 10;

// Connections.
inline constexpr unsigned kConnectionsMax = 1024;
inline constexpr unsigned kHandshakesMax = 256;
inline constexpr auto kHandshakeTimeout = 10s;
inline constexpr auto kDrainTimeout = 10s;

}  // namespace usbd::limits
