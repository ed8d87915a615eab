// SPDX-License-Identifier: Apache-2.0
//
// Operations as NBD commands, and back.

#include "conformance/nbd_subject.h"

#include <algorithm>

#include <fmt/core.h>

namespace usbd::testing {
namespace {

/// What a server that says nothing takes, in practice. Ref: NBD protocol, "Block size constraints".
constexpr uint32_t kPayloadDefault = 32U << 20;
constexpr uint32_t kBlockSizeDefault = 1;

uint16_t command_of(OpKind kind) {
  switch (kind) {
    case OpKind::kRead:
      return wire::kCmdRead;
    case OpKind::kWrite:
      return wire::kCmdWrite;
    case OpKind::kTrim:
      return wire::kCmdTrim;
    case OpKind::kWriteZeroes:
      return wire::kCmdWriteZeroes;
    case OpKind::kFlush:
      return wire::kCmdFlush;
    case OpKind::kCache:
      return wire::kCmdCache;
    case OpKind::kExtents:
      return wire::kCmdBlockStatus;
  }
  return wire::kCmdRead;
}

}  // namespace

Result<std::unique_ptr<NbdSubject>> NbdSubject::open(Options options) {
  std::unique_ptr<NbdSubject> subject(new NbdSubject(std::move(options)));
  USBD_TRY_VOID(subject->connect_all());
  return subject;
}

Result<void> NbdSubject::connect_all() {
  unsigned wanted = options_.connections;
  for (unsigned i = 0; i < wanted; ++i) {
    NbdWishes wishes;
    wishes.export_name = options_.address.export_name;
    wishes.structured_replies = options_.structured_replies;
    // Old clients and new ones at once: their exports must be the same.
    wishes.go = i % 3 != 2;
    USBD_TRY(std::unique_ptr<NbdClient> client, NbdClient::connect(options_.address, wishes));
    if (!client->info().has(wire::kCanMultiConn)) wanted = 1;
    if (i > 0 && (client->info().size != clients_[0]->info().size ||
                  client->info().flags != clients_[0]->info().flags)) {
      return Error(Errc::kInvalid, "two connections are told different sizes or flags");
    }
    clients_.push_back(std::move(client));
  }
  return {};
}

SubjectTraits NbdSubject::traits() const {
  const NbdExportInfo& info = clients_[0]->info();
  SubjectTraits traits;
  traits.name = "nbd:" + (options_.address.socket_path.empty()
                              ? options_.address.host + ":" + options_.address.port
                              : options_.address.socket_path);
  traits.size = info.size;
  traits.block_size = info.block_size_min != 0 ? info.block_size_min : kBlockSizeDefault;
  traits.payload_max =
      info.block_size_max != 0 ? std::min(info.block_size_max, kPayloadDefault) : kPayloadDefault;
  traits.connections = static_cast<unsigned>(clients_.size());
  traits.read_only = info.has(wire::kReadOnly);
  traits.can_flush = info.has(wire::kSendFlush);
  traits.can_fua = info.has(wire::kSendFua);
  traits.can_trim = info.has(wire::kSendTrim);
  traits.can_write_zeroes = info.has(wire::kSendWriteZeroes);
  traits.can_fast_zero = info.has(wire::kSendFastZero);
  traits.can_cache = info.has(wire::kSendCache);
  traits.can_extents = std::ranges::all_of(
      clients_, [](const auto& client) { return !client->agreement().contexts.empty(); });
  traits.multi_connection = info.has(wire::kCanMultiConn);
  traits.trim_zeroes = options_.trim_zeroes;
  traits.can_reopen = true;
  if (options_.lenient) {
    // An odd tail cannot be reached in whole blocks; others may round differently.
    traits.size -= traits.size % traits.block_size;
    traits.orders_overlaps = false;
    traits.exact_errors = false;
    traits.merges_extents = false;
    traits.refuses_empty = false;
    traits.refuses_oversized = false;
  }
  return traits;
}

NbdCall NbdSubject::call_for(Operation& op) {
  NbdCall call;
  call.command = command_of(op.kind);
  call.offset = op.offset;
  call.length = static_cast<uint32_t>(std::min<uint64_t>(op.length, UINT32_MAX));
  if (op.fua) call.flags |= wire::kCmdFlagFua;
  if (op.no_hole) call.flags |= wire::kCmdFlagNoHole;
  if (op.fast_only) call.flags |= wire::kCmdFlagFastZero;
  if (op.kind == OpKind::kWrite) call.payload = op.data;
  if (op.kind == OpKind::kRead) {
    call.target = op.data;
    const bool can_df = clients_[0]->info().has(wire::kSendDf);
    if (can_df && rng_.one_in(4)) call.flags |= wire::kCmdFlagDf;
  }
  if (op.kind == OpKind::kExtents && rng_.one_in(3)) call.flags |= wire::kCmdFlagReqOne;
  return call;
}

Result<void> NbdSubject::execute(std::span<Operation> batch) {
  std::vector<NbdCall> calls;
  calls.reserve(batch.size());
  for (Operation& op : batch) {
    NbdClient& client = *clients_[op.connection % clients_.size()];
    client.submit(calls.emplace_back(call_for(op)));
  }
  USBD_TRY_VOID(NbdClient::finish(clients_));
  for (size_t i = 0; i < batch.size(); ++i) {
    batch[i].error = static_cast<int>(calls[i].error);
    for (const NbdExtent& extent : calls[i].extents) {
      batch[i].extents.push_back({.length = extent.length,
                                  .hole = (extent.flags & wire::kStateHole) != 0,
                                  .zero = (extent.flags & wire::kStateZero) != 0});
    }
  }
  return {};
}

Result<void> NbdSubject::reopen() {
  for (const auto& client : clients_) USBD_TRY_VOID(client->disconnect());
  clients_.clear();
  return connect_all();
}

}  // namespace usbd::testing
