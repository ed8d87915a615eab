// SPDX-License-Identifier: Apache-2.0
//
// SessionRun: one run of the session fuzzer. The input decides on an export, a budget, one or two
// clients, and then, record by record, what clients send, how the bytes are cut, when a client is
// full, slow or gone, how the device answers and in which order all of it happens.
//
// At the end everything that can still happen does, and the promises are checked: each request of a
// well-behaved client is answered exactly once; every session ends; no claim, buffer or counter is
// left.

#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "async/sim_loop.h"
#include "core/buffer_pool.h"
#include "core/export.h"
#include "frontends/nbd/export_list.h"
#include "frontends/nbd/session.h"
#include "frontends/nbd/testing/device.h"
#include "fuzz/fuzz_peer.h"
#include "fuzz/input.h"

namespace usbd::fuzz {

/// What is kept from run to run, for speed: it must be as new after each.
class Workbench {
 public:
  Workbench();
  /// A loop at the same place as before. Range: nothing lives on the last one.
  SimLoop& new_loop(uint64_t seed) { return loop_.emplace(SimLoop::Options{.seed = seed}); }
  nbd::LoopContext& context(size_t choice) { return places_[choice % places_.size()]->context; }

  /// Memory for the device; what it holds does not matter.
  std::vector<std::byte> memory;

 private:
  struct Place {
    Place(Loop& loop, uint64_t bytes) : budget(bytes), context(loop, 0, budget) {}
    Budget budget;
    nbd::LoopContext context;
  };
  std::optional<SimLoop> loop_;
  std::vector<std::unique_ptr<Place>> places_;
};

class SessionRun final : private nbd::SessionOwner {
 public:
  SessionRun(Workbench& workbench, FuzzInput input);

  ~SessionRun() { workbench_.memory = std::move(device_.bytes); }

  void run();
  /// Whether a client came from a handshake into transmission.
  [[nodiscard]] bool passed_handshake() const { return passed_handshake_; }

 private:
  void add_peer();
  void begin_handshake(FuzzPeer& peer, unsigned style);
  void record();
  void send_record();
  void say_request();
  void repeat_request(unsigned times);
  void place_request(nbd::StreamClient::Ask& ask, uint8_t shape);
  void say_options();
  std::string option_data(uint32_t number);
  void garbage();
  void device_record();
  void wire_record();
  void end_record();
  void settle(Nanos time);
  void finish();
  void check_answers();
  FuzzPeer& peer() { return *peers_[chosen_]; }

  // SessionOwner
  void handshake_done(nbd::Session& session) override;
  void connection_lost(nbd::Session& session) override;
  void session_ended(nbd::Session& session) override;
  size_t receive_size() override { return receive_size_; }
  FuzzPeer& peer_of(const nbd::Session& session);

  Workbench& workbench_;
  FuzzInput input_;
  SimLoop& loop_;
  nbd::LoopContext& context_;
  nbd::ScriptedDevice device_;
  Export served_;
  nbd::ExportList exports_;
  std::vector<std::unique_ptr<FuzzPeer>> peers_;
  size_t chosen_ = 0;
  size_t receive_size_ = 0;
  bool passed_handshake_ = false;

  nbd::StreamClient::Ask last_ask_;
  unsigned requests_ = 0;
  unsigned requests_max_ = 0;
  uint64_t payload_ = 0;
  unsigned fail_every_ = 0;
  mutable unsigned calls_ = 0;
  Errc failure_ = Errc::kIo;
};

}  // namespace usbd::fuzz
