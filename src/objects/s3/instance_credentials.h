// SPDX-License-Identifier: Apache-2.0
//
// InstanceSource: the credentials of the role that an EC2 instance has, from its metadata service,
// version 2: a session token first, then the role's name, then its keys, which expire.
//
// Ref: Amazon EC2 User Guide, "Use the Instance Metadata Service" and "Retrieve security
//      credentials from instance metadata".

#pragma once

#include <string>

#include "objects/s3/credentials.h"

namespace usbd::objects::s3 {

class InstanceSource final : public CredentialSource {
 public:
  /// `endpoint`: empty: where it is on an instance. Lifetime: `client` outlives this.
  InstanceSource(HttpClient& client, std::string endpoint);

  /// Errors: kAccess: no such service, or the instance has no role.
  Task<Result<Credentials>> read() override;
  [[nodiscard]] bool can_change() const override { return true; }

 private:
  Task<Result<std::string>> fetch(std::string method, std::string path, HttpHeaders headers);

  HttpClient& client_;
  std::string endpoint_;
};

}  // namespace usbd::objects::s3
