// SPDX-License-Identifier: Apache-2.0
//
// Every source, what is refused and with which words, and the making of key.aes.

#include "crypto/key_source.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

constexpr const char* kHex = "000102030405060708090a0b0c0d0e0f";

class KeySource : public testing::Test {
 protected:
  KeySource() {
    std::string pattern = testing::TempDir() + "key_source.XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override {
    std::filesystem::remove_all(folder_);
    ::unsetenv("CREDENTIALS_DIRECTORY");
  }

  std::string file(const std::string& name, std::string_view content, mode_t mode = 0600) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << content;
    ::chmod(path.c_str(), mode);
    return path;
  }
  [[nodiscard]] std::string key_file() const { return folder_ + "/key.aes"; }

  static void expect_key(const Result<LoadedKey>& loaded, std::string_view hex = kHex) {
    ASSERT_TRUE(loaded) << loaded.error().message();
    EXPECT_EQ(to_hex(loaded->key.bytes()), hex);
    EXPECT_EQ(loaded->place.find(hex), std::string::npos);
  }
  static void expect_error(const Result<LoadedKey>& loaded, int number, std::string_view says) {
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().number(), number) << loaded.error().message();
    EXPECT_NE(loaded.error().message().find(says), std::string::npos) << loaded.error().message();
    EXPECT_EQ(loaded.error().message().find(kHex), std::string::npos);
  }

  std::string folder_;
};

TEST_F(KeySource, IsTheTextItself) {
  expect_key(load_key(std::string("key:") + kHex));
}

TEST_F(KeySource, IsAFile) {
  expect_key(load_key("file:" + file("k", std::string(kHex) + "\n")));
  expect_key(load_key("file:" +
                      file("k", std::string_view("\0\1\2\3\4\5\6\7\x8\x9\xa\xb\xc\xd\xe\xf", 16))));
}

TEST_F(KeySource, RefusesAFileThatOthersMayReadOrWrite) {
  for (const mode_t mode : {0640U, 0604U, 0644U, 0620U, 0602U}) {
    const std::string path = file("open", kHex, mode);
    expect_error(load_key("file:" + path), EPERM, "chmod 600 '" + path + "'");
  }
  expect_key(load_key("file:" + file("closed", kHex, 0400)));
}

TEST_F(KeySource, RefusesAMissingFileAFolderAndAWrongOne) {
  expect_error(load_key("file:" + folder_ + "/none"), ENOENT, folder_ + "/none");
  expect_error(load_key("file:" + folder_), EINVAL, "it is a directory");
  expect_error(load_key("file:" + file("short", "0011")), EINVAL, "these 4 bytes are no key");
  expect_error(load_key("file:" + file("empty", "")), EINVAL, "these 0 bytes are no key");
  expect_error(load_key("file:" + file("long", std::string(5000, 'a'))), EINVAL,
               "128 bytes or more");
}

TEST_F(KeySource, ReadsAPipeOfANameWhateverItsMode) {
  const std::string path = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0644), 0);
  const std::jthread writer([&path] { std::ofstream(path) << kHex; });
  expect_key(load_key("file:" + path));
}

TEST_F(KeySource, IsAnEnvironmentVariableThatIsGoneAfterwards) {
  ::setenv("USBD_TEST_KEY", kHex, 1);
  const char* const memory = std::getenv("USBD_TEST_KEY");
  expect_key(load_key("env:USBD_TEST_KEY"));
  EXPECT_EQ(std::getenv("USBD_TEST_KEY"), nullptr);
  EXPECT_EQ(memory[0], '\0');
  expect_error(load_key("env:USBD_TEST_KEY"), ENOENT, "USBD_TEST_KEY: it is not set");
}

TEST_F(KeySource, ForgetsAVariableThatHoldsNoKey) {
  ::setenv("USBD_TEST_KEY", "hunter2", 1);
  expect_error(load_key("env:USBD_TEST_KEY"), EINVAL, "these 7 bytes are no key");
  EXPECT_EQ(std::getenv("USBD_TEST_KEY"), nullptr);
}

TEST_F(KeySource, IsADescriptorThatIsClosedAfterwards) {
  const std::string path = file("k", std::string(kHex) + "\n");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  expect_key(load_key("fd:" + std::to_string(fd)));
  EXPECT_EQ(::fcntl(fd, F_GETFD), -1);
  expect_error(load_key("fd:" + std::to_string(fd)), EBADF, "descriptor");
}

TEST_F(KeySource, IsACredential) {
  file("volume", kHex, 0440);  // as systemd shows them
  expect_error(load_key("cred:volume"), EINVAL, "$CREDENTIALS_DIRECTORY is not set");
  ::setenv("CREDENTIALS_DIRECTORY", folder_.c_str(), 1);
  expect_key(load_key("cred:volume"));
  expect_error(load_key("cred:none"), ENOENT, "none");
  for (const std::string name : {"../volume", "/etc/passwd", "..", "."}) {
    expect_error(load_key("cred:" + name), EINVAL, "a name, not by a path");
  }
}

TEST_F(KeySource, RefusesWhatIsNoSource) {
  for (const char* const source : {"", "key", "key:", "file:", "env:", "fd:", "cred:", "gpg:x",
                                   "000102030405060708090a0b0c0d0e0f", ":"}) {
    expect_error(load_key(source), EINVAL, "key:KEY");
  }
  for (const char* const source : {"fd:x", "fd:-1", "fd:3x", "fd:99999999999"}) {
    expect_error(load_key(source), EINVAL, "fd:3");
  }
}

TEST_F(KeySource, MakesAKeyFileOnce) {
  SeededRng rng(1);
  const Result<LoadedKey> made = load_or_make_key_file(folder_, rng);
  ASSERT_TRUE(made);
  EXPECT_TRUE(made->made);
  EXPECT_EQ(made->key.size(), 32U);
  struct stat facts{};
  ASSERT_EQ(::stat(key_file().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0600U);
  const Result<LoadedKey> again = load_or_make_key_file(folder_, rng);
  expect_key(again, to_hex(made->key.bytes()));
  EXPECT_FALSE(again->made);
  expect_key(load_key_file(folder_), to_hex(made->key.bytes()));
  const auto entries = std::filesystem::directory_iterator(folder_);
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);  // nothing is left beside it
}

TEST_F(KeySource, DrawsTheKeyFromTheGivenSource) {
  SeededRng first(1);
  SeededRng second(2);
  const std::string one = to_hex(load_or_make_key_file(folder_, first)->key.bytes());
  std::filesystem::remove(key_file());
  EXPECT_NE(to_hex(load_or_make_key_file(folder_, second)->key.bytes()), one);
}

TEST_F(KeySource, TakesTheKeyFileThatIsThere) {
  SeededRng rng(1);
  file("key.aes", kHex);
  expect_key(load_or_make_key_file(folder_, rng));
  file("key.aes", kHex, 0644);
  expect_error(load_or_make_key_file(folder_, rng), EPERM, "chmod 600");
  file("key.aes", "damaged", 0600);
  expect_error(load_or_make_key_file(folder_, rng), EINVAL, "no key");
}

TEST_F(KeySource, MakesNoKeyFileForAVolumeThatExists) {
  expect_error(load_key_file(folder_), ENOENT, "put a copy of the volume's key.aes into");
  EXPECT_FALSE(std::filesystem::exists(key_file()));
}

TEST_F(KeySource, SaysWhyAKeyFileCannotBeMade) {
  SeededRng rng(1);
  expect_error(load_or_make_key_file(folder_ + "/none", rng), ENOENT, "cannot make the key file");
}

}  // namespace
}  // namespace usbd::crypto
