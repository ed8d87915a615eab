// SPDX-License-Identifier: Apache-2.0
//
// A process that uses a store in a directory until it is done or killed, for local_process_test:
//
//     store_writer put DIR FIRST    puts numbered objects for ever, and says of each, on standard
//                                   output as 16 bytes, that it is stored: which one, what number
//     store_writer add DIR TIMES    adds one to the number in an object, so many times, by
//                                   compare-and-swap
//     store_writer fill DIR SECONDS puts objects until the directory is full; exit status 0 if it
//                                   then said so and removing one made room again

#include <charconv>
#include <cstdio>
#include <cstring>

#include <unistd.h>

#include <fmt/format.h>

#include "async/testing.h"
#include "base/random.h"
#include "objects/local/local_store.h"
#include "store/numbered_object.h"

namespace usbd::objects::testing {
namespace {

constexpr uint64_t kObjects = 8;

struct Stored {
  uint64_t object;
  uint64_t number;
};

int fail(const Error& error) {
  fmt::print(stderr, "store_writer: {}\n", error.message());
  return 1;
}

Task<Result<std::string>> put(LocalStore& store, std::string name,
                              const std::vector<std::byte>& data, Condition condition) {
  CallLimits limits;
  co_return co_await store.put(std::move(name), data, std::move(condition), std::move(limits));
}

Task<int> put_for_ever(LocalStore& store, uint64_t first) {
  SystemRng rng;
  for (uint64_t number = first;; ++number) {
    const Stored stored{.object = rng.below(kObjects), .number = number};
    const std::string name = fmt::format("d/{}/{}", stored.object % 3, stored.object);
    const std::vector<std::byte> data = numbered(number);
    const Result<std::string> done = co_await put(store, name, data, Condition::always());
    if (!done) co_return fail(done.error());
    if (write(STDOUT_FILENO, &stored, sizeof(stored)) != sizeof(stored)) co_return 1;
    // Folders come and go too.
    CallLimits limits;
    const std::string passing = fmt::format("passing/{}/x", number);
    const Result<std::string> made = co_await put(store, passing, data, Condition::absent());
    if (!made) co_return fail(made.error());
    const Result<void> removed = co_await store.remove(passing, std::move(limits));
    if (!removed) co_return fail(removed.error());
  }
}

Task<int> add_one(LocalStore& store) {
  for (;;) {
    CallLimits limits;
    const Result<Fetched> got = co_await store.get("sum", Part::whole(1U << 20), std::move(limits));
    if (!got && !got.error().is(Errc::kNotFound)) co_return fail(got.error());
    std::optional<uint64_t> number = 0;
    if (got) number = number_of(got->data);
    if (!number) co_return fail(Error(Errc::kIo, "the object is a mixture"));
    const std::vector<std::byte> data = numbered(*number + 1);
    Condition condition = got ? Condition::matches(got->tag) : Condition::absent();
    const Result<std::string> done = co_await put(store, "sum", data, std::move(condition));
    if (done) co_return 0;
    if (!done.error().is(Errc::kExists)) co_return fail(done.error());
  }
}

Task<int> add(LocalStore& store, uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) {
    const int status = co_await add_one(store);
    if (status != 0) co_return status;
  }
  co_return 0;
}

Task<int> fill(LocalStore& store) {
  const std::vector<std::byte> data(100'000, std::byte{7});
  for (int i = 0;; ++i) {
    const Result<std::string> done =
        co_await put(store, fmt::format("fill/{}", i), data, Condition::always());
    if (done) continue;
    if (!done.error().is(Errc::kNoSpace) || i < 3) co_return fail(done.error());
    fmt::print("{}\n", done.error().message());
    break;
  }
  CallLimits limits;
  const Result<void> removed = co_await store.remove("fill/0", std::move(limits));
  if (!removed) co_return fail(removed.error());
  const Result<std::string> again = co_await put(store, "fill/0", data, Condition::always());
  if (!again) co_return fail(again.error());
  CallLimits whole;
  const Result<Fetched> got = co_await store.get("fill/0", Part::whole(1U << 20), std::move(whole));
  if (!got) co_return fail(got.error());
  co_return got->data == data ? 0 : 1;
}

Task<int> run(std::string what, std::string path, uint64_t argument, WorkerPool& pool, Rng& rng) {
  LocalStore::Options options{.path = std::move(path), .container = "vol"};
  const Result<std::unique_ptr<LocalStore>> store =
      co_await LocalStore::open(std::move(options), pool, rng);
  if (!store) co_return fail(store.error());
  int status = 2;
  if (what == "put") status = co_await put_for_ever(**store, argument);
  if (what == "add") status = co_await add(**store, argument);
  if (what == "fill") status = co_await fill(**store);
  co_await (*store)->close();
  co_return status;
}

}  // namespace
}  // namespace usbd::objects::testing

int main(int argc, char** argv) {
  uint64_t argument = 0;
  if (argc == 4) std::from_chars(argv[3], argv[3] + std::strlen(argv[3]), argument);
  if (argc != 4) {
    fmt::print(stderr, "usage: store_writer put|add|fill DIR NUMBER\n");
    return 2;
  }
  usbd::SystemRng rng;
  usbd::testing::TestLoop loop;
  return loop.run(usbd::objects::testing::run(argv[1], argv[2], argument, loop.pool(), rng));
}
