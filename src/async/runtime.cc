// SPDX-License-Identifier: Apache-2.0
//
// Starting and stopping the threads of a Runtime.

#include "async/runtime.h"

#include "base/assert.h"

namespace usbd {

Runtime::Runtime(Options options) : blocking_pool_("usbd-blocking", options.blocking_threads_max) {}

Result<std::unique_ptr<Runtime>> Runtime::start(Options options) {
  USBD_ASSERT(options.loops > 0);
  std::unique_ptr<Runtime> runtime(new Runtime(options));
  for (unsigned index = 0; index < options.loops; ++index) {
    USBD_TRY(std::unique_ptr<EventLoop> loop, EventLoop::create({.index = index,
                                                                 .use_uring = options.use_uring,
                                                                 .watch = &runtime->threads_,
                                                                 .busy_poll = options.busy_poll},
                                                                runtime->blocking_pool_));
    runtime->loops_.push_back(std::move(loop));
  }
  runtime->threads_.start(runtime->loops_);
  return runtime;
}

}  // namespace usbd
