// SPDX-License-Identifier: Apache-2.0
//
// Service: one volume from opening to closing, and the Server of the public API. The order is
// always the same: threads, device, layers, export, frontends; and back. It touches nothing of
// the process; signals, logs and files of the daemon are program.cc's.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "async/runtime.h"
#include "core/export.h"
#include "daemon/frontends.h"
#include "daemon/volume.h"
#include "usbd/serve.h"

namespace usbd::daemon {

class Service final : public Server {
 public:
  /// Opens the volume and serves it. `on_lost` (may be null) is called, from any thread, when the
  /// kernel device was disconnected by someone else, or the volume was taken over by another
  /// daemon; wait() returns then too.
  /// Errors: what the first step that failed said; everything before it is undone.
  static Result<std::unique_ptr<Service>> start(const VolumeOpener& opener, ServeOptions options,
                                                std::function<void()> on_lost);
  ~Service() override;

  [[nodiscard]] const std::vector<ServedAt>& served_at() const override {
    return frontends_->served_at();
  }
  [[nodiscard]] uint64_t size() const override { return export_->info().size; }
  [[nodiscard]] ServeStatistics statistics() const override;
  Result<StopReport> wait() override;
  Result<StopReport> stop() override;
  void hurry() override;

  /// Has the device give up waiting for what is far away, where it does. Returns whether it does:
  /// then its requests and its closing end soon. Threads: any.
  bool hurry_device();
  /// Why on_lost was called, as a part of a sentence. Threads: any.
  [[nodiscard]] std::string why_lost();
  /// Range: after stop(), also if that failed.
  [[nodiscard]] Ending ending() const;

  [[nodiscard]] const ServeOptions& options() const { return options_; }
  [[nodiscard]] const ExportInfo& info() const { return export_->info(); }
  /// OpenedVolume::description.
  [[nodiscard]] const std::string& description() const { return description_; }
  /// Frontends::note.
  [[nodiscard]] const std::string& note() const { return frontends_->note(); }
  /// What a stop() that is under way waits for, as a phrase for the log. Threads: any.
  [[nodiscard]] std::string waits_for() const;
  /// One line of statistics for people.
  [[nodiscard]] std::string summary() const { return export_->stats().snapshot().summary(); }
  [[nodiscard]] bool uses_uring() const { return runtime_->uses_uring(); }

 private:
  /// How far a stop is.
  enum class Step : uint8_t { kRelease, kAnswer, kClose };

  Service(ServeOptions options, std::function<void()> on_lost);

  Result<void> open(const VolumeOpener& opener);
  Result<void> open_layers();
  Result<void> open_frontends();
  Result<void> close_device();
  void lost(std::string why);

  const ServeOptions options_;
  const std::function<void()> on_lost_;
  std::stop_source hurry_;

  std::mutex mutex_;
  std::condition_variable_any lost_changed_;
  bool lost_ = false;
  std::string why_lost_;

  // In the order in which they are made.
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Device> device_;
  std::string description_;
  std::string id_;
  VolumeUpkeep upkeep_;
  std::unique_ptr<Export> export_;
  std::unique_ptr<Frontends> frontends_;
  bool stopped_ = false;
  std::atomic<Step> step_{Step::kRelease};
};

}  // namespace usbd::daemon
