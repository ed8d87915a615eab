// SPDX-License-Identifier: Apache-2.0
//
// The records of the session fuzzer's input, and the end of a run.

#include "fuzz/session_run.h"

#include <algorithm>

namespace usbd::fuzz {
namespace {

using nbd::ScriptedDevice;
using C = nbd::StreamClient;

constexpr uint32_t kKiB = 1024;
constexpr uint64_t kDeviceSize = 40 * kKiB;
/// One run stays small, so that there can be many.
constexpr unsigned kRequestsMax = 32;
/// Beyond what one connection may have in flight. One in so many of the inputs that ask for it gets
/// it: it takes the time of fifty others.
constexpr unsigned kRequestsMaxOfLongRuns = 1400;
constexpr unsigned kLongRunOneIn = 32;
constexpr uint64_t kPayloadMax = 128 * kKiB;
constexpr uint32_t kOptionGo = 7;
constexpr uint32_t kOptionExportName = 1;

ScriptedDevice::Options device_of(unsigned kind, std::vector<std::byte>& memory) {
  ScriptedDevice::Options options;
  options.memory = std::move(memory);
  options.size = kDeviceSize;
  options.direct = (kind & 3) == 0;
  options.tries = (kind & 2) == 0;
  if ((kind & 4) != 0) {
    options.block_size = 512;
    options.capabilities.fua = Support::kEmulated;
  }
  if ((kind & 24) == 24) {
    options.capabilities.write_zeroes = Support::kEmulated;
    options.capabilities.extents = Support::kEmulated;
    options.capabilities.trim = Support::kNone;
  }
  return options;
}

Export::Options export_of(unsigned kind) {
  Export::Options options;
  options.name = "main";
  options.description = "for the fuzzer";
  options.strict_alignment = (kind & 32) != 0;
  options.read_only = (kind & 192) == 192;
  return options;
}

}  // namespace

Workbench::Workbench() {
  new_loop(0);
  for (const uint64_t bytes : {64 * kKiB, 80 * kKiB, 4096 * kKiB}) {
    places_.push_back(std::make_unique<Place>(*loop_, bytes));
  }
}

SessionRun::SessionRun(Workbench& workbench, FuzzInput input)
    : workbench_(workbench),
      input_(input),
      loop_(workbench.new_loop(input_.byte())),
      context_(workbench.context(input_.byte())),
      device_(device_of(input_.byte(), workbench.memory)),
      served_(device_, export_of(input_.byte())),
      exports_(*nbd::ExportList::create({&served_})),
      receive_size_(input_.pick<size_t>({256U * kKiB, 16U * kKiB, 4U * kKiB, 100})) {
  device_.failure = [this](Op, ByteRange) -> std::optional<Errc> {
    if (fail_every_ == 0 || ++calls_ % fail_every_ != 0) return std::nullopt;
    return failure_;
  };
  const uint8_t scale = input_.byte();
  const bool is_long = scale == 0xFF && input_.digest() % kLongRunOneIn == 0;
  requests_max_ = is_long ? kRequestsMaxOfLongRuns : kRequestsMax;
  const unsigned peers = 1 + scale % 2;
  for (unsigned i = 0; i < peers; ++i) add_peer();
}

void SessionRun::add_peer() {
  const uint8_t choice = input_.byte();
  peers_.push_back(std::make_unique<FuzzPeer>(loop_));
  FuzzPeer& peer = *peers_.back();
  nbd::Session::Options options{.drop_when_hung_up = (choice & 0x80) != 0, .peer = "fuzz"};
  auto transport = std::make_unique<nbd::WireTransport>(peer.wire);
  peer.session =
      std::make_unique<nbd::Session>(context_, std::move(transport), exports_,
                                     static_cast<nbd::SessionOwner&>(*this), std::move(options));
  const unsigned style = choice % 16;
  if (style == 15) {
    nbd::Agreement agreement{.transmission_flags = nbd::transmission_flags(served_.info()),
                             .structured_replies = (choice & 16) != 0,
                             .base_allocation = (choice & 16) != 0};
    peer.skip_handshake(agreement.structured_replies);
    peer.past_options = true;
    promise(peer.session->start_transmission(agreement).has_value(), "a session that starts");
    return;
  }
  promise(peer.session->start().has_value(), "a session that starts");
  begin_handshake(peer, style);
}

void SessionRun::begin_handshake(FuzzPeer& peer, unsigned style) {
  if (style == 14) {  // the whole input is what the client sends
    peer.garbled = true;
    peer.outbox = input_.take(~size_t{0});
    return;
  }
  peer.say_flags(style == 13 ? input_.word() : (style & 1) != 0 ? 3 : 1);
  if (style >= 12) return;  // options come as records
  const std::string name = style % 3 == 0 ? "" : "main";
  const std::string counted = C::be(static_cast<uint32_t>(name.size())) + name;
  if (style < 3) {
    peer.say_option(kOptionExportName, name);
  } else {
    if (style >= 5) peer.say_option(8, "");
    if (style >= 8) {
      const std::string query = "base:allocation";
      peer.say_option(
          10, counted + C::be(uint32_t{1}) + C::be(static_cast<uint32_t>(query.size())) + query);
    }
    peer.say_option(kOptionGo, counted + C::be(uint16_t{0}));
  }
  peer.past_options = true;
}

void SessionRun::run() {
  while (!input_.empty()) record();
  finish();
}

void SessionRun::record() {
  const uint8_t kind = input_.byte();
  chosen_ = kind / 128 % peers_.size();
  switch (kind % 16) {
    case 9:
    case 10:
      return wire_record();
    case 11:
    case 12:
      return device_record();
    case 13:
      return settle(Nanos(input_.byte() * 64));
    case 14:
      return end_record();
    case 15:
      return peer().deliver(input_.word());
    default:
      send_record();
      if ((kind & 64) == 0) peer().deliver(~size_t{0});
  }
}

void SessionRun::send_record() {
  if (peer().over || peer().lost) return;
  if (!peer().past_options) return say_options();
  say_request();
}

void SessionRun::say_request() {
  if (requests_ >= requests_max_ || payload_ >= kPayloadMax) return;
  const uint8_t what = input_.byte();
  if ((what & 0xF0) == 0xF0) return repeat_request((what & 15U) * requests_max_ / 16);
  C::Ask ask;
  ask.command = (what & 15) == 8 ? input_.word() : (what & 15) > 8 ? C::kWrite : what & 15;
  if (ask.command == C::kDisc) {
    if (input_.byte() % 4 != 0) return;  // or few runs would be long
    peer().over = true;
  }
  const uint8_t shape = input_.byte();
  ask.flags = (what & 0x30) == 0 ? input_.pick<uint16_t>({1, 4, 8, 2, 16, 32, 3, 0xFFFF}) : 0;
  place_request(ask, shape);
  payload_ += ask.command <= C::kWrite ? std::min<uint64_t>(ask.length, kDeviceSize) : 0;
  ++requests_;
  if (!peer().over) last_ask_ = ask;
  peer().say_request(ask, static_cast<char>('a' + shape % 16));
}

/// As the last one, many times.
void SessionRun::repeat_request(unsigned times) {
  for (; times > 0 && requests_ < requests_max_; --times) {
    if (last_ask_.command <= C::kWrite) payload_ += last_ask_.length;
    if (payload_ >= kPayloadMax) return;
    peer().say_request(last_ask_, 'r');
    ++requests_;
  }
}

/// Offset and length: where things end and begin, and anywhere.
void SessionRun::place_request(C::Ask& ask, uint8_t shape) {
  const uint16_t place = input_.word();
  constexpr uint32_t kLengths[] = {1,    512,    4096,   100, 33'000,     40'960, 0,    28,
                                   5000, 16'384, 40'961, 3,   0xFFFFFFFF, 600,    1024, 8192};
  ask.length = kLengths[shape % 16];
  ask.offset = (shape & 0x40) != 0 ? place * 512ULL : place;
  if ((shape & 0x80) != 0) ask.offset = place % 7 * 512ULL;
  if ((shape & 0xF0) == 0x30) ask.offset = UINT64_MAX - place;
  if (ask.command == C::kFlush && (shape & 16) == 0) ask.offset = ask.length = 0;
  if (ask.command == C::kWrite) ask.length = std::min<uint32_t>(ask.length, 70'000);
}

std::string SessionRun::option_data(uint32_t number) {
  constexpr const char* kNames[] = {"main", "", "mai", "\xff\xfe", "a:b"};
  std::string name = input_.byte() % 16 == 0 ? std::string(5000, 'n') : input_.pick(kNames);
  const std::string counted = C::be(static_cast<uint32_t>(name.size())) + name;
  switch (number) {
    case kOptionExportName:
      return name;
    case 6:
    case kOptionGo: {
      const uint16_t infos = input_.byte() % 5;
      std::string data = counted + C::be(infos);
      for (uint16_t i = 0; i < infos; ++i) data += C::be(uint16_t{input_.byte()});
      return data;
    }
    case 9:
    case 10: {
      constexpr const char* kQueries[] = {"base:allocation", "base:", "qemu:dirty", "none", ""};
      const uint32_t queries = input_.byte() % 4;
      std::string data = counted + C::be(queries);
      for (uint32_t i = 0; i < queries; ++i) {
        const std::string query = input_.pick(kQueries);
        data += C::be(static_cast<uint32_t>(query.size())) + query;
      }
      return data;
    }
    default:
      return input_.take(input_.byte() % 8);
  }
}

void SessionRun::say_options() {
  const uint8_t choice = input_.byte();
  const uint32_t number =
      choice % 16 < 12 ? choice % 16 : input_.pick<uint32_t>({7, 1, 99, 0x80000007, 8, 10});
  std::string data = option_data(number);
  size_t claimed = data.size();
  if ((choice & 0xC0) == 0xC0) {  // wrong inside or outside
    switch (input_.byte() % 4) {
      case 0:
        data.resize(data.size() / 2);
        claimed = data.size();
        break;
      case 1:
        data += input_.take(5);
        claimed = data.size();
        break;
      case 2:
        claimed = input_.word();
        break;
      default:
        data.resize(data.size() + input_.word());
        claimed = data.size();
        break;
    }
  }
  peer().say_option(number, data, claimed);
  const bool named = data == "main" || data.empty() ||
                     data.starts_with(C::be(uint32_t{4}) + "main") ||
                     data.starts_with(C::be(uint32_t{0}));
  if ((number == kOptionGo || number == kOptionExportName) && named && claimed == data.size()) {
    peer().past_options = true;
  }
}

void SessionRun::garbage() {
  FuzzPeer& who = peer();
  if (who.over) return;
  if (!who.past_options) who.garbled = true;
  std::string bytes = input_.take(1 + input_.byte() % 64);
  if (who.past_options) bytes.insert(0, std::string("\xBD") + std::string(27, 'g'));
  who.outbox += bytes;
  who.over = true;
}

void SessionRun::device_record() {
  const uint8_t choice = input_.byte();
  switch (choice % 4) {
    case 0:
      device_.pace = input_.pick({ScriptedDevice::Pace::kPark, ScriptedDevice::Pace::kYield,
                                  ScriptedDevice::Pace::kAtOnce});
      return;
    case 1:
      fail_every_ = choice / 4 % 4;
      failure_ = input_.pick({Errc::kIo, Errc::kNoSpace, Errc::kNotSupported, Errc::kTimedOut,
                              Errc::kPerm, Errc::kNoMemory, Errc::kOverflow, Errc::kShutdown});
      return;
    case 2:
      if (device_.parked() > 0) device_.unpark(input_.byte() % device_.parked());
      return;
    default:
      device_.unpark_all();
  }
}

void SessionRun::wire_record() {
  const uint8_t choice = input_.byte();
  const size_t size = (choice & 0x80) != 0 ? nbd::Wire::kNoLimit : input_.word() % 40'000;
  switch (choice % 3) {
    case 0:
      return peer().wire.set_receive_max(std::max<size_t>(size, 1));
    case 1:
      return peer().wire.set_send_max(std::max<size_t>(size, 1));
    default:
      return peer().wire.set_room(size);
  }
}

void SessionRun::end_record() {
  const uint8_t choice = input_.byte();
  switch (choice % 8) {
    case 0:
      peer().over = true;
      return peer().wire.hang_up();
    case 1:
      peer().over = true;
      return peer().wire.finish_sending();
    case 2:
      peer().over = true;
      if (peer().session) peer().session->stop();
      return;
    case 3:
      peer().over = true;
      if (peer().session) peer().session->abort("a record says so");
      return;
    case 4:
      return garbage();
    default:
      // Long enough for timers; whoever does not keep up may be closed.
      for (const auto& each : peers_) each->over = true;
      return settle(std::chrono::seconds(choice / 16));
  }
}

void SessionRun::settle(Nanos time) {
  promise(loop_.run_for(time) != SimEnd::kSteps, "a session that comes to rest");
  for (const auto& each : peers_) each->hear();
}

void SessionRun::finish() {
  fail_every_ = 0;
  device_.pace = ScriptedDevice::Pace::kAtOnce;
  for (const auto& each : peers_) {
    each->wire.set_receive_max(nbd::Wire::kNoLimit);
    each->wire.set_send_max(nbd::Wire::kNoLimit);
    each->wire.set_room(nbd::Wire::kNoLimit);
    each->deliver(~size_t{0});
  }
  constexpr Nanos kEnough = std::chrono::milliseconds(2);  // before any timer
  do {
    device_.unpark_all();
    settle(kEnough);
  } while (device_.parked() > 0);
  check_answers();
  for (const auto& each : peers_) each->wire.hang_up();
  settle(kEnough);
  for (const auto& each : peers_) promise(each->ended, "every session ends");
  const Budget& budget = context_.buffers.budget();
  promise(budget.free() == budget.total() && budget.waiting() == 0, "the budget is whole");
  promise(served_.locks().held_count() == 0, "every claim is released");
  if (requests_ % 8 == 1) {  // not always: it adds up a thousand counters
    promise(served_.stats().snapshot().in_flight == 0, "nothing is counted as in flight");
  }
}

void SessionRun::check_answers() {
  for (const auto& each : peers_) {
    if (each->garbled || each->over) continue;
    if (each->lost) {
      promise(!each->handshake_done, "nobody in transmission is closed without a reason");
      continue;
    }
    promise(each->client.pending() == 0, "every request is answered");
    promise(!each->client.in_the_middle(), "whole replies");
  }
}

FuzzPeer& SessionRun::peer_of(const nbd::Session& session) {
  for (const auto& each : peers_) {
    if (each->session.get() == &session) return *each;
  }
  broken("a call for a session that has ended");
}

void SessionRun::handshake_done(nbd::Session& session) {
  peer_of(session).handshake_done = true;
  passed_handshake_ = true;
}

void SessionRun::connection_lost(nbd::Session& session) {
  promise(!std::exchange(peer_of(session).lost, true), "a connection is lost once");
}

void SessionRun::session_ended(nbd::Session& session) {
  FuzzPeer& who = peer_of(session);
  promise(!std::exchange(who.ended, true) && who.lost, "a session ends once, after it was lost");
  who.session.reset();
}

}  // namespace usbd::fuzz
