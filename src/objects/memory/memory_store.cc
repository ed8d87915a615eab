// SPDX-License-Identifier: Apache-2.0
//
// Calls on a map.

#include "objects/memory/memory_store.h"

#include <fmt/format.h>

#include "base/assert.h"
#include "objects/part_range.h"

namespace usbd::objects {
namespace {

Error failed(Errc code, const std::string& name, const char* why) {
  return Error(code, fmt::format("memory: {}: {}", name, why));
}

Error not_found(const std::string& name) {
  return failed(Errc::kNotFound, name, "there is no such object");
}

}  // namespace

Task<Result<void>> MemoryStore::begin(const std::string& name, CallLimits limits) {
  Loop& loop = Loop::current();
  const CallClock clock(loop, std::move(limits), limits::kLocalStoreTimeout);
  co_await loop.schedule();
  if (const std::optional<Errc> over = clock.over()) {
    co_return failed(*over, name, "the call ended before anything was done");
  }
  co_return Result<void>();
}

Result<std::string> MemoryStore::store(std::string name, Bytes data, const Condition& condition) {
  MemoryContainer& in = *container_;
  const auto found = in.objects.find(name);
  const bool there = found != in.objects.end();
  if (condition.kind == Condition::Kind::kAbsent && there) {
    return failed(Errc::kExists, name, "is there already");
  }
  if (condition.kind == Condition::Kind::kMatches &&
      (!there || found->second.tag != condition.tag)) {
    return failed(Errc::kExists, name, "is not the one that was to be replaced");
  }
  const uint64_t others = in.bytes - (there ? found->second.data.size() : 0);
  if (data.size() > in.bytes_max - std::min(others, in.bytes_max)) {
    return failed(Errc::kNoSpace, name, "the store is full");
  }
  in.bytes = others + data.size();
  Object object{.data = {data.begin(), data.end()}, .tag = fmt::format("m{}", ++in.tags)};
  std::string tag = object.tag;
  in.objects.insert_or_assign(std::move(name), std::move(object));
  return tag;
}

Task<Result<std::string>> MemoryStore::put(std::string name, Bytes data, Condition condition,
                                           CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  USBD_CO_TRY_VOID(co_await begin(name, std::move(limits)));
  co_return store(std::move(name), data, condition);
}

Task<Result<Fetched>> MemoryStore::get(std::string name, Part part, CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  USBD_CO_TRY_VOID(co_await begin(name, std::move(limits)));
  const auto found = container_->objects.find(name);
  if (found == container_->objects.end()) co_return not_found(name);
  const Object& object = found->second;
  const Result<ByteRange> range = range_of(part, object.data.size());
  if (!range)
    co_return failed(range.error().is(Errc::kOverflow) ? Errc::kOverflow : Errc::kInvalid, name,
                     "is larger than was asked for");
  const Bytes wanted = Bytes(object.data).subspan(range->offset, range->length);
  Fetched fetched{
      .data = {wanted.begin(), wanted.end()}, .object_size = object.data.size(), .tag = object.tag};
  co_return std::move(fetched);
}

Task<Result<ObjectInfo>> MemoryStore::head(std::string name, CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  USBD_CO_TRY_VOID(co_await begin(name, std::move(limits)));
  const auto found = container_->objects.find(name);
  if (found == container_->objects.end()) co_return not_found(name);
  ObjectInfo info{.name = name, .size = found->second.data.size(), .tag = found->second.tag};
  co_return std::move(info);
}

Task<Result<ListPage>> MemoryStore::list(std::string prefix, std::string after, size_t most,
                                         CallLimits limits) {
  USBD_ASSERT(most > 0 && most <= kListPageMax);
  USBD_CO_TRY_VOID(co_await begin(prefix, std::move(limits)));
  const auto& objects = container_->objects;
  ListPage page;
  auto next = after < prefix ? objects.lower_bound(prefix) : objects.upper_bound(after);
  for (; next != objects.end() && next->first.starts_with(prefix); ++next) {
    if (page.objects.size() == most) {
      page.more = true;
      break;
    }
    page.objects.push_back(
        {.name = next->first, .size = next->second.data.size(), .tag = next->second.tag});
  }
  co_return std::move(page);
}

Task<Result<void>> MemoryStore::remove(std::string name, CallLimits limits) {
  USBD_ASSERT(is_object_name(name));
  USBD_CO_TRY_VOID(co_await begin(name, std::move(limits)));
  const auto found = container_->objects.find(name);
  if (found != container_->objects.end()) {
    container_->bytes -= found->second.data.size();
    container_->objects.erase(found);
  }
  co_return Result<void>();
}

Task<void> MemoryStore::close() {
  co_await Loop::current().schedule();
}

}  // namespace usbd::objects
