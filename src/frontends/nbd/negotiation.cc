// SPDX-License-Identifier: Apache-2.0
//
// The handshake, unit by unit: client flags, then option headers and option data. Handlers return
// the error that the option is refused with; only on_option() turns it into a reply.

#include "frontends/nbd/negotiation.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "frontends/nbd/option_data.h"
#include "frontends/nbd/text.h"

namespace usbd::nbd {
namespace {

Bytes text_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

void append(Negotiation::Output& output, Bytes bytes) {
  output.insert(output.end(), bytes.begin(), bytes.end());
}

/// Range: only errors the handlers in this file and option_data.cc make.
OptionReply reply_type(const Error& error) {
  if (error.is(Errc::kNotFound)) return OptionReply::kErrUnknown;
  if (error.is(Errc::kOverflow)) return OptionReply::kErrTooBig;
  if (error.is(Errc::kNotSupported)) return OptionReply::kErrUnsupported;
  return OptionReply::kErrInvalid;
}

Result<void> require_no_data(Bytes data) {
  if (data.empty()) return {};
  return Error(Errc::kInvalid,
               fmt::format("this option takes no data, {} bytes came", data.size()));
}

Error no_such_export(std::string_view name) {
  return Error(Errc::kNotFound, name.empty()
                                    ? "there is no default export; ask for one by its name"
                                    : fmt::format("no export is called {}", readable(name)));
}

/// The options whose oversized form is answered NBD_REP_ERR_TOO_BIG; others are unknown at any
/// size.
bool is_known(Option option) {
  switch (option) {
    case Option::kExportName:
    case Option::kAbort:
    case Option::kList:
    case Option::kStartTls:
    case Option::kInfo:
    case Option::kGo:
    case Option::kStructuredReply:
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return true;
    default:
      return false;
  }
}

}  // namespace

Negotiation::Negotiation(const ExportDirectory& exports, NegotiationLimits limits)
    : exports_(exports), limits_(limits) {}

void Negotiation::greet(Output& output) const {
  const Greeting greeting{.handshake_flags = kFlagFixedNewstyle | kFlagNoZeroes};
  append(output, wire_bytes(greeting));
}

Negotiation::Step Negotiation::feed(Bytes input, Output& output) {
  USBD_ASSERT(next_ == Next::kInput);
  size_t consumed = 0;
  bool answered = false;
  while (!answered && next_ == Next::kInput && consumed < input.size()) {
    const size_t taken = std::min(missing_, input.size() - consumed);
    if (state_ != State::kOptionSkipped) append(unit_, input.subspan(consumed, taken));
    consumed += taken;
    total_bytes_ += taken;
    missing_ -= taken;
    if (missing_ == 0) {
      on_unit(output);
      answered = state_ == State::kOptionHeader;
    }
  }
  return {consumed, next_};
}

void Negotiation::expect(State state, size_t length) {
  state_ = state;
  missing_ = length;
  unit_.clear();
}

void Negotiation::close(std::string reason) {
  next_ = Next::kClose;
  close_reason_ = std::move(reason);
}

void Negotiation::on_unit(Output& output) {
  switch (state_) {
    case State::kClientFlags:
      return on_client_flags();
    case State::kOptionHeader:
      return on_option_header(output);
    case State::kOptionData:
    case State::kOptionSkipped:
      return on_option(output);
  }
}

void Negotiation::on_client_flags() {
  const uint32_t flags = wire_read<ClientFlags>(unit_).flags;
  const uint32_t known = kFlagFixedNewstyle | kFlagNoZeroes;
  if ((flags & ~known) != 0) {
    return close(fmt::format("client flags {:#x} that this server did not offer", flags & ~known));
  }
  fixed_newstyle_ = (flags & kFlagFixedNewstyle) != 0;
  no_zeroes_ = (flags & kFlagNoZeroes) != 0;
  expect(State::kOptionHeader, sizeof(OptionHeader));
}

void Negotiation::on_option_header(Output& output) {
  const auto header = wire_read<OptionHeader>(unit_);
  option_ = static_cast<Option>(uint32_t{header.option});
  const uint32_t length = header.length;
  if (header.magic != kOptionMagic) {
    return close(fmt::format("an option that begins with {:#018x}: not an NBD client?",
                             uint64_t{header.magic}));
  }
  if (++options_ > limits_.options_max) {
    return close(fmt::format("more than {} options", limits_.options_max));
  }
  if (!fixed_newstyle_ && option_ != Option::kExportName) {
    return close(fmt::format("option {} from a client that has not agreed to fixed newstyle",
                             uint32_t{header.option}));
  }
  if (total_bytes_ + length > limits_.total_bytes_max) {
    return close(fmt::format("option {} of {} bytes, more than {} in the whole handshake",
                             uint32_t{header.option}, length, limits_.total_bytes_max));
  }
  const bool oversized = length > limits_.option_bytes_max;
  expect(oversized ? State::kOptionSkipped : State::kOptionData, length);
  if (length == 0) on_option(output);
}

void Negotiation::on_option(Output& output) {
  if (option_ == Option::kExportName) return on_export_name(output);
  const Result<void> result = answer(output);
  if (result) {
    reply(output, OptionReply::kAck);
  } else {
    const std::string message = result.error().context();
    reply(output, reply_type(result.error()), text_bytes(message));
  }
  if (option_ == Option::kAbort) return close({});
  if (option_ == Option::kGo && result) return enter_transmission(described_export_);
  expect(State::kOptionHeader, sizeof(OptionHeader));
}

/// The one option that cannot be refused: what is wrong with it closes the connection.
void Negotiation::on_export_name(Output& output) {
  if (state_ == State::kOptionSkipped) return close("an export name longer than any option may be");
  const Result<std::string_view> name = parse_export_name(unit_);
  if (!name) return close(name.error().context());
  const std::optional<size_t> index = exports_.find(*name);
  if (!index) return close(no_such_export(*name).context());
  const ExportDescription description = exports_.describe(*index);
  const ExportNameReply answer{.size = description.size,
                               .transmission_flags = flags_of(description)};
  append(output, wire_bytes(answer));
  if (!no_zeroes_) output.resize(output.size() + kExportNamePadding);
  enter_transmission(*index);
}

void Negotiation::enter_transmission(size_t export_index) {
  agreement_ = {.export_index = export_index,
                .transmission_flags = flags_of(exports_.describe(export_index)),
                .structured_replies = structured_replies_,
                .base_allocation = structured_replies_ && allocation_of_ == export_index};
  next_ = Next::kTransmission;
}

Result<void> Negotiation::answer(Output& output) {
  // A client that aborts is not refused, whatever it sends with that.
  if (option_ == Option::kAbort) return {};
  // Whatever comes of it, a second selection of contexts ends the first.
  if (option_ == Option::kSetMetaContext) allocation_of_.reset();
  if (state_ == State::kOptionSkipped && is_known(option_)) {
    return Error(Errc::kOverflow,
                 fmt::format("an option may have at most {} bytes", limits_.option_bytes_max));
  }
  switch (option_) {
    case Option::kList:
      return list_exports(output);
    case Option::kStartTls:
      USBD_TRY_VOID(require_no_data(unit_));
      return Error(Errc::kNotSupported, "this server has no TLS");
    case Option::kInfo:
    case Option::kGo:
      return describe_export(output);
    case Option::kStructuredReply:
      return agree_structured_replies();
    case Option::kListMetaContext:
      return list_meta_contexts(output);
    case Option::kSetMetaContext:
      return set_meta_contexts(output);
    default:
      return Error(Errc::kNotSupported,
                   fmt::format("this server does not know option {}", std::to_underlying(option_)));
  }
}

Result<void> Negotiation::list_exports(Output& output) const {
  USBD_TRY_VOID(require_no_data(unit_));
  for (size_t i = 0; i < exports_.count(); ++i) {
    const ExportDescription description = exports_.describe(i);
    const Be32 name_length = static_cast<uint32_t>(description.name.size());
    reply(output, OptionReply::kServer, wire_bytes(name_length), text_bytes(description.name),
          text_bytes(description.description));
  }
  return {};
}

Result<void> Negotiation::agree_structured_replies() {
  USBD_TRY_VOID(require_no_data(unit_));
  structured_replies_ = true;
  return {};
}

Result<void> Negotiation::describe_export(Output& output) {
  USBD_TRY(const ExportRequest request, parse_export_request(unit_, limits_.info_requests_max));
  const std::optional<size_t> index = exports_.find(request.name);
  if (!index) return no_such_export(request.name);
  described_export_ = *index;
  const ExportDescription description = exports_.describe(*index);

  const InfoExport info{.size = description.size, .transmission_flags = flags_of(description)};
  reply(output, OptionReply::kInfo, wire_bytes(info));
  if (request.wants(Info::kName)) {
    const Be16 type = std::to_underlying(Info::kName);
    reply(output, OptionReply::kInfo, wire_bytes(type), text_bytes(description.name));
  }
  if (request.wants(Info::kDescription) && !description.description.empty()) {
    const Be16 type = std::to_underlying(Info::kDescription);
    reply(output, OptionReply::kInfo, wire_bytes(type), text_bytes(description.description));
  }
  // Told also unasked where it restricts the client. A client that does not look is still served:
  // what it gets wrong is refused request by request, never NBD_REP_ERR_BLOCK_SIZE_REQD.
  if (request.wants(Info::kBlockSize) || description.block_size_min > 1 ||
      description.payload_max < kPayloadMax) {
    const InfoBlockSize sizes{.minimum = description.block_size_min,
                              .preferred = description.block_size_preferred,
                              .maximum_payload = description.payload_max};
    reply(output, OptionReply::kInfo, wire_bytes(sizes));
  }
  return {};
}

Result<void> Negotiation::list_meta_contexts(Output& output) const {
  if (!structured_replies_) {
    return Error(Errc::kInvalid, "metadata contexts need structured replies, agree on them first");
  }
  USBD_TRY(const MetaContextRequest request,
           parse_meta_context_request(unit_, limits_.queries_max));
  if (!exports_.find(request.name)) return no_such_export(request.name);
  const bool listed =
      request.queries.empty() || std::ranges::any_of(request.queries, [](std::string_view query) {
        return query == kBaseNamespace || query == kBaseAllocation;
      });
  if (listed) {
    const Be32 reserved_id = 0;
    reply(output, OptionReply::kMetaContext, wire_bytes(reserved_id), text_bytes(kBaseAllocation));
  }
  return {};
}

Result<void> Negotiation::set_meta_contexts(Output& output) {
  if (!structured_replies_) {
    return Error(Errc::kInvalid, "metadata contexts need structured replies, agree on them first");
  }
  USBD_TRY(const MetaContextRequest request,
           parse_meta_context_request(unit_, limits_.queries_max));
  const std::optional<size_t> index = exports_.find(request.name);
  if (!index) return no_such_export(request.name);
  if (std::ranges::find(request.queries, kBaseAllocation) == request.queries.end()) return {};
  allocation_of_ = index;
  const Be32 id = kBaseAllocationId;
  reply(output, OptionReply::kMetaContext, wire_bytes(id), text_bytes(kBaseAllocation));
  return {};
}

uint16_t Negotiation::flags_of(const ExportDescription& description) const {
  const unsigned df = structured_replies_ ? kTransmitDf : 0U;
  return static_cast<uint16_t>(description.transmission_flags | df);
}

void Negotiation::reply(Output& output, OptionReply type, Bytes first, Bytes second,
                        Bytes third) const {
  const OptionReplyHeader header{
      .option = std::to_underlying(option_),
      .type = std::to_underlying(type),
      .length = static_cast<uint32_t>(first.size() + second.size() + third.size())};
  append(output, wire_bytes(header));
  append(output, first);
  append(output, second);
  append(output, third);
}

}  // namespace usbd::nbd
