// SPDX-License-Identifier: Apache-2.0
//
// The Linux kernel's names for its nbd driver: generic netlink commands and attributes, ioctls, and
// sysfs. Carried here because the headers of older systems lack the newer ones; the comment behind
// a constant is its name in the kernel.
//
// Ref: linux uapi nbd-netlink.h and nbd.h (6.12), drivers/block/nbd.c.

#pragma once

#include <chrono>
#include <cstdint>

#include <sys/ioctl.h>

#include "frontends/nbd/protocol.h"

namespace usbd::nbd::uapi {

inline constexpr char kFamilyName[] = "nbd";              // NBD_GENL_FAMILY_NAME
inline constexpr uint8_t kFamilyVersion = 1;              // NBD_GENL_VERSION
inline constexpr char kDeadGroupName[] = "nbd_mc_group";  // NBD_GENL_MCAST_GROUP_NAME

enum Command : uint8_t {
  kCmdConnect = 1,      // NBD_CMD_CONNECT
  kCmdDisconnect = 2,   // NBD_CMD_DISCONNECT
  kCmdReconfigure = 3,  // NBD_CMD_RECONFIGURE
  kCmdLinkDead = 4,     // NBD_CMD_LINK_DEAD
  kCmdStatus = 5,       // NBD_CMD_STATUS
};

enum Attribute : int {
  kAttrIndex = 1,               // NBD_ATTR_INDEX, u32
  kAttrSize = 2,                // NBD_ATTR_SIZE_BYTES, u64
  kAttrBlockSize = 3,           // NBD_ATTR_BLOCK_SIZE_BYTES, u64
  kAttrTimeout = 4,             // NBD_ATTR_TIMEOUT, u64, seconds
  kAttrServerFlags = 5,         // NBD_ATTR_SERVER_FLAGS, u64
  kAttrClientFlags = 6,         // NBD_ATTR_CLIENT_FLAGS, u64
  kAttrSockets = 7,             // NBD_ATTR_SOCKETS, nested
  kAttrDeadConnTimeout = 8,     // NBD_ATTR_DEAD_CONN_TIMEOUT, u64, seconds
  kAttrDeviceList = 9,          // NBD_ATTR_DEVICE_LIST, nested
  kAttrBackendIdentifier = 10,  // NBD_ATTR_BACKEND_IDENTIFIER, string
  kAttrMax = 10,                // NBD_ATTR_MAX
};

inline constexpr int kSockItem = 1;         // NBD_SOCK_ITEM, in kAttrSockets, nested
inline constexpr int kSockFd = 1;           // NBD_SOCK_FD, u32
inline constexpr int kDeviceItem = 1;       // NBD_DEVICE_ITEM, in kAttrDeviceList, nested
inline constexpr int kDeviceIndex = 1;      // NBD_DEVICE_INDEX, u32
inline constexpr int kDeviceConnected = 2;  // NBD_DEVICE_CONNECTED, u8
inline constexpr int kDeviceAttrMax = 2;    // NBD_DEVICE_ATTR_MAX

inline constexpr unsigned kIoctlType = 0xab;
inline constexpr unsigned long kSetSock = _IO(kIoctlType, 0);        // NBD_SET_SOCK
inline constexpr unsigned long kSetBlockSize = _IO(kIoctlType, 1);   // NBD_SET_BLKSIZE
inline constexpr unsigned long kDoIt = _IO(kIoctlType, 3);           // NBD_DO_IT
inline constexpr unsigned long kClearSock = _IO(kIoctlType, 4);      // NBD_CLEAR_SOCK
inline constexpr unsigned long kSetSizeBlocks = _IO(kIoctlType, 7);  // NBD_SET_SIZE_BLOCKS
inline constexpr unsigned long kDisconnect = _IO(kIoctlType, 8);     // NBD_DISCONNECT
inline constexpr unsigned long kSetTimeout = _IO(kIoctlType, 9);     // NBD_SET_TIMEOUT
inline constexpr unsigned long kSetFlags = _IO(kIoctlType, 10);      // NBD_SET_FLAGS

/// The transmission flags that the driver reads; the others mean nothing to it.
inline constexpr uint16_t kKnownFlags = kTransmitHasFlags | kTransmitReadOnly | kTransmitFlush |
                                        kTransmitFua | kTransmitRotational | kTransmitTrim |
                                        kTransmitWriteZeroes | kTransmitMultiConn;

/// The driver refuses logical blocks outside this range. Ref: nbd.c, nbd_set_size.
inline constexpr uint32_t kBlockSizeMin = 512;
inline constexpr uint32_t kBlockSizeMax = 4096;

/// Sysfs counts a disk in these, whatever its block size. Units: bytes.
inline constexpr uint64_t kSysfsSector = 512;

/// Minor numbers have 20 bits, so that no index is larger. Ref: nbd.c, nbd_dev_add.
inline constexpr uint32_t kIndexMax = (1U << 20) - 1;

}  // namespace usbd::nbd::uapi
