// SPDX-License-Identifier: Apache-2.0
//
// What the structured values of the dedup and objstore flags may be, and that no secret is shown.

#include "daemon/objstore_flags.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gtest/gtest.h>

namespace usbd::daemon {
namespace {

TEST(Codec, AllowsWhatTheDeviceHas) {
  for (const char* codec : {"lz4", "zstd", "zstd:1", "zstd:19", "identity"}) {
    EXPECT_TRUE(check_dedup_codec(codec)) << codec;
    EXPECT_TRUE(check_objstore_codec(codec)) << codec;
  }
  EXPECT_TRUE(check_objstore_codec("s2"));
  EXPECT_TRUE(check_objstore_codec("gzip"));
  for (const char* codec : {"", "s2", "zstd:", "zstd:0", "zstd:20", "zstd:x", "zstd:3x", "LZ4"}) {
    EXPECT_FALSE(check_dedup_codec(codec)) << codec;
  }
}

TEST(KeySource, NeedsASchemeAndAValue) {
  for (const char* source : {"key:00ff", "file:/k", "env:KEY", "fd:3", "cred:name"}) {
    EXPECT_TRUE(check_key_source(source)) << source;
  }
  for (const char* source : {"", "00ff", "key:", "fd:x", "fd:-1", "http:x", "fd:9999999"}) {
    EXPECT_FALSE(check_key_source(source)) << source;
  }
  EXPECT_EQ(check_key_source("topsecret").error().message().find("topsecret"), std::string::npos);
}

TEST(StoreConfig, ReadsAnObjectOfStrings) {
  const Result<StoreConfig> config = read_store_config(R"({"path":"/srv","x":""})");
  ASSERT_TRUE(config);
  EXPECT_EQ(*config, (StoreConfig{{"path", "/srv"}, {"x", ""}}));
}

TEST(StoreConfig, RefusesOtherJson) {
  for (const char* text : {"", "{", "[]", "\"a\"", "{\"port\":22}", "{\"a\":null}", "{\"a\":{}}"}) {
    EXPECT_FALSE(check_store_config(text)) << text;
  }
  EXPECT_NE(check_store_config("{\"port\":22}").error().message().find("\"port\""),
            std::string::npos);
}

TEST(StoreConfig, ReadsFilesAndVariablesLate) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("store_config_test." + std::to_string(::getpid()));
  EXPECT_TRUE(check_store_config("@" + path));
  EXPECT_FALSE(read_store_config("@" + path));
  std::ofstream(path) << "{\"path\":\"/a\"}\n";
  EXPECT_EQ(read_store_config("@" + path)->at("path"), "/a");
  std::filesystem::remove(path);
  EXPECT_TRUE(check_store_config("env:USBD_TEST_CFG"));
  EXPECT_FALSE(read_store_config("env:USBD_TEST_CFG"));
  ::setenv("USBD_TEST_CFG", "{\"path\":\"/b\"}", 1);
  EXPECT_EQ(read_store_config("env:USBD_TEST_CFG")->at("path"), "/b");
  ::unsetenv("USBD_TEST_CFG");
  EXPECT_FALSE(check_store_config("@"));
  EXPECT_FALSE(check_store_config("env:"));
}

TEST(StoreConfig, KnowsTheKeysOfEveryKind) {
  EXPECT_TRUE(check_store_keys("s3", {}));
  EXPECT_TRUE(check_store_keys("local", {{"path", "/a"}}));
  EXPECT_TRUE(check_store_keys("b2", {{"application_key", "k"}, {"account_id", "a"}}));
  EXPECT_TRUE(check_store_keys("azure", {{"account", "a"}, {"key", "k"}}));
  EXPECT_TRUE(check_store_keys(
      "sftp", {{"host", "h"}, {"port", "22"}, {"username", "u"}, {"private_key", "k"}}));
  EXPECT_FALSE(check_store_keys("local", {}));
  EXPECT_FALSE(check_store_keys("b2", {{"application_key", "k"}}));
  EXPECT_FALSE(check_store_keys("local", {{"path", "/a"}, {"paht", "/b"}}));
  const std::string message = check_store_keys("s3", {{"secret", "topsecret"}}).error().message();
  EXPECT_NE(message.find("\"secret\""), std::string::npos);
  EXPECT_EQ(message.find("topsecret"), std::string::npos);
}

TEST(Redaction, HidesEverySecretAndShowsTheRest) {
  for (const char* name : {"secret_key", "key", "password", "token", "json", "private_key",
                           "private_key_passphrase", "application_key", "AWS_CREDENTIALS", "sas"}) {
    EXPECT_TRUE(is_secret_name(name)) << name;
  }
  for (const char* name : {"access_key_id", "account", "endpoint", "username", "host"}) {
    EXPECT_FALSE(is_secret_name(name)) << name;
  }
  EXPECT_EQ(redacted({{"access_key_id", "minioadmin"}, {"secret_key", "minioadmin"}}),
            "access_key_id=\"minioadmin\", secret_key=<REDACTED>");
}

}  // namespace
}  // namespace usbd::daemon
