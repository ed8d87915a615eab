// SPDX-License-Identifier: Apache-2.0
//
// What is said when the driver is there, and when this kernel has none. Loading is for the vm
// tests.

#include "frontends/nbd/kernel/module.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontends/nbd/kernel/testing.h"

namespace usbd::nbd {
namespace {

TEST(Module, CountsAsPresentWhenSysfsShowsIt) {
  const testing::FakeTree tree;
  tree.make_directory("module/nbd");
  const auto state =
      ensure_nbd_module({.sysfs_root = tree.path(), .modules_directory = tree.path()});
  ASSERT_TRUE(state);
  EXPECT_EQ(*state, ModuleState::kPresent);
}

TEST(Module, CountsAsPresentWhenItIsBuiltIn) {
  const testing::FakeTree tree;
  tree.write("lib/modules/1.0/modules.order", "");
  tree.write("lib/modules/1.0/modules.builtin", "kernel/drivers/block/nbd.ko\n");
  const std::string command = "PATH=$PATH:/usr/sbin:/sbin depmod -b '" + tree.path() + "' 1.0";
  ASSERT_EQ(std::system(command.c_str()), 0) << "depmod is of the package kmod";
  const auto state = ensure_nbd_module(
      {.sysfs_root = tree.path(), .modules_directory = tree.path() + "/lib/modules/1.0"});
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(*state, ModuleState::kPresent);
}

TEST(Module, SaysWhenThisKernelHasNone) {
  const testing::FakeTree tree;
  const auto state =
      ensure_nbd_module({.sysfs_root = tree.path(), .modules_directory = tree.path()});
  ASSERT_FALSE(state);
  EXPECT_TRUE(state.error().is(Errc::kNotFound));
  EXPECT_THAT(state.error().message(), ::testing::HasSubstr("no nbd module"));
}

}  // namespace
}  // namespace usbd::nbd
