// SPDX-License-Identifier: Apache-2.0
//
// The line that a device author writes to put a device through the conformance suite, compiled
// against the installed package by installed.sh. The example's main is out of the way.

#include <gtest/gtest.h>
#include <usbd/testing/conformance.h>

#define main checksum_disk_main
#include "examples/checksum_disk.cc"
#undef main

USBD_CONFORMANCE(ChecksumDisk, [] { return std::make_unique<ChecksumDisk>(1U << 20); });
