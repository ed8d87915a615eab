// SPDX-License-Identifier: Apache-2.0
//
// A frame is in the table from the moment in which somebody wants it. While it is on its way, those
// who want it leave a Taker with it; when it comes, each Taker gets its blocks at once, so that no
// reader holds frames while it waits for others.

#include "devices/objstore/object_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "devices/objstore/names.h"

namespace usbd::objstore {
namespace {

/// Memory of the keys of an object, roughly.
constexpr uint64_t kOpenerBytes = 4096;

void add(std::atomic<uint64_t>& counter, uint64_t count) {
  counter.fetch_add(count, std::memory_order_relaxed);
}

/// A directory that is damaged and an answer that was cut off look alike.
bool is_doubtful_directory(const Error& error) {
  return !error.is(Errc::kTimedOut) && !error.is(Errc::kAgain) && !error.is(Errc::kCanceled);
}

/// What the store has under this name is not the object, or it has none: it may be gone for a good
/// reason.
bool is_damage(const Error& error) {
  return error.is(Errc::kNotFound) || error.is(Errc::kDamaged);
}

Position last_of(const ReadPiece& piece) {
  return {piece.location.position + static_cast<uint32_t>(piece.blocks.count) - 1};
}
Position first_of(const ReadPiece& piece) {
  return {piece.location.position};
}

}  // namespace

/// Waits until so many things are done.
class ObjectReader::Latch {
 public:
  explicit Latch(size_t count) : left_(count) {}

  void count_down() {
    USBD_ASSERT(left_ > 0);
    if (--left_ == 0 && resume_.handle) Loop::current().post(resume_);
  }
  void add() { ++left_; }

  bool await_ready() const noexcept { return left_ == 0; }
  void await_suspend(std::coroutine_handle<> handle) { resume_.handle = handle; }
  void await_resume() const noexcept {}

 private:
  size_t left_;
  ResumeWork resume_;
};

/// One who waits for a frame.
struct ObjectReader::Taker {
  ReadPiece* piece = nullptr;
  uint32_t frame = 0;
  Latch* latch = nullptr;
  Taker* next = nullptr;
};

struct ObjectReader::Frame {
  FrameKey key;
  FrameInfo info;
  /// Else it is on its way, and the rest belongs to who opens it.
  bool here = false;
  FrameMemory plain = {};
  Taker* takers = nullptr;
  /// While it is opened.
  Result<void> opened = {};
  std::list<FrameKey>::iterator use = {};
};

struct ObjectReader::DirectoryCall {
  ObjectId id;
  std::optional<Result<KnownRef>> result = {};
  std::vector<Latch*> waiting = {};
};

uint64_t ObjectReader::Known::bytes() const {
  return kOpenerBytes + frames.size() * sizeof(FrameInfo);
}

ObjectReader::ObjectReader(Parts parts)
    : parts_(std::move(parts)), budget_(limits::kReadBytesMax, limits::kReadCallsMax) {}

ObjectReader::~ObjectReader() = default;

Task<void> ObjectReader::close() {
  closed_ = true;
  co_await scope_.close();
}

FetchStats ObjectReader::stats() const {
  return {.gets = gets_.load(std::memory_order_relaxed),
          .bytes = bytes_.load(std::memory_order_relaxed),
          .frames = fetched_.load(std::memory_order_relaxed),
          .shared = shared_.load(std::memory_order_relaxed),
          .ahead = ahead_.load(std::memory_order_relaxed)};
}

// --- directories
// ----------------------------------------------------------------------------------

/// One GET, if need be when the store is back.
Task<Result<objects::Fetched>> ObjectReader::get(std::string name, objects::Part part) {
  Loop& loop = Loop::current();
  const bool for_ever = patience_ && *patience_ == Nanos(0);
  const Nanos deadline = for_ever ? Nanos::max() : loop.now() + patience_.value_or(Nanos(0));
  while (true) {
    const objects::CallLimits limits{.stop = parts_.stop};
    Result<objects::Fetched> fetched = co_await parts_.store.get(name, part, limits);
    if (fetched) {
      add(gets_, 1);
      add(bytes_, fetched->data.size());
      co_return fetched;
    }
    if (!patience_ || !objects::is_transient(fetched.error()) || loop.now() >= deadline) {
      co_return fetched;
    }
    if (!co_await is_away()) co_return fetched;
    co_await loop.sleep_for(limits::kUploadRetry, parts_.stop);
    if (parts_.stop.stop_requested()) co_return Error(Errc::kCanceled, name);
  }
}

Task<bool> ObjectReader::is_away() {
  const std::string name = head_name(parts_.volume);
  const objects::CallLimits limits{.timeout = limits::kHeadContactEvery, .stop = parts_.stop};
  const Result<objects::ObjectInfo> head = co_await parts_.store.head(name, limits);
  co_return !head && objects::is_transient(head.error());
}

Task<Result<ObjectReader::FetchedDirectory>> ObjectReader::fetch_directory(ObjectId id) {
  const std::string name = data_name(parts_.volume, id);
  objects::Part part = objects::Part::tail(limits::kObjectTailBytes);
  for (unsigned round = 0; round < limits::kDirectoryRounds; ++round) {
    const FetchBudget::Lease lease = co_await budget_.take(part.length);
    USBD_CO_TRY(const objects::Fetched fetched, co_await get(name, part));
    if (fetched.data.size() > fetched.object_size) {
      co_return Error(Errc::kDamaged, name + ": more bytes than the object has");
    }
    Result<Tail> tail = parse_tail(parts_.seal, id, fetched.data, fetched.object_size);
    if (!tail) co_return Error(tail.error().code(), name + ": " + tail.error().context());
    if (tail->directory) {
      co_return FetchedDirectory{
          .directory = std::make_shared<const Directory>(*std::move(tail->directory)),
          .object_bytes = fetched.object_size};
    }
    part = objects::Part::range(tail->missing.offset, tail->missing.length);
  }
  co_return Error(Errc::kDamaged, name + ": its end does not say where its directory is");
}

void ObjectReader::remember(const Directory& directory) {
  keep(std::make_shared<Known>(Known{
      .id = directory.header().id, .frames = directory.frames(), .opener = directory.opener()}));
}

void ObjectReader::keep(KnownRef known) {
  forget(known->id);
  directory_bytes_ += known->bytes();
  known->use = known_uses_.insert(known_uses_.end(), known->id);
  known_[known->id] = std::move(known);
  while (directory_bytes_ > limits::kDirectoryCacheBytes && known_uses_.size() > 1) {
    forget(ObjectId(known_uses_.front()));
  }
}

void ObjectReader::forget(const ObjectId& id) {
  const auto found = known_.find(id);
  if (found == known_.end()) return;
  directory_bytes_ -= found->second->bytes();
  known_uses_.erase(found->second->use);
  known_.erase(found);
}

Task<Result<ObjectReader::KnownRef>> ObjectReader::directory(ObjectId id, Effort effort) {
  if (effort == Effort::kAnew) {
    forget(id);
    calls_.erase(id);
  }
  const auto found = known_.find(id);
  if (found != known_.end()) {
    known_uses_.splice(known_uses_.end(), known_uses_, found->second->use);
    co_return found->second;
  }
  std::shared_ptr<DirectoryCall>& entry = calls_[id];
  const bool mine = entry == nullptr;
  if (mine) entry = std::make_shared<DirectoryCall>(DirectoryCall{.id = id});
  const std::shared_ptr<DirectoryCall> call = entry;
  if (mine) scope_.spawn(fetch_known(call));
  Latch latch(call->result ? 0 : 1);
  if (!call->result) {
    call->waiting.push_back(&latch);
    co_await latch;
  }
  co_return *call->result;
}

Task<void> ObjectReader::fetch_known(std::shared_ptr<DirectoryCall> call) {
  const Result<FetchedDirectory> fetched = co_await fetch_directory(call->id);
  const auto entry = calls_.find(call->id);
  if (entry != calls_.end() && entry->second == call) calls_.erase(entry);
  if (fetched) {
    const Directory& directory = *fetched->directory;
    auto known = std::make_shared<Known>(
        Known{.id = call->id, .frames = directory.frames(), .opener = directory.opener()});
    keep(known);
    call->result.emplace(std::move(known));
  } else {
    call->result.emplace(fetched.error());
  }
  for (Latch* latch : call->waiting) latch->count_down();
}

// --- frames
// ---------------------------------------------------------------------------------------

Task<void> ObjectReader::read(std::span<ReadPiece> pieces, Effort effort) {
  co_await read_all(pieces, effort, false);
}

void ObjectReader::read_ahead(std::vector<ReadPiece> pieces) {
  if (closed_ || pieces.empty()) return;
  scope_.spawn(read_ahead_task(std::move(pieces)));
}

Task<void> ObjectReader::read_ahead_task(std::vector<ReadPiece> pieces) {
  co_await read_all(pieces, Effort::kNormal, true);
}

Task<void> ObjectReader::read_all(std::span<ReadPiece> pieces, Effort effort, bool ahead) {
  std::vector<ReadPiece*> order;
  order.reserve(pieces.size());
  for (ReadPiece& piece : pieces) order.push_back(&piece);
  std::ranges::sort(
      order, {}, [](const ReadPiece* piece) { return std::pair(piece->id, piece->blocks.first); });
  Scope objects;
  for (auto from = order.begin(); from != order.end();) {
    const auto other = [from](const ReadPiece* piece) { return piece->id != (*from)->id; };
    const auto to = std::find_if(from, order.end(), other);
    objects.spawn(read_one_object(std::span(from, to), effort, ahead));
    from = to;
  }
  co_await objects.close();
}

Result<void> ObjectReader::check(const Known& known, const ReadPiece& piece) {
  const Position last = last_of(piece);
  if (last.frame() < known.frames.size() &&
      last.block() < known.frames[last.frame()].logical / kBlockBytes) {
    return {};
  }
  return Error(Errc::kDamaged, fmt::format("{}: has no block {}", to_text(known.id), last.value));
}

bool ObjectReader::has_room_ahead(const FrameInfo& info) const {
  return ahead_bytes_ + info.stored + info.logical <= limits::kReadAheadBytesMax;
}

/// Gives the taker its frame, or leaves it with the frame until that comes.
void ObjectReader::take(Taker& taker, const Known& known, std::vector<FrameRef>& missing) {
  const FrameKey key{.id = known.id, .frame = taker.frame};
  FrameRef& frame = frames_[key];
  if (frame != nullptr && frame->here) {
    add(shared_, 1);
    kept_uses_.splice(kept_uses_.end(), kept_uses_, frame->use);
    const FrameRef kept = frame;
    deliver(taker, kept->plain);
    return;
  }
  if (frame == nullptr) {
    frame = std::make_shared<Frame>(Frame{.key = key, .info = known.frames[taker.frame]});
    missing.push_back(frame);
  } else {
    add(shared_, 1);
  }
  taker.next = std::exchange(frame->takers, &taker);
}

void ObjectReader::forget_frames(const std::vector<Taker>& takers) {
  for (const Taker& taker : takers) drop({.id = taker.piece->id, .frame = taker.frame});
}

Task<void> ObjectReader::read_one_object(std::span<ReadPiece* const> pieces, Effort effort,
                                         bool ahead) {
  const Result<KnownRef> known = co_await directory(pieces.front()->id, effort);
  std::vector<Taker> takers;
  Latch latch(0);
  for (ReadPiece* piece : pieces) {
    const Result<void> checked = known ? check(**known, *piece) : Result<void>();
    if (!known || !checked) {
      piece->error = known ? checked.error() : known.error();
      piece->doubtful = known || is_doubtful_directory(known.error());
      continue;
    }
    for (uint32_t frame = first_of(*piece).frame(); frame <= last_of(*piece).frame(); ++frame) {
      const FrameKey key{.id = piece->id, .frame = frame};
      if (ahead && (frames_.contains(key) || !has_room_ahead((*known)->frames[frame]))) continue;
      if (ahead) {
        const FrameInfo& info = (*known)->frames[frame];
        ahead_bytes_ += info.stored + info.logical;
      }
      takers.push_back({.piece = piece, .frame = frame, .latch = &latch});
      latch.add();
    }
  }
  if (takers.empty()) co_return;
  if (effort == Effort::kAnew) forget_frames(takers);
  std::vector<FrameRef> missing;
  for (Taker& taker : takers) take(taker, **known, missing);
  std::ranges::sort(missing, {}, [](const FrameRef& frame) { return frame->key.frame; });
  start_fetches(*known, missing, ahead);
  co_await latch;
  if (!ahead) co_return;
  for (const Taker& taker : takers) {
    const FrameInfo& info = (*known)->frames[taker.frame];
    ahead_bytes_ -= info.stored + info.logical;
  }
}

/// One GET for frames that lie close together.
void ObjectReader::start_fetches(const KnownRef& known, std::span<const FrameRef> missing,
                                 bool ahead) {
  const uint64_t most = ahead ? limits::kReadAheadMergeBytes : limits::kReadMergeBytes;
  for (size_t from = 0; from < missing.size();) {
    size_t to = from + 1;
    const uint64_t start = missing[from]->info.offset;
    while (to < missing.size() && missing[to]->info.range().end() - start <= most &&
           missing[to]->info.offset - missing[to - 1]->info.range().end() <=
               limits::kReadMergeGap) {
      ++to;
    }
    const std::span<const FrameRef> group = missing.subspan(from, to - from);
    scope_.spawn(fetch(known, std::vector<FrameRef>(group.begin(), group.end()), ahead));
    from = to;
  }
}

Task<void> ObjectReader::fetch(KnownRef known, std::vector<FrameRef> frames, bool ahead) {
  uint64_t cost = frames.back()->info.range().end() - frames.front()->info.offset;
  for (const FrameRef& frame : frames) cost += frame->info.logical;
  const FetchBudget::Lease lease = co_await budget_.take(cost);
  const Result<void> fetched = co_await fetch_bytes(*known, frames);
  if (fetched) add(ahead ? ahead_ : fetched_, frames.size());
  const std::string name = data_name(parts_.volume, known->id);
  for (const FrameRef& frame : frames) {
    if (!fetched) {
      finish(*frame, fetched.error(), is_damage(fetched.error()));
    } else if (!frame->opened) {
      const Error& error = frame->opened.error();
      finish(*frame, Error(error.code(), name + ": " + error.context()), true);
    } else {
      finish(*frame, std::nullopt, false);
    }
  }
}

Task<Result<void>> ObjectReader::fetch_bytes(const Known& known, std::span<const FrameRef> frames) {
  const uint64_t start = frames.front()->info.offset;
  const uint64_t length = frames.back()->info.range().end() - start;
  const objects::Part part = objects::Part::range(start, length);
  const std::string name = data_name(parts_.volume, known.id);
  USBD_CO_TRY(const objects::Fetched fetched, co_await get(name, part));
  const auto open = [&] {
    open_frames(known, frames, start, fetched.data);
    return true;
  };
  const auto is_plain = [](const FrameRef& frame) {
    return frame->info.codec == codec::CodecKind::kIdentity;
  };
  const bool here = length <= limits::kReadOpenHere + crypto::kSealTagBytesMax &&
                    parts_.seal.cipher == crypto::CipherMode::kIdentity &&
                    std::ranges::all_of(frames, is_plain);
  if (parts_.workers != nullptr && !here) {
    static_cast<void>(co_await parts_.workers->run(open));
  } else {
    static_cast<void>(open());
  }
  co_return Result<void>();
}

/// Threads: any; nobody else looks at the frames' contents meanwhile.
void ObjectReader::open_frames(const Known& known, std::span<const FrameRef> frames, uint64_t start,
                               Bytes stored) const {
  for (const FrameRef& frame : frames) {
    const FrameInfo& info = frame->info;
    const uint64_t at = info.offset - start;
    if (at + info.stored > stored.size()) {
      frame->opened = Error(Errc::kDamaged, "is cut short");
      continue;
    }
    const auto plain = std::make_shared<FrameBuffer>(info.logical);
    frame->opened =
        known.opener->open(frame->key.frame, info, stored.subspan(at, info.stored), plain->bytes());
    if (frame->opened) frame->plain = plain;
  }
}

void ObjectReader::finish(Frame& frame, const std::optional<Error>& error, bool doubtful) {
  if (error) {
    const auto entry = frames_.find(frame.key);
    if (entry != frames_.end() && entry->second.get() == &frame) frames_.erase(entry);
  } else {
    keep(frame);
  }
  Taker* taker = std::exchange(frame.takers, nullptr);
  while (taker != nullptr) {
    Taker* const next = taker->next;  // it may be gone after this
    if (error) {
      taker->piece->error = error;
      taker->piece->doubtful = doubtful;
      taker->latch->count_down();
    } else {
      deliver(*taker, frame.plain);
    }
    taker = next;
  }
}

void ObjectReader::deliver(const Taker& taker, const FrameMemory& plain) {
  const ReadPiece& piece = *taker.piece;
  const uint64_t frame_first = uint64_t{taker.frame} * kFrameBlocks;
  const uint64_t from = std::max<uint64_t>(piece.location.position, frame_first);
  const uint64_t to = std::min<uint64_t>(piece.location.position + piece.blocks.count,
                                         frame_first + plain->size() / kBlockBytes);
  USBD_ASSERT(from < to);
  if (!piece.out.empty()) {
    std::memcpy(piece.out.data() + (from - piece.location.position) * kBlockBytes,
                plain->bytes().data() + (from - frame_first) * kBlockBytes,
                (to - from) * kBlockBytes);
  }
  if (hook_) hook_(piece, taker.frame, plain);
  taker.latch->count_down();
}

/// Keeps a frame that has come, unless it was given up meanwhile.
void ObjectReader::keep(Frame& frame) {
  const auto entry = frames_.find(frame.key);
  if (entry == frames_.end() || entry->second.get() != &frame) return;
  frame.here = true;
  frame.use = kept_uses_.insert(kept_uses_.end(), frame.key);
  kept_bytes_ += frame.plain->size();
  while (kept_bytes_ > limits::kFramesKeptBytes && kept_uses_.size() > 1) {
    drop(FrameKey(kept_uses_.front()));
  }
}

void ObjectReader::drop(const FrameKey& key) {
  const auto entry = frames_.find(key);
  if (entry == frames_.end()) return;
  const Frame& frame = *entry->second;
  if (frame.here) {
    kept_bytes_ -= frame.plain->size();
    kept_uses_.erase(frame.use);
  }
  frames_.erase(entry);
}

}  // namespace usbd::objstore
