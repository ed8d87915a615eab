// SPDX-License-Identifier: Apache-2.0
//
// The NBD protocol as the tests' client speaks it. Written from the specification and not shared
// with the server: a constant that is wrong there must not be wrong here as well.
//
// Ref: NetworkBlockDevice/nbd, doc/proto.md.

#pragma once

#include <cstdint>

#include "base/endian.h"

namespace usbd::testing::wire {

// Handshake.
inline constexpr uint64_t kGreeting = 0x4e42444d41474943;  // NBDMAGIC
inline constexpr uint64_t kIHaveOpt = 0x49484156454f5054;  // IHAVEOPT
inline constexpr uint64_t kOptionReply = 0x0003e889045565a9;
inline constexpr uint16_t kFlagFixedNewstyle = 1U << 0;  // NBD_FLAG_FIXED_NEWSTYLE
inline constexpr uint16_t kFlagNoZeroes = 1U << 1;       // NBD_FLAG_NO_ZEROES

enum Option : uint32_t {
  kOptExportName = 1,        // NBD_OPT_EXPORT_NAME
  kOptAbort = 2,             // NBD_OPT_ABORT
  kOptList = 3,              // NBD_OPT_LIST
  kOptStartTls = 5,          // NBD_OPT_STARTTLS
  kOptInfo = 6,              // NBD_OPT_INFO
  kOptGo = 7,                // NBD_OPT_GO
  kOptStructuredReply = 8,   // NBD_OPT_STRUCTURED_REPLY
  kOptListMeta = 9,          // NBD_OPT_LIST_META_CONTEXT
  kOptSetMeta = 10,          // NBD_OPT_SET_META_CONTEXT
  kOptExtendedHeaders = 11,  // NBD_OPT_EXTENDED_HEADERS
};

enum OptionReplyType : uint32_t {
  kRepAck = 1,          // NBD_REP_ACK
  kRepServer = 2,       // NBD_REP_SERVER
  kRepInfo = 3,         // NBD_REP_INFO
  kRepMetaContext = 4,  // NBD_REP_META_CONTEXT
};
/// NBD_REP_FLAG_ERROR: the reply is an error.
inline constexpr uint32_t kRepError = 1U << 31;

enum InfoType : uint16_t {
  kInfoExport = 0,       // NBD_INFO_EXPORT
  kInfoName = 1,         // NBD_INFO_NAME
  kInfoDescription = 2,  // NBD_INFO_DESCRIPTION
  kInfoBlockSize = 3,    // NBD_INFO_BLOCK_SIZE
};

// Transmission flags.
inline constexpr uint16_t kHasFlags = 1U << 0;         // NBD_FLAG_HAS_FLAGS
inline constexpr uint16_t kReadOnly = 1U << 1;         // NBD_FLAG_READ_ONLY
inline constexpr uint16_t kSendFlush = 1U << 2;        // NBD_FLAG_SEND_FLUSH
inline constexpr uint16_t kSendFua = 1U << 3;          // NBD_FLAG_SEND_FUA
inline constexpr uint16_t kRotational = 1U << 4;       // NBD_FLAG_ROTATIONAL
inline constexpr uint16_t kSendTrim = 1U << 5;         // NBD_FLAG_SEND_TRIM
inline constexpr uint16_t kSendWriteZeroes = 1U << 6;  // NBD_FLAG_SEND_WRITE_ZEROES
inline constexpr uint16_t kSendDf = 1U << 7;           // NBD_FLAG_SEND_DF
inline constexpr uint16_t kCanMultiConn = 1U << 8;     // NBD_FLAG_CAN_MULTI_CONN
inline constexpr uint16_t kSendResize = 1U << 9;       // NBD_FLAG_SEND_RESIZE
inline constexpr uint16_t kSendCache = 1U << 10;       // NBD_FLAG_SEND_CACHE
inline constexpr uint16_t kSendFastZero = 1U << 11;    // NBD_FLAG_SEND_FAST_ZERO

// Requests.
inline constexpr uint32_t kRequestMagic = 0x25609513;

enum Command : uint16_t {
  kCmdRead = 0,         // NBD_CMD_READ
  kCmdWrite = 1,        // NBD_CMD_WRITE
  kCmdDisconnect = 2,   // NBD_CMD_DISC
  kCmdFlush = 3,        // NBD_CMD_FLUSH
  kCmdTrim = 4,         // NBD_CMD_TRIM
  kCmdCache = 5,        // NBD_CMD_CACHE
  kCmdWriteZeroes = 6,  // NBD_CMD_WRITE_ZEROES
  kCmdBlockStatus = 7,  // NBD_CMD_BLOCK_STATUS
};

inline constexpr uint16_t kCmdFlagFua = 1U << 0;       // NBD_CMD_FLAG_FUA
inline constexpr uint16_t kCmdFlagNoHole = 1U << 1;    // NBD_CMD_FLAG_NO_HOLE
inline constexpr uint16_t kCmdFlagDf = 1U << 2;        // NBD_CMD_FLAG_DF
inline constexpr uint16_t kCmdFlagReqOne = 1U << 3;    // NBD_CMD_FLAG_REQ_ONE
inline constexpr uint16_t kCmdFlagFastZero = 1U << 4;  // NBD_CMD_FLAG_FAST_ZERO

struct Request {
  Be32 magic = kRequestMagic;
  Be16 flags;
  Be16 type;
  Be64 cookie;
  Be64 offset;
  Be32 length;
};
static_assert(sizeof(Request) == 28);

// Replies.
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;

struct SimpleReply {
  Be32 magic;
  Be32 error;
  Be64 cookie;
};
static_assert(sizeof(SimpleReply) == 16);

struct StructuredReply {
  Be32 magic;
  Be16 flags;
  Be16 type;
  Be64 cookie;
  Be32 length;
};
static_assert(sizeof(StructuredReply) == 20);

inline constexpr uint16_t kReplyFlagDone = 1U << 0;  // NBD_REPLY_FLAG_DONE

enum ChunkType : uint16_t {
  kChunkNone = 0,              // NBD_REPLY_TYPE_NONE
  kChunkOffsetData = 1,        // NBD_REPLY_TYPE_OFFSET_DATA
  kChunkOffsetHole = 2,        // NBD_REPLY_TYPE_OFFSET_HOLE
  kChunkBlockStatus = 5,       // NBD_REPLY_TYPE_BLOCK_STATUS
  kChunkError = 0x8001,        // NBD_REPLY_TYPE_ERROR
  kChunkErrorOffset = 0x8002,  // NBD_REPLY_TYPE_ERROR_OFFSET
};

// base:allocation.
inline constexpr uint32_t kStateHole = 1U << 0;  // NBD_STATE_HOLE
inline constexpr uint32_t kStateZero = 1U << 1;  // NBD_STATE_ZERO

/// The most a server may send in one chunk that this client takes. Units: bytes.
inline constexpr uint32_t kChunkMax = 64U << 20;

}  // namespace usbd::testing::wire
