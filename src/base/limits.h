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
/// Events taken from the kernel in one round.
inline constexpr int kEpollEventsMax = 64;
/// How long a loop looks for work before it sleeps, the most that users may ask for, and the sleeps
/// without looking when nothing has ever come of it (async/busy_poll.h). To give the processor up
/// takes longer than kBusyPollYield only if another thread wants it.
inline constexpr auto kBusyPoll = 50us;
inline constexpr auto kBusyPollMax = 10ms;
inline constexpr auto kBusyPollYield = 5us;
inline constexpr unsigned kBusyPollSkipMax = 1024;
/// A coroutine frame above this size, in bytes, is not pooled.
inline constexpr size_t kPooledFrameMax = 2048;
inline constexpr size_t kPooledFramesPerClassMax = 1024;
/// File operations of one round that one thread does in a row, by count and by bytes.
inline constexpr unsigned kFileBatchMax = 8;
inline constexpr uint64_t kFileBatchBytesMax = 256U << 10;

// Calls that a loop makes itself (async/call_pace.h): the mean up to which those to a device and
// writes to files are short, for each 64 KiB that they move; the bytes of the largest.
inline constexpr auto kShortCall = 20us;
inline constexpr auto kShortWrite = 100us;
inline constexpr uint64_t kPacedBytes = 64U << 10;
inline constexpr uint64_t kOwnCallBytesMax = 64U << 10;
inline constexpr uint64_t kOwnWriteBytesMax = 1U << 20;
/// How long a loop makes calls until it answers those that it has made: while it makes more, the
/// client works on the answers.
inline constexpr auto kOwnCallsTime = 50us;
/// How long the pool makes the calls after they have been long.
inline constexpr auto kCallPauseMin = 100ms;
inline constexpr auto kCallPauseMax = 30s;
/// How often the watch looks at loops that make calls (async/loop_threads.h); how often it sees one
/// computing in the same call before it is given to another thread; how many times it looks at
/// loops that make none before it sleeps.
inline constexpr auto kWatchEvery = 2ms;
inline constexpr unsigned kWatchPatience = 10;
inline constexpr unsigned kWatchRoundsMin = 50;

// Files. Devices in memory keep to the same: no call holds a lock or a thread for much over 10 ms.
/// Bytes that one read or write asks of the kernel, which itself moves less than 2 GiB.
inline constexpr uint64_t kFileTransferMax = 1U << 30;
/// Interrupted calls in a row without progress, before a request fails.
inline constexpr unsigned kFileRetriesMax = 100;
/// Bytes of one fallocate call: it holds the inode's lock, 10 ms for this much cached data.
inline constexpr uint64_t kFileAllocationPiece = 256U << 20;
/// FUA writes of one file at once, each on a descriptor that is kept for the next; those beyond
/// share one sync instead.
inline constexpr unsigned kFileFuaWritesMax = 32;
/// Bytes of memory for a direct request whose own memory is not aligned.
inline constexpr size_t kFileBounceBytes = 1U << 20;
/// Searches for holes in a row before other work of the loop gets its turn.
inline constexpr unsigned kFileSeeksPerTurn = 32;
/// How long a file that another process has locked is tried for, and how often.
inline constexpr auto kFileLockWait = 2s;
inline constexpr auto kFileLockRetryEvery = 20ms;
/// Bytes of memory given back by one call: about 10 ms if all of it is taken.
inline constexpr uint64_t kMemoryReleasePiece = 64U << 20;
/// Bytes zeroed in place at once: under 2 ms if their pages must be taken first.
inline constexpr uint64_t kMemoryZeroPiece = 2U << 20;

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
/// Bytes received in one turn of a connection whose requests wait for their device.
inline constexpr uint64_t kReceiveTurnBytes = 192U << 10;
inline constexpr uint32_t kDirectReceiveMin = 32U << 10;
/// Bytes that are received behind a payload that goes straight to its place.
inline constexpr size_t kDirectLookahead = 4U << 10;
inline constexpr size_t kExtentsPerReplyMax = 1024;
/// Searches for extents of one export at once.
inline constexpr unsigned kExtentsInFlightMax = 16;

// Slow connections. One that holds buffers others wait for must move so many bytes in the grace, or
// it is closed. The more wait, the shorter the grace, so that they do not add up: it is the longest
// while up to so many wait, and the shortest from ten times as many on.
inline constexpr uint64_t kSlowConnectionBytes = 256U << 10;
inline constexpr auto kSlowConnectionGraceMax = 3s;
inline constexpr unsigned kSlowConnectionFew = 4;
/// More than a lost TCP segment takes to be sent again; a link of 1 MB/s is fast enough for it.
inline constexpr auto kSlowConnectionGraceMin = 300ms;

// Connections.
inline constexpr unsigned kConnectionsMax = 1024;
/// Connections that may be in the handshake; beyond, the oldest of them is closed.
inline constexpr unsigned kHandshakesMax = 256;
inline constexpr auto kHandshakeTimeout = 10s;
/// Bytes that all connections together may have received and not started yet, and what each may
/// receive at least.
inline constexpr size_t kReceivedTotalMax = 32U << 20;
inline constexpr size_t kReceiveBytesMin = 16U << 10;

// The handshake of one connection.
/// Bytes of one option; longer ones are skipped and refused.
inline constexpr uint32_t kOptionBytesMax = 64U << 10;
/// Bytes that a client sends before transmission; announcing more closes the connection.
inline constexpr uint64_t kNegotiationBytesMax = 1U << 20;
inline constexpr uint32_t kOptionsMax = 1024;
/// Queries of one metadata context option, and items of one information option.
inline constexpr uint32_t kQueriesMax = 256;
inline constexpr uint32_t kInfoRequestsMax = 256;

// Listening.
/// Connections taken before the loop does other work.
inline constexpr int kAcceptsPerRound = 16;
/// How long a listener pauses when descriptors or memory have run out.
inline constexpr auto kAcceptPause = 100ms;
/// A TCP peer that vanished without a word is noticed after about two minutes.
inline constexpr auto kTcpKeepIdle = 60s;
inline constexpr auto kTcpKeepInterval = 10s;
inline constexpr int kTcpKeepProbes = 6;
/// Waits for another server that is at this moment looking at the same folder: one second.
inline constexpr int kFolderLockTries = 100;
inline constexpr auto kFolderLockPause = 10ms;
/// With port 0 and several addresses: how often to ask for a port that is free on all of them.
inline constexpr int kSharedPortTries = 8;

// A kernel device.
/// How long one that is not connected, yet open somewhere, is waited for: udev looks into every
/// device for a moment.
inline constexpr auto kKernelBusyPatience = 3s;
inline constexpr auto kKernelBusyPoll = 50ms;
/// How long the node of a device just made may take to appear.
inline constexpr auto kKernelNodePatience = 10s;
/// How long NBD_DO_IT may take to make the device visible.
inline constexpr auto kKernelStartPatience = 5s;
/// How long a disconnected device may take to be free again.
inline constexpr auto kKernelReleasePatience = 2s;
/// How often sysfs and /dev are looked at in these waits.
inline constexpr auto kKernelPoll = 5ms;
/// Sessions of one device whose socket is dead and which have not ended; with more of them dead
/// sockets are replaced slowly.
inline constexpr size_t kKernelUnfinishedMax = 64;
/// Between two attempts to replace a dead socket: at first, at most, and with too many unfinished.
inline constexpr auto kKernelReplaceMin = 10ms;
inline constexpr auto kKernelReplaceMax = 1000ms;
inline constexpr auto kKernelReplaceCrowded = 60s;
/// Failed calls in a row for one socket, after which the device counts as lost.
inline constexpr unsigned kKernelFailuresMax = 8;
/// Sockets of one device by default and at most: the driver puts no bound on it, and needs none
/// above the CPUs.
inline constexpr unsigned kKernelConnectionsDefaultMax = 4;
inline constexpr unsigned kKernelConnectionsMax = 64;

// Stopping.
/// How long connections get to take the answers to what they have asked.
inline constexpr auto kDrainTimeout = 10s;
/// How often it is said that requests in the device are still waited for.
inline constexpr auto kDeviceWaitReportEvery = 10s;
/// How often a kernel device that is in use is looked at again.
inline constexpr auto kKernelReleasePoll = 200ms;
/// What syncing a kernel device that nobody uses gets however little time there is.
inline constexpr auto kKernelSyncMin = 3s;
/// What answering, the last flush and closing get, after the wait for a kernel device.
inline constexpr auto kCloseTimeout = 60s;
/// Signals closer together are one: a terminal, sudo and timeout may each pass a Ctrl+C on.
inline constexpr auto kSameSignal = 100ms;

/// Bytes of a configuration or key file, which is read whole.
inline constexpr size_t kTextFileMax = 1U << 20;

}  // namespace usbd::limits
