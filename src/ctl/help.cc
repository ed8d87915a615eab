// SPDX-License-Identifier: Apache-2.0
//
// Of the daemon's many flags a command's help shows those that say which volume it is.

#include "ctl/help.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace usbd::ctl {
namespace {

constexpr std::array<std::string_view, 9> kShownFlags = {
    "json",          "progress",     "dev-type",           "store-dir",      "store-name",
    "objstore-kind", "objstore-cfg", "objstore-container", "objstore-aeskey"};

constexpr std::string_view kExitStatuses =
    "\nExit status:\n"
    "  0  fine\n"
    "  1  it could not be done: no such volume, store not reached, no key, another key\n"
    "  2  bad usage\n"
    "  3  check has found damage\n";

constexpr std::array<CommandHelp, 3> kCommands = {{
    {.name = "show",
     .summary = "what a volume is, what it takes, and what is only on this host",
     .text =
         "Prints size, epoch and writer of a volume, how far it is published, its last "
         "checkpoint,\n"
         "how many objects it has and what part of their bytes is live, and what lies in the "
         "local\n"
         "directory: the journal with what is not published yet, journals put aside, the cache.\n"
         "Without the key it shows what is not encrypted, and says what the key is needed for.\n\n"
         "Example:\n"
         "  usbdctl volume show --store-dir=/tmp --store-name=testobjvol\n"},
    {.name = "check",
     .summary = "proves every stored byte of a volume, and names what is damaged",
     .text =
         "Reads all that a volume has published: its head, its checkpoint, every data object with\n"
         "every frame in it, and compares the map with the objects; then the local journal, "
         "unless\n"
         "a daemon holds it. Each thing that is damaged is named with its object and the bytes of\n"
         "the volume that it costs. Needs the key, if the volume has one. Nothing is changed.\n\n"
         "Example:\n"
         "  usbdctl volume check --store-dir=/tmp --store-name=testobjvol || echo \"status $?\"\n"},
    {.name = "list-objects",
     .summary = "every object of a volume, and what else lies under its prefix",
     .text =
         "Prints each object with its size, number, writes, extents, live bytes and state: "
         "in-use,\n"
         "pending (to be deleted), unpublished (not listed yet), orphan (nobody knows it),\n"
         "missing (known, and not there), foreign (not of this format). Without the key the state\n"
         "of an object is unknown.\n\n"
         "Example:\n"
         "  usbdctl volume list-objects --store-dir=/tmp --store-name=testobjvol | grep orphan\n"},
}};

std::string flag_lines(const daemon::FlagSpec& spec) {
  std::string head = "  --" + spec.name;
  std::string choices;
  for (const daemon::Choice& choice : spec.choices) {
    choices += (choices.empty() ? "" : "|") + choice.name;
  }
  if (!choices.empty()) {
    head += "=" + choices;
  } else if (!spec.value_name.empty()) {
    head += "=" + spec.value_name;
  }
  const std::string fallback = spec.fallback_help.empty() ? spec.fallback : spec.fallback_help;
  const bool shown = !fallback.empty() && spec.kind != daemon::FlagKind::kSwitch;
  return fmt::format("{}\n        {}{}\n", head, spec.help,
                     shown ? fmt::format(" (default: {})", fallback) : std::string());
}

}  // namespace

std::span<const CommandHelp> volume_commands() {
  return kCommands;
}

std::string program_help() {
  return fmt::format(
      "Usage: usbdctl COMMAND [flags]\n"
      "       usbdctl --help | --version\n"
      "Looks at what usbdsrvd keeps. Nothing that it does changes a volume.\n\n"
      "Commands:\n"
      "  volume show|check|list-objects\n"
      "        look at a stored volume, while it is served or not (usbdctl volume --help)\n\n"
      "A running daemon logs its statistics at SIGUSR1 and stops at SIGTERM; a kernel device that\n"
      "it had to leave waiting is removed with `nbd-client -d /dev/nbdN`.\n{}",
      kExitStatuses);
}

std::string volume_help() {
  std::string text =
      "Usage: usbdctl volume show|check|list-objects [flags]\n"
      "Looks at a stored volume. It may be open: then what is seen is what its daemon published\n"
      "last. The volume is named by the flags that usbdsrvd takes: those of its command line can "
      "be\n"
      "pasted behind any of these; what has no meaning here is ignored. So are the environment\n"
      "(USBD_STORE_DIR) and -config=FILE the same.\n\nCommands:\n";
  for (const CommandHelp& command : kCommands) {
    text += fmt::format("  {:<14}{}\n", command.name, command.summary);
  }
  text +=
      "\nExample, a volume in a directory:\n"
      "  usbdctl volume show --objstore-kind=local --objstore-cfg='{\"path\":\"/tmp/bucket\"}' \\\n"
      "      --store-dir=/tmp/local --store-name=demo\n"
      "\n`usbdctl volume COMMAND --help` explains each.\n";
  return text + std::string(kExitStatuses);
}

std::string command_help(const CommandHelp& command, std::span<const daemon::FlagSpec> specs) {
  std::string text =
      fmt::format("Usage: usbdctl volume {} [flags]\n{}\nFlags:\n", command.name, command.text);
  for (const std::string_view name : kShownFlags) {
    const auto spec = std::ranges::find(specs, name, &daemon::FlagSpec::name);
    if (spec != specs.end()) text += flag_lines(*spec);
  }
  text += "  and every other flag of usbdsrvd, which is ignored (usbdsrvd -help)\n";
  return text + std::string(kExitStatuses);
}

}  // namespace usbd::ctl
