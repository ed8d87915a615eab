// SPDX-License-Identifier: Apache-2.0
//
// Where a volume's key comes from: `key:KEY`, `file:PATH`, `env:NAME`, `fd:NUMBER`, `cred:NAME` (a
// credential of systemd), or, if nothing is said, the file key.aes, made when it is missing. What a
// key looks like is in key_text.h. Used while the daemon starts, on its main thread.

#pragma once

#include <string>
#include <string_view>

#include "base/random.h"
#include "crypto/secret.h"
#include "usbd/result.h"

namespace usbd::crypto {

struct LoadedKey {
  Secret key;
  /// Where it is, for messages: `the file "/srv/key.aes"`; never the key.
  std::string place;
  /// It was made by this call: without a copy of it nobody will read what it protects.
  bool made = false;
};

/// Reads the key from `source`. A file that others than its owner may read or write is refused. An
/// environment variable is overwritten and removed; a descriptor is read to its end and, unless it
/// is a standard one, closed.
/// Errors: kInvalid (no such kind of source, no key in it, no $CREDENTIALS_DIRECTORY), kNotFound
///         (no such file, credential or variable), kPerm (others may read it), and what the system
///         said; the context names the place, says what to do, and shows nothing of the key.
Result<LoadedKey> load_key(std::string_view source);

/// Reads `folder`/key.aes, as load_key("file:...") does.
/// Errors: as load_key(); kNotFound if it is missing.
Result<LoadedKey> load_key_file(const std::string& folder);

/// The same, and makes the file, of mode 0600, if it is missing. For a volume that does not exist
/// yet: a fresh key opens none.
/// Durable: the file and its name, once this returns.
/// Errors:  as load_key().
Result<LoadedKey> load_or_make_key_file(const std::string& folder, Rng& rng);

}  // namespace usbd::crypto
