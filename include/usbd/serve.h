// SPDX-License-Identifier: Apache-2.0
//
// Serving a device. Two ways, one engine:
//
// - usbd::serve(device, argc, argv) is a whole program: every frontend, every common flag, signals,
//   logging, a readiness message, an exit status. `return usbd::serve(std::make_unique<MyDevice>(),
//   argc, argv);` is a complete main.
// - usbd::Server serves a device inside a program that has a life of its own: it makes threads; it
//   touches no signals, no standard streams and nothing else of the process. What it has to log
//   goes where set_log_sink() says, or nowhere. Stopping a kernel device runs sync(1).

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "usbd/blocking_device.h"
#include "usbd/device.h"
#include "usbd/result.h"

namespace usbd {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

/// Has all of usbd's log lines of this process, without their newlines, given to `sink`. Without
/// one (empty, the default) they are dropped. usbd::serve() sets a sink of its own.
/// Threads: before the first Server is started; `sink` is called from any thread, several at once.
void set_log_sink(std::function<void(LogLevel, std::string_view)> sink);

/// How a device is served. The defaults are those of the daemon's flags of the same meaning.
struct ServeOptions {
  enum class NbdDriver : uint8_t { kAuto, kNetlink, kIoctl };

  /// What NBD clients ask for, and the name of the default socket. No slashes.
  std::string name = "device";
  /// Where to serve, as the flag -export: "nbd", "unix:PATH", "tcp:HOST:PORT", "none", "auto".
  /// All must succeed. Empty: "auto", or the driver of `devices`.
  std::vector<std::string> exports = {};
  /// Kernel devices to try in this order, such as "/dev/nbd0"; those in use are passed over, and
  /// it is an error if all are. Empty: the first that is free.
  std::vector<std::string> devices = {};
  /// Where the default socket `<name>.sock` of "auto" is made.
  std::string socket_directory = "./";
  /// Layers over the device, the lowest first, as the flag -layer.
  std::vector<std::string> layers = {};
  bool read_only = false;

  /// How many devices the kernel makes if this loads its nbd module.
  unsigned devices_max = 32;
  NbdDriver nbd_driver = NbdDriver::kAuto;
  /// Sockets of a kernel device; 0: one per CPU, at most 4.
  unsigned kernel_connections = 0;
  std::chrono::nanoseconds nbd_timeout = std::chrono::seconds(60);
  std::chrono::nanoseconds nbd_dead_timeout = std::chrono::minutes(10);
  /// How long stop() waits for a kernel device to be released.
  std::chrono::nanoseconds stop_timeout = std::chrono::seconds(30);

  /// Plain TCP on addresses other than loopback.
  bool insecure_tcp = false;
  /// Network connections at once, all exports together.
  unsigned connections_max = 1024;

  /// Threads that serve requests; 0: one per CPU, at most 4.
  unsigned threads = 0;
  /// How long each of them looks for the next request before it sleeps, where that pays: while a
  /// client asks again sooner than its sleep would take. Range: 0 (never) to 10 ms.
  std::chrono::nanoseconds busy_poll = std::chrono::microseconds(50);
  /// Calls of a BlockingDevice that run at once.
  unsigned blocking_calls_max = 16;
  /// Ends Server::wait(), which then stops serving.
  std::stop_token stop = {};
};

/// A place where a device is served.
struct ServedAt {
  enum class Kind : uint8_t { kKernelDevice, kUnixSocket, kTcpSocket };

  Kind kind = Kind::kKernelDevice;
  /// "/dev/nbd0", a socket's path, or "127.0.0.1:10809" (the port that was really got).
  std::string name = {};
  /// Sockets: what NBD clients are told, such as nbd+unix:///disk?socket=/run/x.sock.
  std::string uri = {};
};

/// What has been done since serving began.
struct ServeStatistics {
  struct Operation {
    uint64_t operations = 0;  ///< Answered, with or without an error.
    uint64_t bytes = 0;       ///< Of those that succeeded.
    uint64_t errors = 0;
  };
  Operation read;
  Operation write;
  Operation flush;
  Operation trim;
  Operation write_zeroes;
  /// Requests taken and not yet answered.
  uint64_t in_flight = 0;
};

/// How serving ended.
struct StopReport {
  ServeStatistics statistics = {};
  /// Kernel devices that somebody still held when the wait was over. They are left for a restart.
  std::vector<std::string> left_waiting = {};
};

class Server {
 public:
  /// Opens `layers` over the device and serves the result in every place of the options.
  /// Threads: any but a loop's own. Returns when requests are being served.
  /// Errors:  what the first place that failed said; then everything is undone, the device closed.
  static Result<std::unique_ptr<Server>> start(std::unique_ptr<Device> device,
                                               ServeOptions options);
  static Result<std::unique_ptr<Server>> start(std::unique_ptr<BlockingDevice> device,
                                               ServeOptions options);

  virtual ~Server() = default;

  /// Where requests are served: kernel devices first, then sockets in the order of the options.
  [[nodiscard]] virtual const std::vector<ServedAt>& served_at() const = 0;
  /// Units:   bytes; of the device with its layers.
  [[nodiscard]] virtual uint64_t size() const = 0;
  /// Threads: any.
  [[nodiscard]] virtual ServeStatistics statistics() const = 0;

  /// Waits until options.stop is requested, or until a kernel device has been disconnected by
  /// someone else, then does what stop() does.
  virtual Result<StopReport> wait() = 0;
  /// Takes no new connections, answers what is in flight, waits for kernel devices to be released
  /// (their filesystems are synced meanwhile), flushes and closes the device. Called once; the
  /// destructor does it otherwise. A request that the device has is waited for however long it
  /// takes, since its memory is lent to the device, and so is the final flush.
  /// Errors: what the final flush said: data that was not flushed before may be lost.
  virtual Result<StopReport> stop() = 0;
  /// Ends the waits of a stop() that is under way, but for those for the device. Threads: any.
  virtual void hurry() = 0;

 protected:
  Server() = default;
};

/// Serves `device` until SIGINT or SIGTERM, as the flags say (`-help` lists them). A device that
/// does not come back when it is to stop is left where it is, after -close-timeout, by ending the
/// process.
/// Threads: called once, from main, before the program has made others.
/// Returns: the exit status: 0 stopped cleanly, 1 start-up or the final flush failed, 2 bad flags.
int serve(std::unique_ptr<Device> device, int argc, char** argv);
int serve(std::unique_ptr<BlockingDevice> device, int argc, char** argv);

}  // namespace usbd
