// SPDX-License-Identifier: Apache-2.0
//
// The handshake as conversations: what a client says, and what it must hear. Replies are taken
// apart by this file's own reader, from the specification's numbers, not by the code under test.

#include "frontends/nbd/negotiation.h"

#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::nbd {
namespace {

using Next = Negotiation::Next;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kRepAck = 1;
constexpr uint32_t kRepServer = 2;
constexpr uint32_t kRepInfo = 3;
constexpr uint32_t kRepMetaContext = 4;
constexpr uint32_t kRepErrUnsup = 0x80000001;
constexpr uint32_t kRepErrInvalid = 0x80000003;
constexpr uint32_t kRepErrUnknown = 0x80000006;
constexpr uint32_t kRepErrTooBig = 0x80000009;

class TwoExports final : public ExportDirectory {
 public:
  TwoExports() {
    exports_[0] = {.name = "alpha",
                   .description = "the first",
                   .size = 0x123456789000,
                   .transmission_flags = kTransmitHasFlags | kTransmitFlush};
    exports_[1] = {.name = "be\xc3\xaata",
                   .description = "",
                   .size = 4096,
                   .transmission_flags = kTransmitHasFlags | kTransmitReadOnly,
                   .block_size_min = 512,
                   .block_size_preferred = 65536,
                   .payload_max = 1U << 20};
  }
  size_t count() const override { return 2; }
  ExportDescription describe(size_t index) const override { return exports_[index]; }
  std::optional<size_t> find(std::string_view name) const override {
    if (name.empty()) return 0;
    for (size_t i = 0; i < 2; ++i) {
      if (exports_[i].name == name) return i;
    }
    return std::nullopt;
  }

 private:
  ExportDescription exports_[2];
};

class NoExports final : public ExportDirectory {
 public:
  size_t count() const override { return 0; }
  ExportDescription describe(size_t) const override { return {}; }
  std::optional<size_t> find(std::string_view) const override { return std::nullopt; }
};

/// Big-endian bytes of an integer, written out the long way.
template <typename T>
std::string be(T value) {
  std::string out;
  for (size_t i = sizeof(T); i-- > 0;) out += static_cast<char>(value >> (8 * i));
  return out;
}

uint64_t read_be(std::string_view text, size_t offset, size_t size) {
  uint64_t value = 0;
  for (const char c : text.substr(offset, size)) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}

std::string option(uint32_t number, const std::string& data = {}) {
  return "IHAVEOPT" + be(number) + be(static_cast<uint32_t>(data.size())) + data;
}

std::string sized(const std::string& text) {
  return be(static_cast<uint32_t>(text.size())) + text;
}

std::string export_request(const std::string& name, const std::vector<uint16_t>& infos = {}) {
  std::string data = sized(name) + be(static_cast<uint16_t>(infos.size()));
  for (const uint16_t info : infos) data += be(info);
  return data;
}

std::string context_request(const std::string& name, const std::vector<std::string>& queries) {
  std::string data = sized(name) + be(static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) data += sized(query);
  return data;
}

std::string go(const std::string& name, const std::vector<uint16_t>& infos = {}) {
  return option(7, export_request(name, infos));
}

struct Reply {
  uint32_t option;
  uint32_t type;
  std::string data;

  friend bool operator==(const Reply&, const Reply&) = default;
};

/// One client's conversation with a Negotiation.
class NegotiationTest : public testing::Test {
 protected:
  explicit NegotiationTest(NegotiationLimits limits = {}) : negotiation_(exports_, limits) {}

  /// Says `text` in pieces of at most `piece` bytes. Returns what came back.
  std::string say(const std::string& text, size_t piece = SIZE_MAX) {
    Negotiation::Output output;
    std::string waiting;
    size_t said = 0;
    while (next_ == Next::kInput && (said < text.size() || !waiting.empty())) {
      const size_t more = std::min(piece, text.size() - said);
      waiting += text.substr(said, more);
      said += more;
      const auto step = negotiation_.feed(std::as_bytes(std::span(waiting)), output);
      EXPECT_TRUE(step.consumed > 0 || step.next != Next::kInput);
      waiting.erase(0, step.consumed);
      next_ = step.next;
    }
    rest_ = waiting + text.substr(said);
    return {reinterpret_cast<const char*>(output.data()), output.size()};
  }

  /// Says an option and reads the replies to it.
  std::vector<Reply> ask(const std::string& text) { return replies(say(text)); }

  /// The one reply to an option that has only one.
  Reply ask_one(const std::string& text) {
    const std::vector<Reply> all = ask(text);
    EXPECT_EQ(all.size(), 1U);
    return all.empty() ? Reply{} : all.front();
  }

  void agree_fixed_newstyle() { EXPECT_EQ(say(be<uint32_t>(3)), ""); }
  void agree_structured_replies() { EXPECT_EQ(ask_one(option(8)), (Reply{8, kRepAck, ""})); }
  void select_allocation(const std::string& name) {
    EXPECT_EQ(ask(option(10, context_request(name, {"base:allocation"}))).size(), 2U);
  }

  static std::vector<Reply> replies(std::string_view text) {
    std::vector<Reply> out;
    while (!text.empty()) {
      EXPECT_GE(text.size(), 20U);
      EXPECT_EQ(read_be(text, 0, 8), 0x3e889045565a9U);
      const size_t length = read_be(text, 16, 4);
      EXPECT_GE(text.size(), 20 + length);
      out.push_back({static_cast<uint32_t>(read_be(text, 8, 4)),
                     static_cast<uint32_t>(read_be(text, 12, 4)),
                     std::string(text.substr(20, length))});
      text.remove_prefix(std::min(text.size(), 20 + length));
    }
    return out;
  }

  static std::vector<uint32_t> types(const std::vector<Reply>& all) {
    std::vector<uint32_t> out;
    for (const Reply& reply : all) out.push_back(reply.type);
    return out;
  }

  TwoExports exports_;
  Negotiation negotiation_;
  Next next_ = Next::kInput;
  /// What the negotiation did not take.
  std::string rest_;
};

using Negotiate = NegotiationTest;

TEST_F(Negotiate, GreetsWithFixedNewstyleAndNoZeroes) {
  Negotiation::Output output;
  negotiation_.greet(output);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(output.data()), output.size()),
            "NBDMAGICIHAVEOPT" + be<uint16_t>(3));
}

TEST_F(Negotiate, ClosesOnClientFlagsItDidNotOffer) {
  EXPECT_EQ(say(be<uint32_t>(4 | 3)), "");
  EXPECT_EQ(next_, Next::kClose);
  EXPECT_THAT(negotiation_.close_reason(), HasSubstr("0x4"));
}

TEST_F(Negotiate, ClosesOnAnOptionWithoutItsMagic) {
  agree_fixed_newstyle();
  EXPECT_EQ(say("GET / HTTP/1.1\r\n\r\n"), "");
  EXPECT_EQ(next_, Next::kClose);
  EXPECT_THAT(negotiation_.close_reason(), HasSubstr("not an NBD client"));
}

TEST_F(Negotiate, ClosesWhenAPlainNewstyleClientSendsMoreThanExportName) {
  say(be<uint32_t>(0));
  EXPECT_EQ(say(option(3)), "");
  EXPECT_EQ(next_, Next::kClose);
}

TEST_F(Negotiate, ExportNameAnswersSizeAndFlagsWithoutPaddingIfAgreed) {
  agree_fixed_newstyle();
  EXPECT_EQ(say(option(1, "alpha")), be<uint64_t>(0x123456789000) + be<uint16_t>(1 | 4));
  EXPECT_EQ(next_, Next::kTransmission);
  EXPECT_EQ(negotiation_.agreement().export_index, 0U);
  EXPECT_FALSE(negotiation_.agreement().structured_replies);
}

TEST_F(Negotiate, ExportNameAnswersPaddingToAnOldClient) {
  say(be<uint32_t>(0));
  EXPECT_EQ(say(option(1, "be\xc3\xaata")),
            be<uint64_t>(4096) + be<uint16_t>(1 | 2) + std::string(124, '\0'));
  EXPECT_EQ(negotiation_.agreement().export_index, 1U);
}

TEST_F(Negotiate, ExportNameOfNothingIsTheDefaultExport) {
  agree_fixed_newstyle();
  say(option(1));
  EXPECT_EQ(next_, Next::kTransmission);
  EXPECT_EQ(negotiation_.agreement().export_index, 0U);
}

TEST_F(Negotiate, ExportNameAfterStructuredRepliesKeepsThem) {
  agree_fixed_newstyle();
  agree_structured_replies();
  select_allocation("alpha");
  EXPECT_EQ(say(option(1, "alpha")), be<uint64_t>(0x123456789000) + be<uint16_t>(1 | 4 | 128));
  EXPECT_TRUE(negotiation_.agreement().structured_replies);
  EXPECT_TRUE(negotiation_.agreement().base_allocation);
}

TEST_F(Negotiate, ExportNameOfAnUnknownExportCloses) {
  agree_fixed_newstyle();
  EXPECT_EQ(say(option(1, "gamma")), "");
  EXPECT_EQ(next_, Next::kClose);
  EXPECT_THAT(negotiation_.close_reason(), HasSubstr("\"gamma\""));
}

TEST_F(Negotiate, ExportNameThatIsTooLongOrNotTextCloses) {
  for (const std::string& name : {std::string(4097, 'a'), std::string("al\0pha", 6),
                                  std::string("\xff"), std::string((64U << 10) + 1, 'a')}) {
    Negotiation other(exports_);
    std::string text = be<uint32_t>(3) + option(1, name);
    Negotiation::Output output;
    Negotiation::Step step;
    while (step.next == Next::kInput) {
      step = other.feed(std::as_bytes(std::span(text)), output);
      text.erase(0, step.consumed);
    }
    EXPECT_EQ(step.next, Next::kClose);
    EXPECT_THAT(output, IsEmpty());
  }
}

TEST_F(Negotiate, AbortIsAcknowledgedAndEndsWithoutAReason) {
  agree_fixed_newstyle();
  EXPECT_EQ(ask_one(option(2, "why not")), (Reply{2, kRepAck, ""}));
  EXPECT_EQ(next_, Next::kClose);
  EXPECT_EQ(negotiation_.close_reason(), "");
}

TEST_F(Negotiate, ListNamesEveryExport) {
  agree_fixed_newstyle();
  EXPECT_THAT(ask(option(3)),
              ElementsAre(Reply{3, kRepServer, sized("alpha") + "the first"},
                          Reply{3, kRepServer, sized("be\xc3\xaata")}, Reply{3, kRepAck, ""}));
  EXPECT_EQ(next_, Next::kInput);
}

TEST_F(Negotiate, RefusesDataWithOptionsThatTakeNone) {
  agree_fixed_newstyle();
  for (const uint32_t number : {3U, 5U, 8U}) {
    const Reply reply = ask_one(option(number, "x"));
    EXPECT_EQ(reply.option, number);
    EXPECT_EQ(reply.type, kRepErrInvalid);
    EXPECT_THAT(reply.data, HasSubstr("no data"));
  }
  say(go("alpha"));
  EXPECT_FALSE(negotiation_.agreement().structured_replies);
}

TEST_F(Negotiate, InfoDescribesAndGoesOn) {
  agree_fixed_newstyle();
  EXPECT_THAT(
      ask(option(6, export_request("alpha", {3, 1, 2, 99, 1}))),
      ElementsAre(
          Reply{6, kRepInfo, be<uint16_t>(0) + be<uint64_t>(0x123456789000) + be<uint16_t>(5)},
          Reply{6, kRepInfo, be<uint16_t>(1) + "alpha"},
          Reply{6, kRepInfo, be<uint16_t>(2) + "the first"},
          Reply{6, kRepInfo,
                be<uint16_t>(3) + be<uint32_t>(1) + be<uint32_t>(4096) + be<uint32_t>(32U << 20)},
          Reply{6, kRepAck, ""}));
  EXPECT_EQ(next_, Next::kInput);
}

TEST_F(Negotiate, InfoOfTheEmptyNameTellsTheCanonicalName) {
  agree_fixed_newstyle();
  const std::vector<Reply> all = ask(option(6, export_request("", {1})));
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[1].data, be<uint16_t>(1) + "alpha");
}

TEST_F(Negotiate, GoEntersTransmissionAndLeavesTheRestAlone) {
  agree_fixed_newstyle();
  EXPECT_THAT(types(ask(go("alpha") + "first request")), ElementsAre(kRepInfo, kRepAck));
  EXPECT_EQ(next_, Next::kTransmission);
  EXPECT_EQ(rest_, "first request");
  EXPECT_EQ(negotiation_.agreement().transmission_flags, 1 | 4);
}

TEST_F(Negotiate, GoTellsBlockSizesUnaskedWhereTheyRestrict) {
  agree_fixed_newstyle();
  EXPECT_THAT(
      ask(go("be\xc3\xaata")),
      ElementsAre(
          Reply{7, kRepInfo, be<uint16_t>(0) + be<uint64_t>(4096) + be<uint16_t>(1 | 2)},
          Reply{7, kRepInfo,
                be<uint16_t>(3) + be<uint32_t>(512) + be<uint32_t>(65536) + be<uint32_t>(1U << 20)},
          Reply{7, kRepAck, ""}));
}

TEST_F(Negotiate, GoToAnUnknownExportIsRefusedAndAnotherMayFollow) {
  agree_fixed_newstyle();
  const Reply reply = ask_one(go("gamma", {3}));
  EXPECT_EQ(reply.type, kRepErrUnknown);
  EXPECT_THAT(reply.data, HasSubstr("\"gamma\""));
  EXPECT_EQ(next_, Next::kInput);
  ask(go("alpha"));
  EXPECT_EQ(next_, Next::kTransmission);
}

TEST_F(Negotiate, GoWithoutAnyExportSaysThatThereIsNoDefault) {
  const NoExports none;
  Negotiation other(none);
  std::string text = be<uint32_t>(3) + go("");
  Negotiation::Output output;
  while (!text.empty()) {
    const auto step = other.feed(std::as_bytes(std::span(text)), output);
    ASSERT_EQ(step.next, Next::kInput);
    text.erase(0, step.consumed);
  }
  const std::vector<Reply> all =
      replies({reinterpret_cast<const char*>(output.data()), output.size()});
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].type, kRepErrUnknown);
  EXPECT_THAT(all[0].data, HasSubstr("no default export"));
}

TEST_F(Negotiate, RefusesExportRequestsWhoseLengthsDoNotFit) {
  agree_fixed_newstyle();
  const std::string good = export_request("alpha", {3});
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(ask_one(option(7, good.substr(0, length))).type, kRepErrInvalid) << length;
  }
  EXPECT_EQ(ask_one(option(7, good + "x")).type, kRepErrInvalid);
  EXPECT_EQ(ask_one(option(6, be<uint32_t>(0xffffffff) + "alpha")).type, kRepErrInvalid);
  EXPECT_EQ(ask_one(option(6, be<uint32_t>(6) + "alpha" + be<uint16_t>(0))).type, kRepErrInvalid);
}

TEST_F(Negotiate, RefusesNamesThatAreNotText) {
  agree_fixed_newstyle();
  for (const std::string& name :
       {std::string("\0", 1), std::string("a\xc0\xaf"), std::string("\xed\xa0\x80"),
        std::string("\xf4\x90\x80\x80"), std::string("\xe2\x82"), std::string(4097, 'n')}) {
    const Reply reply = ask_one(go(name));
    EXPECT_EQ(reply.type, kRepErrInvalid);
    EXPECT_LT(reply.data.size(), 4096U);
  }
  EXPECT_EQ(ask_one(go(std::string(4096, 'n'))).type, kRepErrUnknown);
}

TEST_F(Negotiate, StructuredRepliesMayBeAgreedTwiceAndBringDf) {
  agree_fixed_newstyle();
  agree_structured_replies();
  agree_structured_replies();
  const std::vector<Reply> all = ask(go("alpha"));
  EXPECT_EQ(read_be(all[0].data, 10, 2), 1U | 4U | 128U);
  EXPECT_TRUE(negotiation_.agreement().structured_replies);
  EXPECT_FALSE(negotiation_.agreement().base_allocation);
  EXPECT_EQ(negotiation_.agreement().transmission_flags, 1 | 4 | 128);
}

TEST_F(Negotiate, StartTlsAndExtendedHeadersAndUnknownOptionsAreUnsupported) {
  agree_fixed_newstyle();
  for (const uint32_t number : {0U, 4U, 5U, 11U, 12U, 0xdeadbeefU}) {
    const Reply reply = ask_one(option(number));
    EXPECT_EQ(reply.option, number);
    EXPECT_EQ(reply.type, kRepErrUnsup);
    EXPECT_NE(reply.data, "");
  }
  EXPECT_EQ(ask_one(option(77, std::string(1000, 'x'))).type, kRepErrUnsup);
  EXPECT_EQ(next_, Next::kInput);
}

TEST_F(Negotiate, MetaContextsNeedStructuredReplies) {
  agree_fixed_newstyle();
  for (const uint32_t number : {9U, 10U}) {
    const Reply reply = ask_one(option(number, context_request("alpha", {"base:allocation"})));
    EXPECT_EQ(reply.type, kRepErrInvalid);
    EXPECT_THAT(reply.data, HasSubstr("structured replies"));
  }
}

TEST_F(Negotiate, ListMetaContextAnswersNothingTheWildcardAndTheName) {
  agree_fixed_newstyle();
  agree_structured_replies();
  const Reply context{9, kRepMetaContext, be<uint32_t>(0) + "base:allocation"};
  const Reply ack{9, kRepAck, ""};
  const auto list = [&](const std::vector<std::string>& queries) {
    return ask(option(9, context_request("alpha", queries)));
  };
  EXPECT_THAT(list({}), ElementsAre(context, ack));
  EXPECT_THAT(list({"base:"}), ElementsAre(context, ack));
  EXPECT_THAT(list({"base:allocation"}), ElementsAre(context, ack));
  EXPECT_THAT(list({"qemu:dirty-bitmap:x", "base:", "base:allocation"}), ElementsAre(context, ack));
  EXPECT_THAT(list({"base:other"}), ElementsAre(ack));
  EXPECT_THAT(list({"x-mine:"}), ElementsAre(ack));
}

TEST_F(Negotiate, ListingMetaContextsSelectsNone) {
  agree_fixed_newstyle();
  agree_structured_replies();
  ask(option(9, context_request("alpha", {"base:allocation"})));
  ask(go("alpha"));
  EXPECT_FALSE(negotiation_.agreement().base_allocation);
}

TEST_F(Negotiate, SetMetaContextSelectsOnceWithAnIdentifier) {
  agree_fixed_newstyle();
  agree_structured_replies();
  EXPECT_THAT(
      ask(option(10, context_request("alpha", {"base:allocation", "x:y", "base:allocation"}))),
      ElementsAre(Reply{10, kRepMetaContext, be(kBaseAllocationId) + "base:allocation"},
                  Reply{10, kRepAck, ""}));
  ask(go("alpha"));
  EXPECT_TRUE(negotiation_.agreement().base_allocation);
}

TEST_F(Negotiate, SetMetaContextIgnoresTheWildcardAndUnknownNames) {
  agree_fixed_newstyle();
  agree_structured_replies();
  EXPECT_THAT(ask(option(10, context_request("alpha", {"base:", "base:other", "qemu:"}))),
              ElementsAre(Reply{10, kRepAck, ""}));
  ask(go("alpha"));
  EXPECT_FALSE(negotiation_.agreement().base_allocation);
}

TEST_F(Negotiate, ForgetsAMetaContextWhenAnotherExportIsEntered) {
  agree_fixed_newstyle();
  agree_structured_replies();
  select_allocation("be\xc3\xaata");
  ask(go("alpha"));
  EXPECT_TRUE(negotiation_.agreement().structured_replies);
  EXPECT_FALSE(negotiation_.agreement().base_allocation);
}

TEST_F(Negotiate, KeepsAMetaContextWhenTheDefaultExportIsEnteredByName) {
  agree_fixed_newstyle();
  agree_structured_replies();
  select_allocation("");
  ask(go("alpha"));
  EXPECT_TRUE(negotiation_.agreement().base_allocation);
}

TEST_F(Negotiate, ForgetsAMetaContextWhenSelectingAgainFailsOrSelectsNone) {
  for (const std::string& second :
       {option(10, context_request("alpha", {})), option(10, context_request("gamma", {"base:"})),
        option(10, "broken"), option(10, std::string((64U << 10) + 1, 'x'))}) {
    Negotiation other(exports_);
    std::string text = be<uint32_t>(3) + option(8) +
                       option(10, context_request("alpha", {"base:allocation"})) + second +
                       go("alpha");
    Negotiation::Output output;
    Negotiation::Step step;
    while (step.next == Next::kInput) {
      step = other.feed(std::as_bytes(std::span(text)), output);
      text.erase(0, step.consumed);
    }
    EXPECT_EQ(step.next, Next::kTransmission);
    EXPECT_FALSE(other.agreement().base_allocation);
  }
}

TEST_F(Negotiate, MetaContextsOfAnUnknownExportAreRefused) {
  agree_fixed_newstyle();
  agree_structured_replies();
  EXPECT_EQ(ask_one(option(9, context_request("gamma", {}))).type, kRepErrUnknown);
  EXPECT_EQ(ask_one(option(10, context_request("gamma", {}))).type, kRepErrUnknown);
}

TEST_F(Negotiate, RefusesMetaContextRequestsWhoseLengthsDoNotFit) {
  agree_fixed_newstyle();
  agree_structured_replies();
  const std::string good = context_request("alpha", {"base:", "x:y"});
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(ask_one(option(9, good.substr(0, length))).type, kRepErrInvalid) << length;
    EXPECT_EQ(ask_one(option(10, good.substr(0, length))).type, kRepErrInvalid) << length;
  }
  EXPECT_EQ(ask_one(option(9, good + "x")).type, kRepErrInvalid);
  EXPECT_EQ(ask_one(option(10, context_request("alpha", {"nocolon"}))).type, kRepErrInvalid);
  EXPECT_EQ(ask_one(option(10, context_request("alpha", {"x:\xff"}))).type, kRepErrInvalid);
  EXPECT_EQ(ask_one(option(10, context_request("alpha", {"x:" + std::string(4095, 'y')}))).type,
            kRepErrInvalid);
}

TEST_F(Negotiate, SkipsAnOversizedOptionAndServesTheNext) {
  agree_fixed_newstyle();
  const Reply reply = ask_one(option(7, std::string((64U << 10) + 1, 'x')));
  EXPECT_EQ(reply.type, kRepErrTooBig);
  EXPECT_EQ(ask_one(option(99, std::string((64U << 10) + 1, 'x'))).type, kRepErrUnsup);
  EXPECT_THAT(types(ask(go("alpha"))), ElementsAre(kRepInfo, kRepAck));
}

TEST_F(Negotiate, AcknowledgesAnOversizedAbort) {
  agree_fixed_newstyle();
  EXPECT_EQ(ask_one(option(2, std::string(100000, 'x'))), (Reply{2, kRepAck, ""}));
  EXPECT_EQ(next_, Next::kClose);
}

TEST_F(Negotiate, ClosesAtOnceOnAnAbsurdLength) {
  agree_fixed_newstyle();
  EXPECT_EQ(say("IHAVEOPT" + be<uint32_t>(7) + be<uint32_t>(0xffffffff)), "");
  EXPECT_EQ(next_, Next::kClose);
  EXPECT_THAT(negotiation_.close_reason(), HasSubstr("4294967295"));
}

TEST_F(Negotiate, RefusesMoreQueriesOrInformationRequestsThanAllowed) {
  agree_fixed_newstyle();
  agree_structured_replies();
  const NegotiationLimits limits;
  const std::vector<std::string> queries(limits.queries_max, "x:y");
  EXPECT_EQ(types(ask(option(10, context_request("alpha", queries)))),
            std::vector<uint32_t>{kRepAck});
  std::vector<std::string> more = queries;
  more.emplace_back("x:y");
  EXPECT_EQ(ask_one(option(10, context_request("alpha", more))).type, kRepErrTooBig);
  EXPECT_EQ(ask_one(option(9, sized("alpha") + be<uint32_t>(0xffffffff))).type, kRepErrTooBig);
  const std::vector<uint16_t> infos(limits.info_requests_max + 1, 3);
  EXPECT_EQ(ask_one(option(6, export_request("alpha", infos))).type, kRepErrTooBig);
}

class NegotiateWithLimits : public NegotiationTest {
 protected:
  NegotiateWithLimits()
      : NegotiationTest({.option_bytes_max = 64, .total_bytes_max = 200, .options_max = 5}) {}
};

TEST_F(NegotiateWithLimits, ClosesAfterTooManyOptions) {
  agree_fixed_newstyle();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ask_one(option(8)).type, kRepAck);
  EXPECT_EQ(say(option(8)), "");
  EXPECT_EQ(next_, Next::kClose);
  EXPECT_THAT(negotiation_.close_reason(), HasSubstr("5 options"));
}

TEST_F(NegotiateWithLimits, ClosesAfterTooManyBytes) {
  agree_fixed_newstyle();
  EXPECT_EQ(ask_one(option(77, std::string(64, 'x'))).type, kRepErrUnsup);
  EXPECT_EQ(ask_one(option(77, std::string(65, 'x'))).type, kRepErrUnsup);
  EXPECT_EQ(say(option(77, std::string(64, 'x'))), "");
  EXPECT_EQ(next_, Next::kClose);
}

/// A conversation with something of everything, ending in transmission.
std::string long_conversation() {
  return be<uint32_t>(3) + option(5) + option(3) + option(8) + option(11) +
         option(6, export_request("alpha", {0, 1, 2, 3})) + option(6, export_request("nobody")) +
         option(9, context_request("", {"base:"})) + option(6, "torn") +
         option(10, context_request("alpha", {"base:allocation"})) + option(1234, "data") +
         go("alpha", {3});
}

TEST_F(Negotiate, AnswersTheSameHoweverTheInputIsSplit) {
  const std::string text = long_conversation() + "REQUEST";
  const std::string whole = say(text);
  EXPECT_EQ(next_, Next::kTransmission);
  EXPECT_EQ(rest_, "REQUEST");
  for (size_t split = 1; split < long_conversation().size(); ++split) {
    Negotiation other(exports_);
    Negotiation::Output output;
    Next next = Next::kInput;
    std::string waiting;
    for (const std::string& part : {text.substr(0, split), text.substr(split)}) {
      waiting += part;
      while (next == Next::kInput && !waiting.empty()) {
        const auto step = other.feed(std::as_bytes(std::span(waiting)), output);
        waiting.erase(0, step.consumed);
        next = step.next;
      }
    }
    EXPECT_EQ(next, Next::kTransmission);
    EXPECT_EQ(waiting, "REQUEST");
    ASSERT_EQ(whole, std::string(reinterpret_cast<const char*>(output.data()), output.size()))
        << "split at " << split;
  }
}

TEST_F(Negotiate, AnswersTheSameByteByByte) {
  const std::string bytewise = say(long_conversation(), 1);
  EXPECT_EQ(next_, Next::kTransmission);
  EXPECT_TRUE(negotiation_.agreement().base_allocation);
  const std::vector<Reply> all = replies(bytewise);
  EXPECT_EQ(all.back(), (Reply{7, kRepAck, ""}));
  EXPECT_EQ(all.size(), 21U);
}

TEST_F(Negotiate, AnswersOneOptionPerCall) {
  agree_fixed_newstyle();
  const std::string two = option(8) + option(8);
  Negotiation::Output output;
  const auto step = negotiation_.feed(std::as_bytes(std::span(two)), output);
  EXPECT_EQ(step.consumed, 16U);
  EXPECT_EQ(output.size(), 20U);
}

}  // namespace
}  // namespace usbd::nbd
