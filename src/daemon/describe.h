// SPDX-License-Identifier: Apache-2.0
//
// What the daemon says about itself in sentences: its configuration, where it serves, and how to
// get at it. Nothing here shows a secret.

#pragma once

#include <string>
#include <vector>

#include "core/export.h"
#include "usbd/result.h"
#include "usbd/serve.h"

namespace usbd::daemon {

/// The configuration in one sentence, such as `Exporting 1 GiB volume "vol" as /dev/nbd5, ...`.
std::string describe(const ExportInfo& info, const std::string& backing,
                     const ServeOptions& options);

/// How each place is named in messages: the device's path, or the URI.
std::vector<std::string> place_names(const std::vector<ServedAt>& places);

/// What to type to use the volume there.
std::string how_to_connect(const ServedAt& place, const std::string& export_name);

/// An error as a sentence. Where our own words are the whole reason (kInvalid, kNotSupported,
/// kBusy) the code's text is left out.
std::string explain(const Error& error);

}  // namespace usbd::daemon
