// SPDX-License-Identifier: Apache-2.0
//
// Making the sockets a server listens on.
//
// Unix sockets: only their owner may connect (0600 under any umask). A socket file that nobody
// answers at is left over from a server that died, and is replaced; one that answers belongs to a
// live server, and is an error. At the end the file is removed if it is still the one made here.
//
// TCP: without TLS whoever can reach the port can read and write everything, so only loopback
// addresses are allowed unless the user insists. What a name resolves to is checked, not its text.

#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "base/unique_fd.h"
#include "frontends/nbd/uri.h"
#include "usbd/result.h"

namespace usbd::nbd {

struct ListenOptions {
  /// Allow TCP addresses that are not loopback.
  bool insecure_tcp = false;
};

/// A socket in the state of listening; non-blocking.
class ListeningSocket {
 public:
  ListeningSocket(UniqueFd fd, Endpoint endpoint)
      : fd_(std::move(fd)), endpoint_(std::move(endpoint)) {}
  /// One on a unix socket file, which is removed at the end if it still has this identity.
  ListeningSocket(UniqueFd fd, Endpoint endpoint, dev_t device, ino_t inode)
      : fd_(std::move(fd)),
        endpoint_(std::move(endpoint)),
        owns_file_(true),
        device_(device),
        inode_(inode) {}
  ListeningSocket(ListeningSocket&& other) noexcept;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ~ListeningSocket() { close(); }

  [[nodiscard]] int fd() const { return fd_.get(); }
  /// Where it really listens: the port that was got, the path made absolute, the address resolved.
  [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }
  /// Stops listening and removes what was made. May be called twice.
  void close();

 private:
  UniqueFd fd_;
  Endpoint endpoint_;
  bool owns_file_ = false;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

/// Listens at `endpoint`: one socket for a path, one for each address of a host.
/// Errors: the context names the endpoint and says what to do. kBusy: a live server is there.
///         kExists: the path is something else than a socket. kInvalid: the path is too long.
///         kAccess: not a loopback address. kNotFound: the host is unknown. Else what the kernel
///         said.
[[nodiscard]] Result<std::vector<ListeningSocket>> listen_at(const Endpoint& endpoint,
                                                             ListenOptions options);

}  // namespace usbd::nbd
