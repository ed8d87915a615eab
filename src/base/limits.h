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

// Folders of local files.
/// Entries of any kind that a directory may have to be listed.
inline constexpr uint64_t kFolderEntriesMax = 10'000;

// The journal.
/// Payload that waits in memory for its place in the ring, and records being written at once.
inline constexpr uint64_t kJournalStagedBytesMax = 64U << 20;
inline constexpr unsigned kJournalWritesMax = 8;
/// Buffers of records that are free and go to the next ones.
inline constexpr uint64_t kJournalFreeBuffersMax = 16U << 20;
/// How long after a sync the journal is idle before it notes on disk that the sync was done.
inline constexpr auto kJournalMarkAfter = 10ms;
/// The part of the ring that is freed at once.
inline constexpr uint64_t kJournalFreeSteps = 16;

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

// HTTP (objects/http) and S3 (objects/s3).
/// Connections of one client; requests beyond them wait, without a limit of their own: callers have
/// one.
inline constexpr unsigned kHttpConnectionsMax = 64;
inline constexpr auto kHttpConnectTimeout = 10s;
/// A request that takes longer has failed, and one that moves nothing for so long.
inline constexpr auto kHttpTimeout = 300s;
inline constexpr auto kHttpStall = 20s;
/// Bytes of all headers of an answer, and of the body of one that reports an error: more of the
/// latter is left unread.
inline constexpr size_t kHttpHeadersMax = 64U << 10;
inline constexpr size_t kHttpErrorBodyMax = 16U << 10;
/// Bytes that are received and sent at once by one connection.
inline constexpr long kHttpReceiveBytes = 128L << 10;
inline constexpr long kHttpSendBytes = 256L << 10;
/// How long the client's thread sleeps at most; it is woken for what it has to do.
inline constexpr auto kHttpPollMax = 60s;
/// Bytes of a page of a listing: 1000 names of 1024 bytes, each of them encoded, and the rest.
inline constexpr size_t kS3ListBytesMax = 4U << 20;
/// Pages in a row that hold nothing for the caller, before a listing gives up.
inline constexpr unsigned kS3EmptyPagesMax = 1000;
/// Bytes up to which a payload is hashed where it is: more would hold the loop up for over 50 us.
inline constexpr size_t kS3HashHereMax = 64U << 10;
/// Rounds of finding out which form of a tag a server takes, while others change the object.
inline constexpr unsigned kS3TagRounds = 3;
/// Credentials that expire are fetched anew so long before, and after a failure not sooner than
/// after the pause.
inline constexpr auto kS3CredentialsEarly = 300s;
inline constexpr auto kS3CredentialsPause = 5s;
inline constexpr auto kS3MetadataTimeout = 5s;
inline constexpr size_t kS3MetadataBytesMax = 64U << 10;

// Encryption and compression.
/// Bytes encrypted or authenticated by one call: OpenSSL counts them with an int.
inline constexpr size_t kSealedPieceMax = 1U << 30;
/// Contexts that one key keeps for its next operations; more are made while more threads use it.
inline constexpr size_t kCipherContextsKept = 8;
/// Bytes that are compressed in one piece, and that one may become.
inline constexpr size_t kCodecPieceMax = 16U << 20;
/// Blocks and extents of one data object: 1 GiB of 4 KiB blocks.
inline constexpr uint32_t kObjectBlocksMax = 1U << 18;
inline constexpr uint32_t kObjectExtentsMax = 1U << 18;
/// Bytes of an object's end that usually hold its directory, and are asked for at once.
inline constexpr uint32_t kObjectTailBytes = 64U << 10;
/// Bytes read of a key, which is at most 64 characters and the end of a line.
inline constexpr size_t kKeyTextMax = 128;

// A volume in an object store.
/// The pause before the head is tried again: at first, and at most.
inline constexpr auto kHeadRetryMin = 20ms;
inline constexpr auto kHeadRetryMax = 5s;
/// How often the owner of a volume makes sure that it still is, and publishes at most if nobody
/// waits; what is published at once all the same.
inline constexpr auto kHeadContactEvery = 10s;
inline constexpr auto kPublishEvery = 1s;
inline constexpr auto kBackgroundNapMin = 1ms;
inline constexpr uint64_t kPublishBytes = 256U << 20;
/// The pause before an upload that failed is tried again.
inline constexpr auto kUploadRetry = 1s;
/// Blocks of one numbered change.
inline constexpr uint32_t kChangeBlocksMax = 64;
/// Directories fetched at once while a volume is opened.
inline constexpr unsigned kFetchesMax = 32;
/// Reads of the journal at once while a batch is sealed; data and changes of one step of that.
inline constexpr unsigned kSealReadsMax = 16;
inline constexpr uint64_t kSealStepBytes = 1U << 20;
inline constexpr size_t kSealStepChanges = 1024;
/// Memory of what is not stored yet: one object more than are uploaded at once, but at most this.
inline constexpr uint64_t kUnstoredBytesMax = 512U << 20;

// Reading from objects, and the cache of blocks on the local disk.
/// What is on its way from the store: memory of what is fetched and decoded, and calls.
inline constexpr uint64_t kReadBytesMax = 64U << 20;
inline constexpr unsigned kReadCallsMax = 64;
/// Bytes fetched with one call that are opened where they arrive, if they only need a checksum: a
/// way to a thread and back takes as long.
inline constexpr uint64_t kReadOpenHere = 64U << 10;
/// Bytes of one GET of several frames, the same of one ahead of a stream, and of what between two
/// frames is fetched along with them.
inline constexpr uint64_t kReadMergeBytes = 1U << 20;
inline constexpr uint64_t kReadAheadMergeBytes = 4U << 20;
inline constexpr uint64_t kReadMergeGap = 64U << 10;
/// Memory of where frames are, and of frames that were fetched a moment ago.
inline constexpr uint64_t kDirectoryCacheBytes = 64U << 20;
inline constexpr uint64_t kFramesKeptBytes = 64U << 20;
/// Requests for one directory: each says how much more of the object is needed.
inline constexpr unsigned kDirectoryRounds = 4;
/// Streams of reads that are followed; reads that make one; how far ahead of one is read, at first
/// and at most; what is on its way ahead of all of them.
inline constexpr size_t kReadStreams = 8;
inline constexpr unsigned kReadAheadAfter = 3;
inline constexpr uint64_t kReadAheadBlocksMin = 64;
inline constexpr uint64_t kReadAheadBlocksMax = 4096;
inline constexpr uint64_t kReadAheadBytesMax = 40U << 20;
/// Reads of journal and cache at once for one request.
inline constexpr unsigned kLocalReadsMax = 16;
/// Blocks of the cache: 256 GiB. Each that is used takes 48 bytes of memory.
inline constexpr uint32_t kCacheBlocksMax = 1U << 26;
/// Blocks read from the cache with one call, and bytes on their way into it.
inline constexpr uint32_t kCacheReadBlocks = 32;
inline constexpr uint64_t kCacheWriteBytesMax = 16U << 20;
/// Blocks that are sealed and written with one go, and how many of these at once.
inline constexpr uint64_t kCacheGroupBlocks = 256;
inline constexpr unsigned kCacheWritersMax = 2;
/// Bytes that go into the cache though nobody asked for them, since they lay beside what was asked
/// for: in a second, and at once after a pause.
inline constexpr uint64_t kCacheUnaskedPerSecond = 128U << 20;
inline constexpr uint64_t kCacheUnaskedBytes = 8U << 20;
/// Blocks that are read from the cache without a task of their own.
inline constexpr size_t kCacheTryBlocks = 32;
/// Blocks of the cache looked at in search of one that was not used lately.
inline constexpr unsigned kCacheClockSteps = 4096;
/// Places of the cache that could not be read before it is switched off.
inline constexpr unsigned kCacheBadPlacesMax = 64;
/// Sessions that the blocks of a kept cache come from.
inline constexpr unsigned kCacheSessionsMax = 64;
/// Bytes of a kept cache's index that are read or written at once.
inline constexpr size_t kCacheIndexPiece = 1U << 20;

// The objstore device.
/// How often it looks whether the volume was taken over, and how much is unpublished.
inline constexpr auto kVolumeWatchEvery = 250ms;
/// How often a stop that publishes says how far it is.
inline constexpr auto kPublishReportEvery = 3s;
/// Blocks whose kinds are found out under one lock: 64 MiB.
inline constexpr uint64_t kExtentSearchBlocks = 16'384;
/// How long each call of the opening to the store may take: nobody is served before, so a store
/// that is away is told soon.
inline constexpr auto kStoreOpenTime = 20s;
/// Attempts to open a store, at most 1.6 s of pauses.
inline constexpr unsigned kStoreOpenAttempts = 6;
/// What a stop that has given up the store gets to close the journal.
inline constexpr auto kGiveUpTime = 10s;
/// Bytes of the journal: the least, and what a volume of any size gets by default.
inline constexpr uint64_t kJournalBytesMin = 8U << 20;
inline constexpr uint64_t kJournalDefaultMin = 64U << 20;
inline constexpr uint64_t kJournalDefaultMax = 1U << 30;
/// Uploads at once by default.
inline constexpr unsigned kUploadsDefault = 4;

// The object table and checkpoints of a volume in an object store.
/// Data objects of one volume, and what one may have. Units: objects; bytes.
inline constexpr uint32_t kDataObjectsMax = 1U << 24;
inline constexpr uint64_t kDataObjectBytesMax = uint64_t{1} << 40;
/// Bytes of pages that are packed into one object of a checkpoint.
inline constexpr uint32_t kMapObjectBytes = 8U << 20;
/// A root of at most so many bytes is stored behind the last pages; a larger one by itself.
inline constexpr uint32_t kRootInlineBytes = 1U << 20;
/// Bytes of the copy of head in a root; snapshots that it names.
inline constexpr size_t kHeadCopyMax = 64U << 10;
inline constexpr uint32_t kSnapshotsMax = 4096;
/// How often the root of a snapshot is asked for, of a store that fails.
inline constexpr unsigned kSnapshotAttempts = 5;
/// Objects of checkpoints that there may be beyond twice what their pages would fill.
inline constexpr uint64_t kMapObjectsSlack = 64;
/// GETs under way while a checkpoint is read, bytes of one, and the bytes between two pages that
/// are read along with them rather than asked for around.
inline constexpr size_t kCheckpointReads = 16;
inline constexpr uint64_t kCheckpointReadBytes = 4U << 20;
inline constexpr uint64_t kCheckpointReadGap = 64U << 10;

// The map of a volume in an object store, in memory and in its local file.
/// Bytes that it takes by default, and the part of them (one by this) that copies for a checkpoint
/// may take before changes wait for it; how often it is looked whether they still must.
inline constexpr uint64_t kMapMemory = 256U << 20;
inline constexpr uint64_t kMapCopiesPart = 8;
inline constexpr auto kMapCopiesPause = 5ms;
/// How long nothing is written to the file after it took nothing, and how many leaves are looked at
/// then, each time that room is wanted, for one that can go without being written.
inline constexpr auto kMapWriteRetry = 10s;
inline constexpr size_t kMapLooksMax = 64;
/// Leaves that are changed before others have their turn.
inline constexpr uint64_t kMapTurn = 1024;

// Looking at volumes from outside (usbdctl).
/// Objects that are read at once, and bytes of one that are fetched at once.
inline constexpr unsigned kCheckFetchesMax = 8;
inline constexpr uint64_t kCheckFetchBytes = 4U << 20;
/// Ranges of a volume that one finding names; how often the image is read anew because objects
/// vanish while it is read; ranges of blocks whose place is not known that are kept apart.
inline constexpr size_t kFindingRangesMax = 1000;
inline constexpr unsigned kCheckRounds = 20;
inline constexpr size_t kUncertainRangesMax = 100'000;
/// Headers that are read at once for a list of objects.
inline constexpr unsigned kListHeadersMax = 32;
/// How often a long check says how far it is; attempts of one call to the store.
inline constexpr auto kCheckProgressEvery = 1s;
inline constexpr unsigned kCtlStoreAttempts = 5;
/// Names that are shown of what was found in place of a volume.
inline constexpr size_t kForeignNamesShown = 3;

// Checkpoints and garbage collection of a volume in an object store.
/// A checkpoint is due after so many log objects, or when their directories are so large, since
/// opening reads them all; or when so much data was written and the checkpoint costs at most the
/// given part of it.
inline constexpr uint64_t kReplayObjects = 1024;
inline constexpr uint64_t kReplayDirectoryBytes = 64U << 20;
inline constexpr uint64_t kCheckpointDataBytes = 256U << 20;
inline constexpr uint64_t kCheckpointCostPart = 20;
/// Epochs in the head after which a checkpoint is due, whatever was written.
inline constexpr size_t kEpochsBeforeCheckpoint = 16;
/// The pause after a checkpoint that failed: at first, and at most.
inline constexpr auto kCheckpointRetryMin = 1s;
inline constexpr auto kCheckpointRetryMax = 60s;
/// How long what nobody needs any more is kept for those who only read.
inline constexpr auto kDeleteAfter = 60s;
/// Names of objects that are no part of the volume any more and wait to be removed.
inline constexpr size_t kGarbageMax = 100'000;
/// Deletions at once, and the pause after one that failed.
inline constexpr size_t kDeletesAtOnce = 8;
inline constexpr auto kDeleteRetry = 10s;
/// How often it is looked whether something of this is due while nothing else happens.
inline constexpr auto kUpkeepMin = 50ms;
inline constexpr auto kUpkeepMax = 5s;
/// Attempts of who only reads to find an image whose objects are all there.
inline constexpr unsigned kLooksMax = 5;
/// Between two pages of a listing while objects that were left behind are looked for, and the bytes
/// of an object that say what it is.
inline constexpr auto kSweepPause = 1s;
inline constexpr uint64_t kSweepHeaderBytes = 128;
/// Live bytes that one object of garbage collection takes, and the dead bytes worth beginning for.
inline constexpr uint64_t kCleanBytes = 32U << 20;
inline constexpr uint64_t kCleanWasteMin = 16U << 20;
/// Smaller objects are merged when there are so many.
inline constexpr uint64_t kSmallObjectBytes = 1U << 20;
inline constexpr uint32_t kSmallObjects = 64;
/// Objects that one round cleans or merges, at most.
inline constexpr size_t kVictimsMax = 1024;
/// Bytes of one request of garbage collection, and of what is read along between two live frames.
inline constexpr uint64_t kCleanReadBytes = 4U << 20;
inline constexpr uint64_t kCleanReadGap = 128U << 10;
/// Slots looked at, and extents looked up, before others have their turn.
inline constexpr uint32_t kCleanTurn = 4096;
/// Attempts to store an object of garbage collection.
inline constexpr unsigned kCleanAttempts = 10;
/// The pause when there was nothing to clean after all, or it went wrong.
inline constexpr auto kCleanRetry = 60s;
/// Garbage collection works at its own pace, without pauses, once the volume takes so many times
/// what it should.
inline constexpr double kCleanHurry = 1.25;

// Object stores.
/// Bytes that a store in a directory moves before it looks whether the call is still wanted.
inline constexpr size_t kStorePieceBytes = 1U << 20;
/// How long a call of a store in a directory or in memory may take by default.
inline constexpr auto kLocalStoreTimeout = 60s;
/// How often the lock of a directory's changes is tried for while another holds it: at first, and
/// at most.
inline constexpr auto kStoreLockRetryMin = 1ms;
inline constexpr auto kStoreLockRetryMax = 16ms;
/// Names in order that one walk of a directory finds for the pages that follow, and how long they
/// are good for.
inline constexpr size_t kListWindow = 32'000;
inline constexpr auto kListWindowAge = 30s;
/// Folders that a store remembers to have synced the way to; beyond, it forgets them all.
inline constexpr size_t kSyncedFoldersMax = 4096;
/// Temporary files in a row that another process may take for left over, and remove.
inline constexpr unsigned kStagingTries = 8;
/// Attempts of one call to a store and the time for all of them, by default; the pause before the
/// second attempt, which doubles from attempt to attempt, and the longest.
inline constexpr unsigned kStoreAttemptsMax = 12;
inline constexpr auto kStoreCallTime = 120s;
inline constexpr auto kStoreBackoffMin = 50ms;
inline constexpr auto kStoreBackoffMax = 10s;
/// Bytes that a store in memory holds by default.
inline constexpr uint64_t kMemoryStoreBytes = 4ULL << 30;

/// Bytes of a configuration or key file, which is read whole.
inline constexpr size_t kTextFileMax = 1U << 20;

}  // namespace usbd::limits
