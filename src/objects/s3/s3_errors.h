// SPDX-License-Identifier: Apache-2.0
//
// The errors that answers of S3 servers stand for, each with a sentence that says what to do.

#pragma once

#include <string_view>

#include "objects/http/http_client.h"
#include "objects/s3/s3_answers.h"
#include "usbd/result.h"

namespace usbd::objects::s3 {

/// The error of an answer that is no success. `what`: what was asked, "PUT s3://bucket/name".
/// Ref: S3 API reference, "Error responses".
Error error_of(const HttpResponse& response, std::string_view what);

/// Whether it says that the credentials are no longer good, and newer ones may be.
bool says_expired(const HttpResponse& response, std::string_view method);

/// Whether it says that there is no such object (and not: no such bucket). The answer to a HEAD has
/// no document, so it counts as the object.
bool says_no_object(const HttpResponse& response);

}  // namespace usbd::objects::s3
