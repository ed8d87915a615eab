// SPDX-License-Identifier: Apache-2.0
//
// The client's thread: takes new requests from the queue, has curl move them, gives up those that
// are cancelled or late, and posts the answers. The thread is a pool of one, with one endless job.

#include "objects/http/http_client.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <optional>

#include <unistd.h>

#include <curl/curl.h>

#include "async/worker_pool.h"
#include "base/assert.h"
#include "base/mutex.h"
#include "objects/http/http_transfer.h"

namespace usbd::objects {
namespace {

/// Errors: kNoMemory, which is what the only failure comes from.
Result<void> start_curl() {
  static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (kStarted != CURLE_OK) return Error(Errc::kNoMemory, curl_easy_strerror(kStarted));
  return {};
}

}  // namespace

class HttpClient::Driver {
 public:
  Driver(Loop& home, unsigned connections_max)
      : home_(home), connections_max_(connections_max), multi_(curl_multi_init()) {
    main_.driver = this;
    main_.run = [](Work& work) { static_cast<Main&>(work).driver->main(); };
  }
  ~Driver() {
    USBD_ASSERT(!started_ || ended_);
    pool_.reset();
    for (CURL* const easy : idle_) curl_easy_cleanup(easy);
    curl_multi_cleanup(multi_);
  }
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  [[nodiscard]] bool usable() const { return multi_ != nullptr; }
  void start();

  // Threads: the loop's.
  void submit(HttpTransfer& transfer);
  auto stop() {
    struct Awaiter {
      Driver& driver;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        driver.stopped_.handle = handle;
        {
          const MutexLock lock(driver.mutex_);
          driver.stopping_ = true;
        }
        curl_multi_wakeup(driver.multi_);
      }
      void await_resume() const noexcept { driver.ended_ = true; }
    };
    return Awaiter{*this};
  }

  /// Threads: any.
  void cancel(HttpTransfer& transfer);

 private:
  struct Main final : Work {
    Driver* driver = nullptr;
  };

  void main();
  /// Returns false when the client is being closed.
  bool take_new();
  void start_waiting();
  void begin(HttpTransfer& transfer);
  void take_finished();
  void note_progress();
  void give_up_late(Nanos now);
  void end_active(size_t index, Error reason);
  void fail_all();
  void answer(HttpTransfer& transfer);
  CURL* take_handle();
  [[nodiscard]] int wait_ms();

  Loop& home_;
  const unsigned connections_max_;
  CURLM* const multi_;
  Main main_;
  ResumeWork stopped_;
  bool started_ = false;
  bool ended_ = false;

  Mutex mutex_;
  std::vector<HttpTransfer*> handed_over_ USBD_GUARDED_BY(mutex_);
  bool stopping_ USBD_GUARDED_BY(mutex_) = false;
  std::atomic<bool> cancels_{false};

  // The thread's own.
  std::deque<HttpTransfer*> waiting_;
  std::vector<HttpTransfer*> active_;
  std::vector<CURL*> idle_;
  /// No transfer has to be given up before.
  Nanos next_check_ = Nanos::max();

  /// Last: it is joined first.
  std::optional<WorkerPool> pool_;
};

void HttpClient::Driver::start() {
  const long connections = static_cast<long>(connections_max_);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, connections);
  curl_multi_setopt(multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections);
  curl_multi_setopt(multi_, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_NOTHING));
  started_ = true;
  pool_.emplace("http", 1U);
  pool_->submit(main_);
}

void HttpClient::Driver::submit(HttpTransfer& transfer) {
  {
    const MutexLock lock(mutex_);
    USBD_ASSERT(!stopping_);
    handed_over_.push_back(&transfer);
  }
  curl_multi_wakeup(multi_);
}

void HttpClient::Driver::cancel(HttpTransfer& transfer) {
  transfer.canceled.store(true);
  cancels_.store(true);
  curl_multi_wakeup(multi_);
}

void HttpClient::Driver::main() {
  while (take_new()) {
    const Nanos now = home_.now();
    if (cancels_.exchange(false) || now >= next_check_) give_up_late(now);
    start_waiting();
    int running = 0;
    curl_multi_perform(multi_, &running);
    note_progress();
    take_finished();
    if (!waiting_.empty() && active_.size() < connections_max_) continue;
    curl_multi_poll(multi_, nullptr, 0, wait_ms(), nullptr);
  }
  fail_all();
  home_.post(stopped_);
}

bool HttpClient::Driver::take_new() {
  const MutexLock lock(mutex_);
  for (HttpTransfer* const transfer : handed_over_) {
    next_check_ = std::min(next_check_, transfer->deadline);
    // It may have been cancelled, and this looked for, before it was handed over.
    if (transfer->canceled.load()) cancels_.store(true);
    waiting_.push_back(transfer);
  }
  handed_over_.clear();
  return !stopping_;
}

CURL* HttpClient::Driver::take_handle() {
  if (idle_.empty()) return curl_easy_init();
  CURL* const easy = idle_.back();
  idle_.pop_back();
  curl_easy_reset(easy);
  return easy;
}

void HttpClient::Driver::start_waiting() {
  while (!waiting_.empty() && active_.size() < connections_max_) {
    HttpTransfer& transfer = *waiting_.front();
    waiting_.pop_front();
    begin(transfer);
  }
}

void HttpClient::Driver::begin(HttpTransfer& transfer) {
  CURL* const easy = take_handle();
  if (easy == nullptr) {
    transfer.failure = Error(Errc::kNoMemory, "no memory for a request");
    return answer(transfer);
  }
  if (Result<void> prepared = transfer.prepare(easy); !prepared) {
    idle_.push_back(easy);
    transfer.failure = std::move(prepared).error();
    return answer(transfer);
  }
  transfer.last_progress = home_.now();
  next_check_ = std::min(next_check_, transfer.expiry());
  active_.push_back(&transfer);
  const CURLMcode added = curl_multi_add_handle(multi_, easy);
  USBD_ASSERT(added == CURLM_OK || added == CURLM_OUT_OF_MEMORY);
  if (added != CURLM_OK) {
    end_active(active_.size() - 1, Error(Errc::kNoMemory, "no memory for a request"));
  }
}

void HttpClient::Driver::note_progress() {
  const Nanos now = home_.now();
  for (HttpTransfer* const transfer : active_) {
    if (std::exchange(transfer->moved, false)) transfer->last_progress = now;
  }
}

void HttpClient::Driver::take_finished() {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    CURL* const easy = message->easy_handle;
    const CURLcode code = message->data.result;
    const auto at = std::ranges::find(active_, easy, &HttpTransfer::easy);
    USBD_ASSERT(at != active_.end());
    HttpTransfer& transfer = **at;
    active_.erase(at);
    transfer.finish(code);
    curl_multi_remove_handle(multi_, easy);
    idle_.push_back(easy);
    answer(transfer);
  }
}

/// Gives up what is cancelled or late, and finds out when to look again.
void HttpClient::Driver::give_up_late(Nanos now) {
  next_check_ = Nanos::max();
  std::vector<HttpTransfer*> given_up;
  std::erase_if(waiting_, [&](HttpTransfer* transfer) {
    const bool late = transfer->canceled.load() || now >= transfer->deadline;
    if (!late) next_check_ = std::min(next_check_, transfer->deadline);
    if (late) given_up.push_back(transfer);
    return late;
  });
  for (HttpTransfer* const transfer : given_up) {
    transfer->failure = transfer->canceled.load()
                            ? Error(Errc::kCanceled)
                            : Error(Errc::kTimedOut, "no connection was free in time");
    answer(*transfer);
  }
  for (size_t i = active_.size(); i-- > 0;) {
    const HttpTransfer& transfer = *active_[i];
    if (transfer.canceled.load()) {
      end_active(i, Error(Errc::kCanceled));
    } else if (now >= transfer.expiry()) {
      end_active(i, transfer.expired(now));
    } else {
      next_check_ = std::min(next_check_, transfer.expiry());
    }
  }
}

void HttpClient::Driver::end_active(size_t index, Error reason) {
  HttpTransfer& transfer = *active_[index];
  active_.erase(active_.begin() + static_cast<ptrdiff_t>(index));
  // Closes the connection; after it curl touches neither the transfer nor its memory.
  curl_multi_remove_handle(multi_, transfer.easy);
  idle_.push_back(transfer.easy);
  transfer.failure = std::move(reason);
  answer(transfer);
}

void HttpClient::Driver::fail_all() {
  while (!active_.empty()) end_active(active_.size() - 1, Error(Errc::kCanceled));
  for (HttpTransfer* const transfer : waiting_) {
    transfer->failure = Error(Errc::kCanceled);
    answer(*transfer);
  }
  waiting_.clear();
}

/// The last touch: the loop may free the transfer at once.
void HttpClient::Driver::answer(HttpTransfer& transfer) {
  if (!transfer.result.has_value()) transfer.finish(CURLE_OK);
  home_.post(transfer.done);
}

int HttpClient::Driver::wait_ms() {
  using std::chrono::ceil;
  using std::chrono::milliseconds;
  Nanos wait = limits::kHttpPollMax;
  if (next_check_ != Nanos::max()) {
    wait = std::clamp(next_check_ - home_.now(), Nanos(0), wait);
  }
  return static_cast<int>(ceil<milliseconds>(wait).count());
}

HttpClient::HttpClient(Loop& home, Options options, std::unique_ptr<Driver> driver)
    : home_(home), options_(std::move(options)), driver_(std::move(driver)) {}

HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::create(Loop& home, Options options) {
  USBD_ASSERT(options.connections_max > 0);
  USBD_TRY_VOID(start_curl());
  if (!options.ca_file.empty() && ::access(options.ca_file.c_str(), R_OK) != 0) {
    return Error(Errc::kInvalid, "the CA file " + options.ca_file + " cannot be read");
  }
  auto driver = std::make_unique<Driver>(home, options.connections_max);
  if (!driver->usable()) return Error(Errc::kNoMemory, "no memory for an HTTP client");
  driver->start();
  return std::unique_ptr<HttpClient>(new HttpClient(home, std::move(options), std::move(driver)));
}

Task<Result<HttpResponse>> HttpClient::send(HttpRequest request) {
  USBD_ASSERT(&Loop::current() == &home_);
  if (request.stop.stop_requested()) co_return Errc::kCanceled;
  const std::stop_token stop = request.stop;
  HttpTransfer transfer(std::move(request), options_);
  const Nanos timeout = transfer.request.timeout;
  transfer.deadline = home_.now() + (timeout > Nanos(0) ? timeout : options_.timeout);

  struct Awaiter {
    Driver& driver;
    HttpTransfer& transfer;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      transfer.done.handle = handle;
      driver.submit(transfer);
    }
    void await_resume() const noexcept {}
  };
  // Gone before the transfer is, and not before a call of it in another thread has ended.
  const std::stop_callback on_stop(stop, [this, &transfer] { driver_->cancel(transfer); });
  co_await Awaiter{*driver_, transfer};
  co_return std::move(*transfer.result);
}

Task<void> HttpClient::close() {
  co_await driver_->stop();
}

}  // namespace usbd::objects
