// SPDX-License-Identifier: Apache-2.0
//
// The NBD protocol's constants and messages, and nothing that acts on them. The comment behind a
// constant is its name in the specification (NetworkBlockDevice/nbd, doc/proto.md), which is what
// "Ref: NBD protocol" means throughout this folder. docs/protocols/nbd.md says which of it all
// is served.
//
// Everything on the wire is big-endian; the message structs are made of Be<> fields, so they have
// no padding and are copied to and from buffers as they lie in memory.

#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/endian.h"

namespace usbd::nbd {

// ---- Numbers that begin a message ----

inline constexpr uint64_t kInitMagic = 0x4e42444d41474943;         // INIT_PASSWD, "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;       // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;  // magic number for replies
inline constexpr uint32_t kRequestMagic = 0x25609513;              // NBD_REQUEST_MAGIC
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;          // NBD_SIMPLE_REPLY_MAGIC
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;      // NBD_STRUCTURED_REPLY_MAGIC
// Extended headers (32-byte requests and reply chunks with 64-bit lengths) are not served yet;
// their structs belong beside Request and ChunkHeader below.
inline constexpr uint32_t kExtendedRequestMagic = 0x21e41c71;  // NBD_EXTENDED_REQUEST_MAGIC
inline constexpr uint32_t kExtendedReplyMagic = 0x6e8a278c;    // NBD_EXTENDED_REPLY_MAGIC

// ---- Limits the specification sets ----

/// The longest name, description, context name or error text. Units: bytes.
inline constexpr uint32_t kStringMax = 4096;
/// What NBD_OPT_EXPORT_NAME's answer ends with, unless both sides gave up these zeros.
inline constexpr size_t kExportNamePadding = 124;
/// A read with NBD_CMD_FLAG_DF up to this length must be answered unfragmented. Units: bytes.
inline constexpr uint32_t kUnfragmentedReadMin = 65536;
/// The largest payload every client may count on. Units: bytes.
inline constexpr uint32_t kPayloadMax = 32U << 20;
/// The largest minimum block size that may be advertised. Units: bytes.
inline constexpr uint32_t kMinimumBlockMax = 65536;
/// More extents than this are not sent in one block-status chunk.
inline constexpr uint32_t kBlockStatusExtentsMax = 1U << 20;
/// The port registered for NBD.
inline constexpr uint16_t kDefaultPort = 10809;

// ---- Handshake ----

/// Handshake flags (server, 16 bits) and client flags (32 bits) have the same bits.
inline constexpr uint16_t kFlagFixedNewstyle = 1U << 0;  // NBD_FLAG_FIXED_NEWSTYLE, ..._C_...
inline constexpr uint16_t kFlagNoZeroes = 1U << 1;       // NBD_FLAG_NO_ZEROES, NBD_FLAG_C_NO_ZEROES

/// What the server says first.
struct Greeting {
  Be64 init_magic = kInitMagic;
  Be64 option_magic = kOptionMagic;
  Be16 handshake_flags;
};
static_assert(sizeof(Greeting) == 18 && WireStruct<Greeting>);

/// What the client answers.
struct ClientFlags {
  Be32 flags;
};
static_assert(sizeof(ClientFlags) == 4 && WireStruct<ClientFlags>);

enum class Option : uint32_t {
  kExportName = 1,        // NBD_OPT_EXPORT_NAME
  kAbort = 2,             // NBD_OPT_ABORT
  kList = 3,              // NBD_OPT_LIST
  kPeekExport = 4,        // NBD_OPT_PEEK_EXPORT, withdrawn
  kStartTls = 5,          // NBD_OPT_STARTTLS
  kInfo = 6,              // NBD_OPT_INFO
  kGo = 7,                // NBD_OPT_GO
  kStructuredReply = 8,   // NBD_OPT_STRUCTURED_REPLY
  kListMetaContext = 9,   // NBD_OPT_LIST_META_CONTEXT
  kSetMetaContext = 10,   // NBD_OPT_SET_META_CONTEXT
  kExtendedHeaders = 11,  // NBD_OPT_EXTENDED_HEADERS
};

inline constexpr uint32_t kOptionErrorBit = 1U << 31;

enum class OptionReply : uint32_t {
  kAck = 1,                                            // NBD_REP_ACK
  kServer = 2,                                         // NBD_REP_SERVER
  kInfo = 3,                                           // NBD_REP_INFO
  kMetaContext = 4,                                    // NBD_REP_META_CONTEXT
  kErrUnsupported = kOptionErrorBit | 1,               // NBD_REP_ERR_UNSUP
  kErrPolicy = kOptionErrorBit | 2,                    // NBD_REP_ERR_POLICY
  kErrInvalid = kOptionErrorBit | 3,                   // NBD_REP_ERR_INVALID
  kErrPlatform = kOptionErrorBit | 4,                  // NBD_REP_ERR_PLATFORM
  kErrTlsRequired = kOptionErrorBit | 5,               // NBD_REP_ERR_TLS_REQD
  kErrUnknown = kOptionErrorBit | 6,                   // NBD_REP_ERR_UNKNOWN
  kErrShutdown = kOptionErrorBit | 7,                  // NBD_REP_ERR_SHUTDOWN
  kErrBlockSizeRequired = kOptionErrorBit | 8,         // NBD_REP_ERR_BLOCK_SIZE_REQD
  kErrTooBig = kOptionErrorBit | 9,                    // NBD_REP_ERR_TOO_BIG
  kErrExtendedHeadersRequired = kOptionErrorBit | 10,  // NBD_REP_ERR_EXT_HEADER_REQD
};

enum class Info : uint16_t {
  kExport = 0,       // NBD_INFO_EXPORT
  kName = 1,         // NBD_INFO_NAME
  kDescription = 2,  // NBD_INFO_DESCRIPTION
  kBlockSize = 3,    // NBD_INFO_BLOCK_SIZE
};

/// An option from the client; `length` bytes of data follow.
struct OptionHeader {
  Be64 magic = kOptionMagic;
  Be32 option;
  Be32 length;
};
static_assert(sizeof(OptionHeader) == 16 && WireStruct<OptionHeader>);

/// An answer to an option; `length` bytes of data follow.
struct OptionReplyHeader {
  Be64 magic = kOptionReplyMagic;
  Be32 option;
  Be32 type;
  Be32 length;
};
static_assert(sizeof(OptionReplyHeader) == 20 && WireStruct<OptionReplyHeader>);

/// The answer to NBD_OPT_EXPORT_NAME, before the padding.
struct ExportNameReply {
  Be64 size;
  Be16 transmission_flags;
};
static_assert(sizeof(ExportNameReply) == 10 && WireStruct<ExportNameReply>);

/// The data of NBD_REP_INFO with NBD_INFO_EXPORT.
struct InfoExport {
  Be16 type = static_cast<uint16_t>(Info::kExport);
  Be64 size;
  Be16 transmission_flags;
};
static_assert(sizeof(InfoExport) == 12 && WireStruct<InfoExport>);

/// The data of NBD_REP_INFO with NBD_INFO_BLOCK_SIZE.
struct InfoBlockSize {
  Be16 type = static_cast<uint16_t>(Info::kBlockSize);
  Be32 minimum;
  Be32 preferred;
  Be32 maximum_payload;
};
static_assert(sizeof(InfoBlockSize) == 14 && WireStruct<InfoBlockSize>);

inline constexpr uint16_t kTransmitHasFlags = 1U << 0;        // NBD_FLAG_HAS_FLAGS
inline constexpr uint16_t kTransmitReadOnly = 1U << 1;        // NBD_FLAG_READ_ONLY
inline constexpr uint16_t kTransmitFlush = 1U << 2;           // NBD_FLAG_SEND_FLUSH
inline constexpr uint16_t kTransmitFua = 1U << 3;             // NBD_FLAG_SEND_FUA
inline constexpr uint16_t kTransmitRotational = 1U << 4;      // NBD_FLAG_ROTATIONAL
inline constexpr uint16_t kTransmitTrim = 1U << 5;            // NBD_FLAG_SEND_TRIM
inline constexpr uint16_t kTransmitWriteZeroes = 1U << 6;     // NBD_FLAG_SEND_WRITE_ZEROES
inline constexpr uint16_t kTransmitDf = 1U << 7;              // NBD_FLAG_SEND_DF
inline constexpr uint16_t kTransmitMultiConn = 1U << 8;       // NBD_FLAG_CAN_MULTI_CONN
inline constexpr uint16_t kTransmitResize = 1U << 9;          // NBD_FLAG_SEND_RESIZE
inline constexpr uint16_t kTransmitCache = 1U << 10;          // NBD_FLAG_SEND_CACHE
inline constexpr uint16_t kTransmitFastZero = 1U << 11;       // NBD_FLAG_SEND_FAST_ZERO
inline constexpr uint16_t kTransmitStatusPayload = 1U << 12;  // NBD_FLAG_BLOCK_STATUS_PAYLOAD

// ---- Transmission: requests ----

enum class Command : uint16_t {
  kRead = 0,         // NBD_CMD_READ
  kWrite = 1,        // NBD_CMD_WRITE
  kDisconnect = 2,   // NBD_CMD_DISC
  kFlush = 3,        // NBD_CMD_FLUSH
  kTrim = 4,         // NBD_CMD_TRIM
  kCache = 5,        // NBD_CMD_CACHE
  kWriteZeroes = 6,  // NBD_CMD_WRITE_ZEROES
  kBlockStatus = 7,  // NBD_CMD_BLOCK_STATUS
  kResize = 8,       // NBD_CMD_RESIZE, an extension that is not served
};

inline constexpr uint16_t kCmdFlagFua = 1U << 0;         // NBD_CMD_FLAG_FUA
inline constexpr uint16_t kCmdFlagNoHole = 1U << 1;      // NBD_CMD_FLAG_NO_HOLE
inline constexpr uint16_t kCmdFlagDf = 1U << 2;          // NBD_CMD_FLAG_DF
inline constexpr uint16_t kCmdFlagReqOne = 1U << 3;      // NBD_CMD_FLAG_REQ_ONE
inline constexpr uint16_t kCmdFlagFastZero = 1U << 4;    // NBD_CMD_FLAG_FAST_ZERO
inline constexpr uint16_t kCmdFlagPayloadLen = 1U << 5;  // NBD_CMD_FLAG_PAYLOAD_LEN, not served

/// A request; after NBD_CMD_WRITE `length` bytes of data follow.
struct Request {
  Be32 magic = kRequestMagic;
  Be16 flags;
  Be16 command;
  /// The client's, opaque: it is sent back as it came.
  Be64 cookie;
  Be64 offset;
  Be32 length;
};
static_assert(sizeof(Request) == 28 && WireStruct<Request>);

// ---- Transmission: replies ----

/// The values an error field may have. The numbers are fixed, whatever errno is on this machine.
enum class WireError : uint32_t {
  kNone = 0,
  kPerm = 1,           // NBD_EPERM
  kIo = 5,             // NBD_EIO
  kNoMemory = 12,      // NBD_ENOMEM
  kInvalid = 22,       // NBD_EINVAL
  kNoSpace = 28,       // NBD_ENOSPC
  kOverflow = 75,      // NBD_EOVERFLOW
  kNotSupported = 95,  // NBD_ENOTSUP
  kShutdown = 108,     // NBD_ESHUTDOWN
};

/// The value a client is told for an errno value. An error the protocol has no value for is EIO:
/// the request failed for a reason that is not the client's. Range: number > 0.
[[nodiscard]] constexpr WireError wire_error(int number) {
  switch (number) {
    case EPERM:
    case EACCES:
    case EROFS:
      return WireError::kPerm;
    case ENOMEM:
      return WireError::kNoMemory;
    case EINVAL:
      return WireError::kInvalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WireError::kNoSpace;
    case EOVERFLOW:
      return WireError::kOverflow;
    case EOPNOTSUPP:
      return WireError::kNotSupported;
    case ESHUTDOWN:
      return WireError::kShutdown;
    default:
      return WireError::kIo;
  }
}

/// The whole answer to a request or, for a successful read without structured replies, its start.
struct SimpleReply {
  Be32 magic = kSimpleReplyMagic;
  Be32 error;
  Be64 cookie;
};
static_assert(sizeof(SimpleReply) == 16 && WireStruct<SimpleReply>);

inline constexpr uint16_t kChunkFlagDone = 1U << 0;   // NBD_REPLY_FLAG_DONE
inline constexpr uint16_t kChunkErrorBit = 1U << 15;  // set in the type of every error chunk

enum class Chunk : uint16_t {
  kNone = 0,                          // NBD_REPLY_TYPE_NONE
  kOffsetData = 1,                    // NBD_REPLY_TYPE_OFFSET_DATA
  kOffsetHole = 2,                    // NBD_REPLY_TYPE_OFFSET_HOLE
  kBlockStatus = 5,                   // NBD_REPLY_TYPE_BLOCK_STATUS
  kBlockStatusExtended = 6,           // NBD_REPLY_TYPE_BLOCK_STATUS_EXT, with extended headers
  kError = kChunkErrorBit | 1,        // NBD_REPLY_TYPE_ERROR
  kErrorOffset = kChunkErrorBit | 2,  // NBD_REPLY_TYPE_ERROR_OFFSET
};

/// One part of a structured reply; `length` bytes of payload follow.
struct ChunkHeader {
  Be32 magic = kStructuredReplyMagic;
  Be16 flags;
  Be16 type;
  Be64 cookie;
  Be32 length;
};
static_assert(sizeof(ChunkHeader) == 20 && WireStruct<ChunkHeader>);

/// The start of an NBD_REPLY_TYPE_OFFSET_DATA payload; the data follows.
struct OffsetData {
  Be64 offset;
};
static_assert(sizeof(OffsetData) == 8 && WireStruct<OffsetData>);

/// The payload of NBD_REPLY_TYPE_OFFSET_HOLE.
struct OffsetHole {
  Be64 offset;
  Be32 length;
};
static_assert(sizeof(OffsetHole) == 12 && WireStruct<OffsetHole>);

/// The start of an NBD_REPLY_TYPE_BLOCK_STATUS payload; one or more BlockStatusExtent follow.
struct BlockStatus {
  Be32 context_id;
};
static_assert(sizeof(BlockStatus) == 4 && WireStruct<BlockStatus>);

struct BlockStatusExtent {
  Be32 length;
  Be32 flags;
};
static_assert(sizeof(BlockStatusExtent) == 8 && WireStruct<BlockStatusExtent>);

inline constexpr uint32_t kStateHole = 1U << 0;  // NBD_STATE_HOLE
inline constexpr uint32_t kStateZero = 1U << 1;  // NBD_STATE_ZERO

/// The start of an NBD_REPLY_TYPE_ERROR payload; the text follows, and after it, in
/// NBD_REPLY_TYPE_ERROR_OFFSET, a Be64 offset.
struct ErrorChunk {
  Be32 error;
  Be16 message_length;
};
static_assert(sizeof(ErrorChunk) == 6 && WireStruct<ErrorChunk>);

// ---- Metadata contexts ----

inline constexpr std::string_view kBaseNamespace = "base:";
inline constexpr std::string_view kBaseAllocation = "base:allocation";

}  // namespace usbd::nbd
