// SPDX-License-Identifier: Apache-2.0
//
// Starting operations on the loops' threads, and waiting for them from the suite's.

#include "conformance/threaded_subject.h"

#include <algorithm>
#include <chrono>

#include <fmt/core.h>

namespace usbd::testing {
namespace {

/// Longer than any correct device takes, also under a sanitizer on a busy machine.
constexpr std::chrono::seconds kAnswerTimeout(120);
constexpr unsigned kPoolThreads = 8;

}  // namespace

struct ThreadedSubject::LoopThread {
  explicit LoopThread(std::unique_ptr<EventLoop> made)
      : loop(std::move(made)), thread([this] { loop->run(); }) {}
  ~LoopThread() {
    loop->stop();
    thread.join();
  }

  std::unique_ptr<EventLoop> loop;
  Scope scope;
  std::thread thread;
};

/// Operations that were sent together. Shared, so that a request that hangs keeps its memory.
struct ThreadedSubject::InFlight : std::enable_shared_from_this<InFlight> {
  std::vector<Operation> ops;
  std::vector<std::unique_ptr<Start>> starts;
  std::mutex mutex;
  std::condition_variable changed;
  size_t answered = 0;

  void answer() {
    const std::lock_guard lock(mutex);
    ++answered;
    changed.notify_all();
  }
  /// Whether `count` have been answered in time.
  bool wait_for(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kAnswerTimeout, [&] { return answered >= count; });
  }
};

/// Starts one task on a loop's thread.
struct ThreadedSubject::Start final : Work {
  Start(LoopThread& on, InFlight& of, Task<void> started)
      : home(on), in_flight(of), task(std::move(started)) {
    run = [](Work& work) {
      auto& self = static_cast<Start&>(work);
      self.home.scope.spawn(finish(std::move(self.task), self.in_flight.shared_from_this()));
    };
  }
  static Task<void> finish(Task<void> task, std::shared_ptr<InFlight> in_flight) {
    co_await task;
    in_flight->answer();
  }

  LoopThread& home;
  InFlight& in_flight;
  Task<void> task;
};

ThreadedSubject::ThreadedSubject(DeviceUnderTest test)
    : test_(std::move(test)),
      file_pool_(std::make_unique<WorkerPool>("files", kPoolThreads)),
      pool_(std::make_unique<WorkerPool>("conformance", kPoolThreads)) {}

ThreadedSubject::~ThreadedSubject() {
  if (hangs_) {
    // What hangs goes on using these.
    for (auto& loop : loops_) {
      [[maybe_unused]] const auto* const kept = loop.release();
    }
    [[maybe_unused]] const auto* const served = served_.release();
    [[maybe_unused]] const auto* const pool = pool_.release();
    [[maybe_unused]] const auto* const file_pool = file_pool_.release();
    return;
  }
  if (served_ != nullptr) {
    const Result<void> closed = close_device();
    if (!closed && !test_.may_fail) fmt::print(stderr, "closing: {}\n", closed.error().message());
  }
}

Result<std::unique_ptr<ThreadedSubject>> ThreadedSubject::open(DeviceUnderTest test) {
  std::unique_ptr<ThreadedSubject> subject(new ThreadedSubject(std::move(test)));
  USBD_TRY_VOID(subject->start_loops());
  USBD_TRY_VOID(subject->open_device());
  return subject;
}

Result<void> ThreadedSubject::start_loops() {
  for (unsigned i = 0; i < std::max(1U, test_.loops); ++i) {
    EventLoop::Options options;
    options.index = i;
    USBD_TRY(std::unique_ptr<EventLoop> loop, EventLoop::create(options, *file_pool_));
    loops_.push_back(std::make_unique<LoopThread>(std::move(loop)));
  }
  return {};
}

namespace {

Task<void> store_result(Task<Result<void>> task, Result<void>& result) {
  result = co_await task;
}

Task<Result<void>> do_now(const std::function<void()>& function) {
  function();
  co_return Result<void>();
}

}  // namespace

Result<void> ThreadedSubject::run_on_first_loop(const std::function<Task<Result<void>>()>& make) {
  const auto in_flight = std::make_shared<InFlight>();
  Result<void> result;
  Task<void> task = store_result(make(), result);
  Start start(*loops_[0], *in_flight, std::move(task));
  loops_[0]->loop->post(start);
  // Not given up on: opening and closing may take as long as the device needs.
  while (!in_flight->wait_for(1)) fmt::print(stderr, "still opening or closing the device\n");
  return result;
}

Task<Result<void>> ThreadedSubject::open_task() {
  USBD_CO_TRY(std::unique_ptr<Device> device, co_await test_.open(*pool_));
  served_ = std::make_unique<ServedDevice>(std::move(device), std::max(1U, test_.loops));
  co_return Result<void>();
}

Result<void> ThreadedSubject::open_device() {
  return run_on_first_loop([this] { return open_task(); });
}

Result<void> ThreadedSubject::close_device() {
  Result<void> closed = run_on_first_loop([this] { return served_->close(); });
  served_.reset();
  return closed;
}

SubjectTraits ThreadedSubject::traits() const {
  return served_->traits(test_, static_cast<unsigned>(loops_.size()));
}

std::shared_ptr<ThreadedSubject::InFlight> ThreadedSubject::send(std::span<Operation> batch) {
  auto in_flight = std::make_shared<InFlight>();
  in_flight->ops.assign(std::move_iterator(batch.begin()), std::move_iterator(batch.end()));
  for (Operation& op : in_flight->ops) {
    LoopThread& home = *loops_[op.connection % loops_.size()];
    const auto path = static_cast<Path>(rng_.below(kPaths));
    in_flight->starts.push_back(
        std::make_unique<Start>(home, *in_flight, served_->carry_out(op, path)));
  }
  for (size_t i = 0; i < in_flight->ops.size(); ++i) {
    Start& start = *in_flight->starts[i];
    start.home.loop->post(start);
  }
  return in_flight;
}

Result<void> ThreadedSubject::receive(const std::shared_ptr<InFlight>& in_flight,
                                      std::span<Operation> batch) {
  if (!in_flight->wait_for(in_flight->ops.size())) {
    hangs_ = true;
    static_cast<void>(new std::shared_ptr<InFlight>(in_flight));  // for what still runs
    return Error(Errc::kTimedOut,
                 fmt::format("{} of {} requests were not answered",
                             in_flight->ops.size() - in_flight->answered, in_flight->ops.size()));
  }
  std::move(in_flight->ops.begin(), in_flight->ops.end(), batch.begin());
  return {};
}

Result<void> ThreadedSubject::execute(std::span<Operation> batch) {
  return receive(send(batch), batch);
}

Result<void> ThreadedSubject::reopen() {
  Result<void> closed = close_device();
  if (!closed && !test_.may_fail) return closed;
  return open_device();
}

Result<void> ThreadedSubject::crash(std::span<Operation> batch) {
  const std::shared_ptr<InFlight> in_flight = send(batch);
  in_flight->wait_for(rng_.between(0, batch.size()));
  USBD_TRY_VOID(run_on_first_loop([this] { return do_now(test_.crash); }));
  USBD_TRY_VOID(receive(in_flight, batch));
  static_cast<void>(close_device());  // it fails, and must not matter
  return open_device();
}

}  // namespace usbd::testing
