// SPDX-License-Identifier: Apache-2.0
//
// Words before the flags choose the command; the flags are parsed by the daemon's code.

#include "ctl/program.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include <signal.h>

#include <fmt/format.h>

#include "async/runtime.h"
#include "base/log.h"
#include "ctl/console.h"
#include "ctl/help.h"
#include "ctl/inspector.h"
#include "daemon/command_line.h"
#include "daemon/describe.h"
#include "daemon/flag_table.h"
#include "daemon/help.h"
#include "daemon/settings.h"

namespace usbd::ctl {
namespace {

using Words = std::span<const std::string>;

int print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  return written && std::fflush(stdout) == 0 ? kExitFine : kExitFailed;
}

int usage_error(const std::string& why) {
  const std::string text = fmt::format("usbdctl: {}\n", why);
  std::fwrite(text.data(), 1, text.size(), stderr);
  return kExitUsage;
}

std::string why(const Error& error) {
  return error.context().empty() ? error.message() : error.context();
}

bool is_help(std::string_view word) {
  return word == "--help" || word == "-help" || word == "-h" || word == "help";
}

/// Inspects and closes.
Task<int> inspect(const std::string& command, daemon::VolumeSettings settings, Runtime& runtime,
                  Console& console) {
  Result<std::unique_ptr<VolumeInspector>> opened =
      co_await open_inspector(std::move(settings), runtime);
  if (!opened) {
    console.say(daemon::explain(opened.error()));
    co_return kExitFailed;
  }
  VolumeInspector& inspector = **opened;
  Result<void> done;
  Verdict verdict = Verdict::kSound;
  if (command == "check") {
    const Result<Verdict> checked = co_await inspector.check(console);
    if (checked) verdict = *checked;
    if (!checked) done = checked.error();
  } else if (command == "show") {
    done = co_await inspector.show(console);
  } else {
    done = co_await inspector.list_objects(console);
  }
  co_await inspector.close();
  if (!done) console.say(daemon::explain(done.error()));
  if (!done) co_return kExitFailed;
  co_return verdict == Verdict::kSound ? kExitFine : kExitDamaged;
}

int run_inspector(const std::string& command, const daemon::FlagValues& values,
                  daemon::VolumeSettings settings) {
  Console console({.json = values.on("json"), .progress = values.on("progress")});
  // What the parts below log is for a daemon's operator, but for what is wrong.
  log::set_sink([&console](log::Level level, std::string_view line) {
    if (level >= log::Level::kWarning) console.say(line);
  });
  int status = kExitFailed;
  {
    Result<std::unique_ptr<Runtime>> runtime = Runtime::start({});
    if (runtime) {
      status = (*runtime)->run(inspect(command, std::move(settings), **runtime, console));
    } else {
      console.say("cannot start: " + runtime.error().message());
    }
  }
  log::set_sink({});
  const Result<void> written = console.finish();
  if (written) return status;
  console.say(written.error().message());
  return kExitFailed;
}

int run_volume_command(const CommandHelp& command, Words words, int argc, char** argv) {
  const std::vector<daemon::FlagSpec> specs = volume_flags();
  daemon::FlagValues values(specs);
  if (!words.empty() && words.front() == "-h") return print(command_help(command, specs));
  const Result<void> parsed = daemon::parse_arguments(words, values);
  if (!parsed) return usage_error(why(parsed.error()));
  daemon::hide_secrets(values, argc, argv);
  if (values.on("help")) return print(command_help(command, specs));
  if (values.given("device")) {
    return usage_error(
        fmt::format("unexpected argument \"{}\": a volume is named by flags "
                    "(usbdctl volume {} --help)",
                    values.text("device"), command.name));
  }
  const auto warnings = daemon::read_sources(daemon::environment_words(), values);
  if (!warnings) return usage_error(why(warnings.error()));
  Result<daemon::Settings> settings = daemon::to_settings(values);
  if (!settings) return usage_error(why(settings.error()));
  const Result<void> known = check_inspectable(settings->volume.type);
  if (!known) return usage_error(why(known.error()));
  settings->volume.read_only = true;
  return run_inspector(std::string(command.name), values, std::move(settings->volume));
}

int run_volume(Words words, int argc, char** argv) {
  if (words.empty()) return usage_error("volume: which command? (usbdctl volume --help)");
  if (is_help(words.front())) return print(volume_help());
  const std::span<const CommandHelp> commands = volume_commands();
  const auto found = std::ranges::find(commands, words.front(), &CommandHelp::name);
  if (found != commands.end()) return run_volume_command(*found, words.subspan(1), argc, argv);
  return usage_error(fmt::format(
      "volume: there is no command \"{}\"; there are show, check and list-objects, and flags come "
      "after it (usbdctl volume --help)",
      words.front()));
}

int run_words(Words words, int argc, char** argv) {
  if (words.empty()) return usage_error("which command? (usbdctl --help)");
  if (is_help(words.front())) return print(program_help());
  if (words.front() == "--version" || words.front() == "-version") {
    return print(daemon::version_text("usbdctl"));
  }
  if (words.front() == "volume") return run_volume(words.subspan(1), argc, argv);
  return usage_error(
      fmt::format("there is no command \"{}\"; there is volume (usbdctl --help)", words.front()));
}

}  // namespace

std::vector<daemon::FlagSpec> volume_flags() {
  std::vector<daemon::FlagSpec> specs = daemon::daemon_flags();
  for (daemon::FlagSpec& spec : specs) {
    if (spec.name != "dev-type") continue;
    spec.fallback = "objstore";
    spec.help = "The type of the volume; this build can look at objstore.";
  }
  specs.push_back({.name = "json",
                   .kind = daemon::FlagKind::kSwitch,
                   .help = "Print JSON for programs; its keys stay what they are."});
  specs.push_back({.name = "progress",
                   .kind = daemon::FlagKind::kSwitch,
                   .help = "Say on stderr how far it is, also if that is no terminal."});
  return specs;
}

int run(int argc, char** argv) {
  // Who reads stdout may have enough; the write then fails.
  struct sigaction ignore{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
  try {
    const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
    return run_words(words, argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "usbdctl: %s\n", error.what());
    return kExitFailed;
  }
}

}  // namespace usbd::ctl
