// SPDX-License-Identifier: Apache-2.0
//
// What is read goes straight into memory that is wiped. A key file is made under another name and
// linked to its own when it is whole and synced, so that a crash leaves all of it or nothing, and
// of two that make it at once one wins and both use its key.

#include "crypto/key_source.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "crypto/key_text.h"

namespace usbd::crypto {
namespace {

constexpr size_t kMadeKeyBytes = 32;
constexpr mode_t kOthersMask = 077;

Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// All of the descriptor, unless it is more than a key can be.
Result<Secret> read_all(int fd) {
  Secret content(limits::kKeyTextMax);
  size_t size = 0;
  while (size < content.size()) {
    const MutableBytes rest = content.writable().subspan(size);
    const ssize_t got = ::read(fd, rest.data(), rest.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error::from_errno(errno);
    if (got == 0) {
      content.shrink(size);
      return content;
    }
    size += static_cast<size_t>(got);
  }
  return Error(Errc::kInvalid, fmt::format("it holds {} bytes or more, and a key is at most 64 "
                                           "characters and a line end",
                                           limits::kKeyTextMax));
}

Error at_place(const Error& error, std::string_view place) {
  const std::string context = error.context();
  return Error(error.code(), fmt::format("cannot take the key from {}{}{}", place,
                                         context.empty() ? "" : ": ", context));
}

Result<LoadedKey> decoded(const Result<Secret>& content, std::string place) {
  if (!content) return at_place(content.error(), place);
  Result<Secret> key = decode_key(content->bytes());
  if (!key) return at_place(key.error(), place);
  return LoadedKey{.key = *std::move(key), .place = std::move(place)};
}

/// Refuses a regular file that somebody else may read or write.
Result<void> check_private(int fd, const std::string& path) {
  struct stat facts{};
  if (::fstat(fd, &facts) != 0) return Error::from_errno(errno);
  if (S_ISDIR(facts.st_mode)) return Error(Errc::kInvalid, "it is a directory");
  if (!S_ISREG(facts.st_mode) || (facts.st_mode & kOthersMask) == 0) return {};
  return Error(Errc::kPerm, fmt::format("others than its owner may read or write it (mode {:04o}); "
                                        "run: chmod 600 '{}'",
                                        facts.st_mode & 07777U, path));
}

enum class Guarded : uint8_t { kByMode, kBySystem };

Result<LoadedKey> from_file(const std::string& path, Guarded guarded) {
  std::string place = fmt::format("the file \"{}\"", path);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return at_place(Error::from_errno(errno), place);
  if (guarded == Guarded::kByMode) {
    const Result<void> checked = check_private(fd.get(), path);
    if (!checked) return at_place(checked.error(), place);
  }
  return decoded(read_all(fd.get()), std::move(place));
}

Result<LoadedKey> from_environment(const std::string& name) {
  std::string place = fmt::format("the environment variable {}", name);
  char* const value = std::getenv(name.c_str());
  if (value == nullptr) return at_place(Error(Errc::kNotFound, "it is not set"), place);
  const MutableBytes bytes(reinterpret_cast<std::byte*>(value), std::strlen(value));
  const Result<Secret> content = Secret(bytes);
  wipe(bytes);  // /proc/self/environ shows this memory
  ::unsetenv(name.c_str());
  return decoded(content, std::move(place));
}

Result<LoadedKey> from_descriptor(std::string_view text) {
  std::string place = fmt::format("descriptor {}", text);
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) {
    return Error(Errc::kInvalid, "fd: is followed by the number of an open file, such as fd:3");
  }
  const Result<Secret> content = read_all(number);
  if (number > STDERR_FILENO && (content || content.error().number() != EBADF)) ::close(number);
  return decoded(content, std::move(place));
}

Result<LoadedKey> from_credential(std::string_view name) {
  const std::string place = fmt::format("the credential {}", name);
  const bool is_name = name != "." && name != ".." && name.find('/') == std::string_view::npos;
  if (!is_name) {
    return at_place(Error(Errc::kInvalid, "cred: is followed by a name, not by a path"), place);
  }
  const char* const folder = std::getenv("CREDENTIALS_DIRECTORY");
  if (folder == nullptr) {
    return at_place(Error(Errc::kInvalid,
                          "$CREDENTIALS_DIRECTORY is not set: credentials are for "
                          "services of systemd with LoadCredential="),
                    place);
  }
  // systemd shows them to this service only; their mode may say otherwise.
  return from_file(fmt::format("{}/{}", folder, name), Guarded::kBySystem);
}

Result<void> write_whole(int fd, Bytes data) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Error::from_errno(errno);
    data = data.subspan(static_cast<size_t>(written));
  }
  return ::fsync(fd) == 0 ? Result<void>() : Error::from_errno(errno);
}

/// 64 hex digits and a line end: people can read, print and copy it.
Secret random_key_text(Rng& rng) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  Secret key(kMadeKeyBytes);
  rng.fill(key.writable());
  Secret text(2 * kMadeKeyBytes + 1);
  for (size_t i = 0; i < kMadeKeyBytes; ++i) {
    const auto value = std::to_integer<size_t>(key.bytes()[i]);
    text.writable()[2 * i] = static_cast<std::byte>(kDigits[value / 16]);
    text.writable()[2 * i + 1] = static_cast<std::byte>(kDigits[value % 16]);
  }
  text.writable().back() = std::byte{'\n'};
  return text;
}

/// Makes the file, or fails with kExists if there is one now.
Result<void> make_file(const std::string& path, Bytes content) {
  const std::string fresh = fmt::format("{}.{}.new", path, ::getpid());
  ::unlink(fresh.c_str());  // what a process of this number left when it was killed
  const UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return Error::from_errno(errno);
  Result<void> done = write_whole(fd.get(), content);
  if (done && ::link(fresh.c_str(), path.c_str()) != 0) done = Error::from_errno(errno);
  ::unlink(fresh.c_str());
  return done;
}

Result<void> sync_folder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const bool synced = fd && ::fsync(fd.get()) == 0;
  return synced ? Result<void>() : Error::from_errno(errno, "cannot sync " + folder);
}

std::string key_file_in(const std::string& folder) {
  return folder + "/key.aes";
}

}  // namespace

Result<LoadedKey> load_key(std::string_view source) {
  const size_t colon = std::min(source.find(':'), source.size());
  const std::string_view kind = source.substr(0, colon);
  const std::string_view rest = source.substr(std::min(colon + 1, source.size()));
  const bool known =
      kind == "key" || kind == "file" || kind == "env" || kind == "fd" || kind == "cred";
  if (!known || colon == source.size() || rest.empty()) {
    return Error(Errc::kInvalid,
                 "a key is given as key:KEY, file:PATH, env:NAME, fd:NUMBER or cred:NAME");
  }
  if (kind == "key") return decoded(Secret(bytes_of(rest)), "what follows key:");
  if (kind == "file") return from_file(std::string(rest), Guarded::kByMode);
  if (kind == "env") return from_environment(std::string(rest));
  if (kind == "fd") return from_descriptor(rest);
  return from_credential(rest);
}

Result<LoadedKey> load_key_file(const std::string& folder) {
  Result<LoadedKey> loaded = from_file(key_file_in(folder), Guarded::kByMode);
  if (loaded || !loaded.error().is(Errc::kNotFound)) return loaded;
  return Error(
      Errc::kNotFound,
      fmt::format("there is no key: put a copy of the volume's key.aes into \"{}\", or say "
                  "where the key is with file:PATH or another source",
                  folder));
}

Result<LoadedKey> load_or_make_key_file(const std::string& folder, Rng& rng) {
  const std::string path = key_file_in(folder);
  Result<LoadedKey> loaded = from_file(path, Guarded::kByMode);
  if (!loaded && loaded.error().is(Errc::kNotFound)) {
    const Result<void> made = make_file(path, random_key_text(rng).bytes());
    if (!made && !made.error().is(Errc::kExists)) {
      return Error(made.error().code(), fmt::format("cannot make the key file \"{}\"", path));
    }
    loaded = from_file(path, Guarded::kByMode);
    if (loaded) loaded->made = made.has_value();
  }
  // Also when it was there: whoever made it may have died before its name was safe.
  if (loaded) USBD_TRY_VOID(sync_folder(folder));
  return loaded;
}

}  // namespace usbd::crypto
