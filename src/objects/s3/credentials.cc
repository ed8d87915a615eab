// SPDX-License-Identifier: Apache-2.0
//
// The keeper, and the sources other than the metadata service.

#include "objects/s3/credentials.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "objects/s3/encoding.h"
#include "objects/s3/instance_credentials.h"

namespace usbd::objects::s3 {
namespace {

bool has_control(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return true;
  }
  return false;
}

/// Credentials that never change.
class FixedSource final : public CredentialSource {
 public:
  explicit FixedSource(Credentials credentials) : credentials_(std::move(credentials)) {}
  Task<Result<Credentials>> read() override { co_return credentials_; }
  [[nodiscard]] bool can_change() const override { return false; }

 private:
  const Credentials credentials_;
};

Result<std::string> read_small_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error(Errc::kAccess, fmt::format("{} ({})", path, strerror(errno)));
  std::string text;
  while (text.size() <= limits::kTextFileMax) {
    char piece[4096];
    const ssize_t got = ::read(fd.get(), piece, sizeof(piece));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Error(Errc::kAccess, fmt::format("{} ({})", path, strerror(errno)));
    if (got == 0) return text;
    text.append(piece, static_cast<size_t>(got));
  }
  return Error(Errc::kAccess, path + " (too long)");
}

Result<Credentials> read_file(const std::string& path, const std::string& profile) {
  USBD_TRY(const std::string text, read_small_file(path));
  std::optional<Credentials> found = parse_credentials_file(text, profile);
  if (!found.has_value()) {
    return Error(Errc::kAccess, fmt::format("{} (no keys of profile \"{}\")", path, profile));
  }
  return *std::move(found);
}

class FileSource final : public CredentialSource {
 public:
  FileSource(std::string path, std::string profile, WorkerPool& pool)
      : path_(std::move(path)), profile_(std::move(profile)), pool_(pool) {}

  Task<Result<Credentials>> read() override {
    auto job = [this] { return read_file(path_, profile_); };
    Result<Credentials> found = co_await pool_.run(job);
    if (found) co_return found;
    co_return Error(Errc::kAccess,
                    fmt::format("no credentials: neither access_key_id and secret_key nor "
                                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set, nor are "
                                "there any in {}",
                                found.error().context()));
  }
  [[nodiscard]] bool can_change() const override { return true; }

 private:
  const std::string path_;
  const std::string profile_;
  WorkerPool& pool_;
};

std::string credentials_path(const Environment& environment) {
  std::string path = environment("AWS_SHARED_CREDENTIALS_FILE");
  if (!path.empty()) return path;
  const std::string home = environment("HOME");
  return home.empty() ? std::string() : home + "/.aws/credentials";
}

/// "name = value" with blanks around both gone; the value is empty without a `=`.
std::pair<std::string_view, std::string_view> split_setting(std::string_view line) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) return {trim(line), {}};
  return {trim(line.substr(0, equals)), trim(line.substr(equals + 1))};
}

}  // namespace

std::optional<Credentials> parse_credentials_file(std::string_view text, std::string_view profile) {
  Credentials found;
  bool inside = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1);
    const std::string_view line = trim(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      const size_t close = line.find(']');
      inside = close != std::string_view::npos && trim(line.substr(1, close - 1)) == profile;
      continue;
    }
    const auto [name, value] = split_setting(line);
    if (!inside || has_control(value)) continue;
    if (name == "aws_access_key_id") found.key.id = value;
    if (name == "aws_secret_access_key") found.key.secret = value;
    if (name == "aws_session_token") found.token = value;
  }
  if (found.key.id.empty() || found.key.secret.empty()) return std::nullopt;
  return found;
}

Result<std::unique_ptr<CredentialSource>> find_credentials(const S3Config& config,
                                                           const Environment& environment,
                                                           HttpClient& client, WorkerPool& pool) {
  if (config.instance_credentials) {
    std::string endpoint = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    return std::unique_ptr<CredentialSource>(
        std::make_unique<InstanceSource>(client, std::move(endpoint)));
  }
  const auto fixed = [](std::string id, std::string secret, std::string token) {
    Credentials credentials{
        .key = {std::move(id), std::move(secret)}, .token = std::move(token), .expires = {}};
    return std::unique_ptr<CredentialSource>(std::make_unique<FixedSource>(std::move(credentials)));
  };
  if (!config.key_id.empty()) return fixed(config.key_id, config.secret, config.token);
  std::string id = environment("AWS_ACCESS_KEY_ID");
  std::string secret = environment("AWS_SECRET_ACCESS_KEY");
  std::string token = environment("AWS_SESSION_TOKEN");
  if (id.empty() != secret.empty()) {
    return Error(Errc::kAccess,
                 "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set in the "
                 "environment");
  }
  if (has_control(id) || has_control(secret) || has_control(token)) {
    return Error(Errc::kAccess, "the AWS_ credentials in the environment hold control characters");
  }
  if (!id.empty()) return fixed(std::move(id), std::move(secret), std::move(token));
  std::string profile = environment("AWS_PROFILE");
  if (profile.empty()) profile = "default";
  return std::unique_ptr<CredentialSource>(
      std::make_unique<FileSource>(credentials_path(environment), std::move(profile), pool));
}

// --- the keeper
// -----------------------------------------------------------------------------------

/// Waits until the read that is under way has ended.
struct CredentialKeeper::TurnAwaiter {
  CredentialKeeper& keeper;
  ResumeWork work;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    work.handle = handle;
    keeper.waiting_.push_back(&work);
  }
  void await_resume() const noexcept {}
};

bool CredentialKeeper::are_fresh() const {
  if (!current_.has_value()) return false;
  const auto early = std::chrono::seconds(limits::kS3CredentialsEarly).count();
  return !current_->expires.has_value() || clock_() < *current_->expires - early;
}

Task<Result<void>> CredentialKeeper::read_again() {
  if (reading_) {
    co_await TurnAwaiter{*this, {}};
  } else {
    reading_ = true;
    Result<Credentials> found = co_await source_->read();
    reading_ = false;
    failure_.reset();
    failed_at_ = clock_();
    if (found) {
      current_ = *std::move(found);
    } else {
      failure_ = std::move(found).error();
    }
    for (ResumeWork* const work : std::exchange(waiting_, {})) Loop::current().post(*work);
  }
  if (failure_.has_value()) co_return *failure_;
  co_return Result<void>();
}

Task<Result<Credentials>> CredentialKeeper::get() {
  if (are_fresh()) co_return *current_;
  const bool hold = current_.has_value() && current_->expires > clock_();
  const auto pause = std::chrono::seconds(limits::kS3CredentialsPause).count();
  if (hold && failure_.has_value() && clock_() - failed_at_ < pause) co_return *current_;
  if (hold && reading_) co_return *current_;
  Result<void> read = co_await read_again();
  if (!read && !(current_.has_value() && current_->expires > clock_())) {
    co_return std::move(read).error();
  }
  co_return *current_;
}

Task<bool> CredentialKeeper::replace(SigningKey refused, std::string token) {
  const auto are_others = [&] {
    return current_.has_value() &&
           (current_->key.id != refused.id || current_->key.secret != refused.secret ||
            current_->token != token);
  };
  if (are_others()) co_return true;  // somebody else has replaced them
  if (!source_->can_change()) co_return false;
  const Result<void> read = co_await read_again();
  co_return read&& are_others();
}

}  // namespace usbd::objects::s3
