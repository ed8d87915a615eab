// SPDX-License-Identifier: Apache-2.0
//
// The data of the handshake's options, taken apart. Every length a client states is checked against
// what has really come before anything is done with it; all data must be accounted for.
//
// Errors here are those of the option: kInvalid for what breaks the option's form, kOverflow for
// more of something than is allowed.

#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "frontends/nbd/protocol.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::nbd {

/// NBD_OPT_INFO and NBD_OPT_GO. Lifetime: `name` points into the option's data.
struct ExportRequest {
  std::string_view name;
  std::vector<Info> wanted;

  [[nodiscard]] bool wants(Info info) const;
};
[[nodiscard]] Result<ExportRequest> parse_export_request(Bytes data, uint32_t info_requests_max);

/// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. Lifetime: as above.
struct MetaContextRequest {
  std::string_view name;
  std::vector<std::string_view> queries;
};
[[nodiscard]] Result<MetaContextRequest> parse_meta_context_request(Bytes data,
                                                                    uint32_t queries_max);

/// Checks an export name that is all of an option's data.
[[nodiscard]] Result<std::string_view> parse_export_name(Bytes data);

}  // namespace usbd::nbd
