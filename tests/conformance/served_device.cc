// SPDX-License-Identifier: Apache-2.0
//
// The frontend's part: check, then the ways that need no waiting, then the tasks.

#include "conformance/served_device.h"

#include <cstring>

#include "base/limits.h"

namespace usbd::testing {
namespace {

/// Nobody hangs up here.
class AlwaysThere final : public Requester {
 public:
  [[nodiscard]] bool is_gone() override { return false; }
};

Op op_of(OpKind kind) {
  switch (kind) {
    case OpKind::kRead:
      return Op::kRead;
    case OpKind::kWrite:
      return Op::kWrite;
    case OpKind::kTrim:
      return Op::kTrim;
    case OpKind::kWriteZeroes:
      return Op::kWriteZeroes;
    case OpKind::kFlush:
      return Op::kFlush;
    case OpKind::kCache:
      return Op::kCache;
    case OpKind::kExtents:
      return Op::kExtents;
  }
  return Op::kRead;
}

Request request_of(const Operation& op) {
  Request request;
  request.op = op_of(op.kind);
  request.fua = op.fua;
  request.no_hole = op.no_hole;
  request.fast_only = op.fast_only;
  request.range = ByteRange(op.offset, op.length);
  return request;
}

/// A copy from or to a device's own memory, whose contents may change meanwhile: what a read then
/// returns is judged by the model. A function of its own so that the thread sanitizer can be told.
[[gnu::noinline]] void copy_direct(MutableBytes to, Bytes from) {
  std::memcpy(to.data(), from.data(), to.size());
}

}  // namespace

ServedDevice::ServedDevice(std::unique_ptr<Device> opened, unsigned loops)
    : device(std::move(opened)) {
  Export::Options options;
  options.name = device->name();
  options.loops = loops;
  served = std::make_unique<Export>(*device, options);
}

SubjectTraits ServedDevice::traits(const DeviceUnderTest& test, unsigned connections) const {
  const ExportInfo& info = served->info();
  SubjectTraits traits;
  traits.name = device->name();
  traits.size = info.size;
  traits.block_size = info.block_size_min;
  traits.payload_max = info.payload_max;
  traits.connections = info.can_multi_connection ? connections : 1;
  traits.read_only = info.read_only;
  traits.can_flush = info.can_flush;
  traits.can_fua = info.can_fua;
  traits.can_trim = info.can_trim;
  traits.can_write_zeroes = info.can_write_zeroes;
  traits.can_fast_zero = info.can_fast_zero;
  traits.can_cache = info.can_cache;
  traits.multi_connection = info.can_multi_connection;
  traits.may_fail = test.may_fail;
  traits.can_reopen = test.durable;
  traits.can_crash = test.durable && test.crash != nullptr;
  return traits;
}

Task<void> ServedDevice::carry_out(Operation& op, Path path) {
  const Request request = request_of(op);
  op.error = served->check(request);
  if (op.error != 0) co_return;
  Result<void> result;
  if (op.kind == OpKind::kRead) {
    result = co_await read(op, path);
  } else if (Export::changes(request.op)) {
    result = co_await change(op, request, path);
  } else if (op.kind == OpKind::kFlush) {
    const std::optional<Result<void>> at_once =
        path == Path::kTask ? std::nullopt : served->try_flush();
    if (at_once) {
      result = *at_once;
    } else {
      result = co_await served->flush();
    }
  } else if (op.kind == OpKind::kCache) {
    result = co_await served->cache(request.range);
  } else {
    result = co_await list_extents(op);
  }
  if (!result) op.error = result.error().number();
}

Task<Result<void>> ServedDevice::read(Operation& op, Path path) {
  const ByteRange range(op.offset, op.length);
  if (path == Path::kDirect) {
    const MutableBytes memory = served->direct(range);
    if (!memory.empty()) {
      copy_direct(op.data, memory);
      co_return Result<void>();
    }
  }
  if (path != Path::kTask) {
    const std::optional<Result<void>> at_once = served->try_read(range, op.data);
    if (at_once) co_return *at_once;
  }
  co_return co_await served->read(range, op.data);
}

Task<Result<void>> ServedDevice::change(Operation& op, Request request, Path path) {
  AlwaysThere requester;
  const ByteRange claim = served->claim_of(request);
  if (path == Path::kTask || claim.empty()) {
    co_return co_await served->change(request, op.data, false, requester);
  }
  co_await served->locks().acquire(claim);
  if (op.kind == OpKind::kWrite && path == Path::kDirect) {
    const MutableBytes memory = served->direct_for(request);
    if (!memory.empty()) {
      copy_direct(memory, op.data);
      served->device().direct_written(request.range);
      served->locks().release(claim);
      co_return Result<void>();
    }
  }
  if (op.kind == OpKind::kWrite && path != Path::kClaimedTask) {
    const std::optional<Result<void>> at_once = served->try_write(request, op.data);
    if (at_once) {
      served->locks().release(claim);
      co_return *at_once;
    }
  }
  co_return co_await served->change(request, op.data, true, requester);
}

Task<Result<void>> ServedDevice::list_extents(Operation& op) {
  const ByteRange range(op.offset, op.length);
  // A client may ask for one at a time.
  const size_t extents_max = op.offset % 3 == 0 ? 1 : limits::kExtentsPerReplyMax;
  USBD_CO_TRY(op.extents, co_await served->extents(range, extents_max));
  if (op.extents.size() > extents_max) co_return Error(Errc::kIo, "too many extents were returned");
  co_return Result<void>();
}

}  // namespace usbd::testing
