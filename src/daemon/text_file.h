// SPDX-License-Identifier: Apache-2.0
//
// Small whole files: configuration, pid files, what the kernel tells in /proc and /sys. The daemon
// reads and writes them at start-up and at its end, on the main thread only.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "usbd/result.h"

namespace usbd::daemon {

/// The contents of a regular file, a pipe or a file of /proc.
/// Errors: what open and read said, kOverflow (over limits::kTextFileMax); the context names the
/// file.
Result<std::string> read_text_file(const std::string& path);

/// Replaces the file by `text` in one step: who reads it sees the old text or all of the new.
/// Errors: what the system calls said; the context names the file.
Result<void> replace_text_file(const std::string& path, std::string_view text);

}  // namespace usbd::daemon
