// SPDX-License-Identifier: Apache-2.0
//
// From closed batches to the head: uploading and publishing, on the volume's own loop. One task
// looks after what is due; uploads run beside it, several at once; one publication at a time, each
// taking along all that has been stored since the one before.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"
#include "devices/objstore/waiter.h"

namespace usbd::objstore {

void Volume::wake_background() {
  nap_.request_stop();
}

Nanos Volume::next_deadline() {
  Nanos next = Nanos::max();
  if (ended_) return next;
  if (!contacting_) next = keeper_.last_contact() + limits::kHeadContactEvery;
  if (!batches_.empty()) {
    const Batch& last = *batches_.back();
    const Nanos age =
        std::min(options_.flush_every > Nanos(0) ? options_.flush_every : Nanos::max(),
                 options_.dirty_age_max / 2);
    if (last.state == Batch::State::kOpen && age < Nanos::max() - last.begun()) {
      next = std::min(next, last.begun() + age);
    }
    if (batches_.front()->state == Batch::State::kStored && !publishing_) {
      next = std::min(next, last_publish_ + limits::kPublishEvery);
    }
  }
  for (const Waiter* waiter = flushers_; waiter != nullptr; waiter = waiter->next) {
    next = std::min(next, waiter->deadline);
  }
  if (has_upkeep()) {
    next = std::min(next, home_.now() + std::clamp<Nanos>(options_.space.delete_after / 4,
                                                          limits::kUpkeepMin, limits::kUpkeepMax));
  }
  return next;
}

bool Volume::journal_is_half_full() {
  return journal_->bytes_used() * 2 > journal_->superblock().ring_bytes;
}

void Volume::close_batch_if_due() {
  if (batches_.empty()) return;
  const Batch& last = *batches_.back();
  if (last.state != Batch::State::kOpen) return;
  const Nanos age = home_.now() - last.begun();
  const bool old = (options_.flush_every > Nanos(0) && age >= options_.flush_every) ||
                   age >= options_.dirty_age_max / 2;
  const bool wanted = wanted_number_ >= last.first_number() || closing_;
  // What is on its way makes room; small objects on top of it would only hold that up.
  const uint64_t bytes = last.journal_blocks() * kBlockBytes;
  const bool worth = batches_.size() == 1 || bytes * 4 >= journal_->superblock().ring_bytes;
  const bool pressed = worth && (writers_ != nullptr || journal_is_half_full());
  if (old || wanted || pressed) batches_.back()->state = Batch::State::kClosed;
}

Task<void> Volume::background() {
  while (!stop_.stop_requested()) {
    Nanos wait{0};
    std::stop_token nap;
    {
      const MutexLock lock(mutex_);
      // What asks for attention from here on ends the nap before it begins.
      nap_ = std::stop_source();
      nap = nap_.get_token();
      close_batch_if_due();
    }
    start_uploads();
    start_checkpoint();
    start_publishing();
    start_cleaning();
    start_deleting();
    start_contact();
    expire_flushers();
    {
      const MutexLock lock(mutex_);
      wait = next_deadline() - home_.now();
    }
    co_await home_.sleep_for(std::max<Nanos>(wait, limits::kBackgroundNapMin), nap);
  }
}

void Volume::start_contact() {
  if (contacting_ || home_.now() - keeper_.last_contact() < limits::kHeadContactEvery) return;
  {
    const MutexLock lock(mutex_);
    if (ended_) return;
  }
  contacting_ = true;
  scope_.spawn(make_contact());
}

Task<void> Volume::make_contact() {
  // A publication that is under way is contact enough.
  if (!publishing_) {
    const objects::CallLimits limits{.timeout = limits::kHeadContactEvery,
                                     .stop = stop_.get_token()};
    const Result<void> checked = co_await keeper_.check(limits);
    if (!checked && keeper_.fenced()) fence(checked.error());
  }
  // If the store is away, that is no reason to ask it without a pause.
  co_await home_.sleep_for(limits::kUploadRetry, stop_.get_token());
  contacting_ = false;
  const MutexLock lock(mutex_);
  wake_background();
}

// --- uploads
// --------------------------------------------------------------------------------------

void Volume::start_uploads() {
  // What is sealed from memory is there twice meanwhile, and one after the other is as fast.
  const bool keeps_data = options_.memory_bytes > 0;
  const unsigned sealing_max =
      keeps_data ? std::max(options_.uploads_max / 2, 1U) : options_.uploads_max;
  while (uploads_ < options_.uploads_max && sealing_ < sealing_max && !stop_.stop_requested()) {
    std::shared_ptr<Batch> batch;
    {
      const MutexLock lock(mutex_);
      if (ended_) return;
      const auto next = std::ranges::find(batches_, Batch::State::kClosed, &Batch::state);
      if (next == batches_.end()) return;
      batch = *next;
      const uint64_t expected = batch->data_blocks() * kBlockBytes;
      const bool fits = sealed_bytes_ + expected <= options_.memory_bytes;
      if (uploads_ > 0 && options_.memory_bytes > 0 && !fits) return;
      sealed_bytes_ += expected;
      batch->state = Batch::State::kSealing;
      batch->seq = next_seq_++;
    }
    ++uploads_;
    ++sealing_;
    share_memory();
    scope_.spawn(upload(std::move(batch)));
  }
}

void Volume::share_memory() {
  journal_->keep_at_most(options_.memory_bytes - std::min(options_.memory_bytes, sealed_bytes_));
}

Task<void> Volume::upload(std::shared_ptr<Batch> batch) {
  const ObjectId id{.epoch = head().epoch, .seq = batch->seq, .kind = ObjectKind::kData};
  const std::string name = data_name(options_.name, id);
  // Sealed once: whatever becomes of the attempts, there is one content of that name.
  Result<std::vector<std::byte>> bytes = co_await seal_batch(*batch, id);
  const uint64_t expected = batch->data_blocks() * kBlockBytes;
  const uint64_t taken = bytes ? bytes->size() : 0;
  sealed_bytes_ = sealed_bytes_ - expected + taken;
  --sealing_;
  // From here on only reads may want it.
  journal_->unkeep(batch->first_number(), batch->last_number());
  share_memory();
  {
    const MutexLock lock(mutex_);
    wake_background();
  }
  if (!bytes && !stop_.stop_requested()) {
    end(Error(Errc::kIo,
              fmt::format("the journal cannot be read back: {}", bytes.error().message())));
  }
  while (bytes && !stop_.stop_requested() && !keeper_.fenced()) {
    const objects::CallLimits limits{.stop = stop_.get_token()};
    const Result<std::string> put =
        co_await parts_.store.put(name, *bytes, objects::Condition::always(), limits);
    if (put) {
      finish_upload(*batch, id, *bytes);
      break;
    }
    if (stop_.stop_requested()) break;
    log::warning("{}; it is tried again, and new writes are kept in the journal meanwhile",
                 put.error().message());
    co_await home_.sleep_for(limits::kUploadRetry, stop_.get_token());
  }
  if (bytes) std::vector<std::byte>().swap(*bytes);
  --uploads_;
  sealed_bytes_ -= taken;
  share_memory();
  const MutexLock lock(mutex_);
  wake_background();
}

void Volume::finish_upload(Batch& batch, const ObjectId& id, Bytes bytes) {
  const size_t tail = std::min<size_t>(bytes.size(), limits::kObjectTailBytes);
  Result<Tail> parsed = parse_tail(seal(), id, bytes.last(tail), bytes.size());
  if (parsed && !parsed->directory) parsed = parse_tail(seal(), id, bytes, bytes.size());
  USBD_ASSERT(parsed.has_value());
  USBD_ASSERT(parsed->directory.has_value());
  const MutexLock lock(mutex_);
  batch.directory = std::make_shared<const Directory>(*std::move(parsed->directory));
  batch.object_bytes = bytes.size();
  batch.state = Batch::State::kStored;
  if (!keeps(VolumeRule::kPublishesBeforeItForgets)) journal_->release(batch.last_number());
}

// --- publishing
// -----------------------------------------------------------------------------------

size_t Volume::publishable() {
  size_t count = 0;
  for (const std::shared_ptr<Batch>& batch : batches_) {
    const bool stored = batch->state == Batch::State::kStored;
    if (!stored && keeps(VolumeRule::kStoresBeforeItPublishes)) break;
    if (batch->state == Batch::State::kOpen || batch->state == Batch::State::kClosed) break;
    ++count;
  }
  return count;
}

bool Volume::publish_is_due() {
  if (ended_) return false;
  if (ready_root_) return true;
  const size_t count = publishable();
  // The next opening must find room for its epoch: a checkpoint comes first, and is due.
  if (count == 0 || head().epochs.size() >= kEpochStartsMax) return false;
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; ++i) bytes += batches_[i]->data_blocks() * kBlockBytes;
  const bool waited_for = wanted_number_ >= batches_.front()->first_number();
  return waited_for || closing_ || writers_ != nullptr || bytes >= limits::kPublishBytes ||
         home_.now() - last_publish_ >= limits::kPublishEvery || journal_is_half_full();
}

void Volume::start_publishing() {
  if (publishing_ || head_is_final_ || stop_.stop_requested()) return;
  {
    const MutexLock lock(mutex_);
    if (!publish_is_due()) return;
  }
  publishing_ = true;
  scope_.spawn(publish());
}

Task<void> Volume::publish() {
  size_t count = 0;
  uint64_t seq = 0;
  uint64_t number = 0;
  {
    const MutexLock lock(mutex_);
    count = publishable();
    if (count > 0) {
      seq = batches_[count - 1]->seq;
      number = batches_[count - 1]->last_number();
    }
  }
  // A checkpoint that becomes ready from here on waits for the next change.
  const std::optional<ReadyRoot> root = ready_root_;
  std::function<void(Head&)> change = [this, count, seq, number, &root](Head& head) {
    if (count > 0) {
      head.last_seq = seq;
      head.published_number = number;
    }
    if (root) name_root(*root, head);
  };
  const Result<void> changed = co_await keeper_.change(change, stop_.get_token());
  if (changed) {
    co_await remember_head();
    show_head();
    if (root) root_named();
    if (count > 0) co_await published(count);
  } else {
    if (keeper_.fenced()) {
      fence(changed.error());
    } else if (!stop_.stop_requested()) {
      log::error("{}; it is tried again", changed.error().message());
    }
    co_await home_.sleep_for(limits::kUploadRetry, stop_.get_token());
  }
  publishing_ = false;
  last_publish_ = home_.now();
  const MutexLock lock(mutex_);
  wake_background();
}

void Volume::show_head() {
  const MutexLock lock(mutex_);
  counted_.head = head();
}

Task<void> Volume::published(size_t count) {
  uint64_t number = 0;
  const TakingIn taking_in(taking_in_);
  for (size_t i = 0; i < count; ++i) {
    std::shared_ptr<Batch> batch;
    {
      const MutexLock lock(mutex_);
      batch = batches_.front();
    }
    if (batch->directory != nullptr) {  // null only with a broken rule
      const Slot slot{.bytes = batch->object_bytes, .directory = batch->directory};
      const Result<void> added = co_await add_object(*live_, *pager_, slot);
      // No place in the map, or the map cannot be changed: reads would not find it.
      if (!added) end(added.error());
    }
    // Before that, reads find the batch in front of what the map has of it.
    const MutexLock lock(mutex_);
    number = batch->last_number();
    batches_.pop_front();
    published_seq_ = batch->seq;
    published_number_ = number;
  }
  journal_->release(number);
  answer_flushers(number, std::nullopt);
  wake_writers();
}

/// Waits until it is answered.
struct Volume::FlushTurn {
  Volume& volume;
  Waiter& self;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    self.resume.handle = handle;
    const MutexLock lock(volume.mutex_);
    if (volume.ended_) {
      self.error = volume.ended_;
      return false;
    }
    if (volume.published_number_ >= self.number) return false;
    volume.wanted_number_ = std::max(volume.wanted_number_, self.number);
    self.next = std::exchange(volume.flushers_, &self);
    volume.wake_background();
    return true;
  }
  void await_resume() const noexcept {}
};

Task<Result<void>> Volume::wait_published(uint64_t number) {
  Waiter self(Loop::current());
  self.number = number;
  if (options_.timeout > Nanos(0)) self.deadline = home_.now() + options_.timeout;
  FlushTurn turn{*this, self};
  co_await turn;
  if (self.error) co_return *self.error;
  co_return Result<void>();
}

void Volume::answer_flushers(uint64_t number, const std::optional<Error>& error) {
  Waiter* answered = nullptr;
  {
    const MutexLock lock(mutex_);
    for (Waiter** link = &flushers_; *link != nullptr;) {
      Waiter* const waiter = *link;
      if (waiter->number > number) {
        link = &waiter->next;
        continue;
      }
      *link = waiter->next;
      waiter->next = std::exchange(answered, waiter);
    }
  }
  while (answered != nullptr) {
    Waiter* const waiter = std::exchange(answered, answered->next);
    waiter->error = error;
    waiter->home.post(waiter->resume);  // it may be gone after this
  }
}

void Volume::expire_flushers() {
  const Nanos now = home_.now();
  uint64_t number = 0;
  {
    const MutexLock lock(mutex_);
    for (const Waiter* waiter = flushers_; waiter != nullptr; waiter = waiter->next) {
      if (waiter->deadline <= now) number = std::max(number, waiter->number);
    }
  }
  // Those who came before wait for less, and have waited longer.
  if (number > 0) {
    answer_flushers(number, Error(Errc::kTimedOut, options_.name + ": the store did not take it in "
                                                                   "time"));
  }
}

void Volume::end(const Error& error) {
  {
    const MutexLock lock(mutex_);
    if (ended_) return;
    ended_ = error;
  }
  if (!error.is(Errc::kShutdown)) log::error("{}", error.message());
  answer_flushers(UINT64_MAX, error);
  wake_writers();
}

void Volume::fence(const Error& error) {
  if (!keeps(VolumeRule::kFencesItself)) return;
  end(error);
}

void Volume::abandon() {
  stop_.request_stop();
  end(Error(Errc::kShutdown, options_.name + ": is given up"));
}

Task<Result<void>> Volume::close(std::stop_token stop) {
  Result<void> result;
  if (journal_ && scope_.running() > 0) {
    const uint64_t last = last_number();
    bool done = false;
    while (!done && !stop.stop_requested()) {
      {
        const MutexLock lock(mutex_);
        closing_ = true;
        wake_background();
        const bool rests = !checkpointing_ && !ready_root_ && !checkpoint_is_due();
        done = ended_ || (published_number_ >= last && rests);
        if (ended_) result = *ended_;
      }
      if (!done) co_await home_.sleep_for(limits::kHeadRetryMin, stop);
    }
    bool published = false;
    {
      const MutexLock lock(mutex_);
      published = published_number_ >= last;
    }
    if (!done && !published) {
      result = Error(Errc::kAgain, options_.name +
                                       ": what is not in the store yet is kept in the "
                                       "journal");
    }
    if (result) {
      const std::function<void(Head&)> clean = [](Head& head) { head.clean = true; };
      head_is_final_ = true;  // one change at a time: from here on it is this one
      while (publishing_) co_await home_.sleep_for(limits::kHeadRetryMin);
      result = co_await keeper_.change(clean, stop);
      if (result) co_await remember_head();
    }
  }
  stop_.request_stop();
  {
    const MutexLock lock(mutex_);
    closing_ = true;
    wake_background();
  }
  co_await scope_.close();
  co_await close_reading();
  if (seen_) static_cast<void>(co_await seen_->close());  // all that matters in it was synced
  if (journal_) {
    const Result<void> closed = co_await journal_->close();
    if (result && !closed) result = closed;
  }
  co_return result;
}

}  // namespace usbd::objstore
