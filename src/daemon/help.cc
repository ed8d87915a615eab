// SPDX-License-Identifier: Apache-2.0
//
// Sections by FlagGroup in the order of the groups; a flag's lines are made from its table entry.

#include "daemon/help.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "layers/layers.h"

namespace usbd::daemon {
namespace {

constexpr size_t kColumns = 80;
constexpr std::string_view kIndent = "        ";

struct Section {
  FlagGroup group;
  std::string_view title;
};
constexpr std::array<Section, 7> kSections = {{
    {FlagGroup::kGeneral, "General"},
    {FlagGroup::kVolume, "The volume"},
    {FlagGroup::kExport, "Where it is served"},
    {FlagGroup::kKernel, "Kernel devices"},
    {FlagGroup::kFile, "Only with -dev-type=file"},
    {FlagGroup::kDedup, "Only with -dev-type=dedup"},
    {FlagGroup::kObjstore, "Only with -dev-type=objstore"},
}};

/// Breaks `text` at spaces into indented lines.
std::string wrapped(std::string_view text) {
  std::string lines;
  size_t column = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (column > 0 && column + 1 + word.size() > kColumns) {
      lines += '\n';
      column = 0;
    }
    lines += column == 0 ? kIndent : std::string_view(" ");
    column += word.size() + (column == 0 ? kIndent.size() : 1);
    lines += word;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines + "\n";
}

std::string shown_default(const FlagSpec& spec) {
  if (!spec.fallback_help.empty()) return spec.fallback_help;
  if (spec.kind == FlagKind::kSwitch) return spec.fallback == "true" ? "on" : "off";
  return spec.fallback;
}

std::string flag_lines(const FlagSpec& spec) {
  std::string head = spec.positional ? "  " + spec.value_name : "  -" + spec.name;
  if (spec.kind == FlagKind::kChoice) {
    std::string names;
    for (const Choice& choice : spec.choices) names += (names.empty() ? "" : "|") + choice.name;
    head += "=" + names;
  } else if (!spec.positional && !spec.value_name.empty()) {
    head += "=" + spec.value_name;
  }
  std::string text = spec.help;
  if (spec.repeatable) text += " May be given several times.";
  const std::string fallback = shown_default(spec);
  const bool question = spec.name == "help" || spec.name == "version";
  if (!fallback.empty() && !question) text += fmt::format(" (default: {})", fallback);
  return head + "\n" + wrapped(text);
}

std::string examples(const std::string& program) {
  return fmt::format(
      R"(Examples (as root for a kernel device; without root a unix socket is served):
  1 GiB of memory as the first free kernel device:
        {0}
  8 GiB in a file, as /dev/nbd5:
        {0} -dev-type=file -store-dir=/tmp -store-name=testfilevol -store-size=8GiB /dev/nbd5
  12 GiB in files, equal blocks stored once:
        {0} -dev-type=dedup -store-dir=/tmp -store-name=testdedupvol -store-size=12GiB
  20 GiB in a local S3 store (MinIO):
        {0} -dev-type=objstore -store-dir=/tmp -store-name=testobjvol -store-size=20GiB
  1 GiB of memory for NBD clients, on a unix socket and on loopback:
        {0} -export=unix:/tmp/vol.sock -export=tcp:127.0.0.1:10809
)",
      program);
}

constexpr std::string_view kConnecting = R"(
Using what is served:
  A kernel device (/dev/nbd0) is a disk:
        mkfs.ext4 /dev/nbd0 && mount /dev/nbd0 /mnt
        umount /mnt                      # before the daemon is stopped
  A socket is served by the NBD protocol; the daemon prints its URI:
        nbdinfo 'nbd+unix:///test-lun?socket=/tmp/vol.sock'
        qemu-img info 'nbd+unix:///test-lun?socket=/tmp/vol.sock'
        nbd-client -unix /tmp/vol.sock -N test-lun /dev/nbd1
  Stop with Ctrl+C or SIGTERM; SIGUSR1 logs statistics.

Flags take one dash or two, -flag=value or -flag value; a switch is -flag or -flag=false.
Sizes: 100MiB, 20GiB, 1.5GiB (powers of 1024), 20GB, 20G (powers of 1000), or bytes.
Durations: 10s, 1m30s, 500ms, 0.
Exit status: 0 stopped cleanly, 1 start-up or stopping failed, 2 bad usage, 3 stopped with
unpublished data kept in the journal, 4 fenced by another daemon.
)";

std::string indented(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines += fmt::format("  {}", text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

}  // namespace

std::string help_text(const HelpText& about, std::span<const FlagSpec> specs) {
  std::string text = fmt::format(
      "Usage: {} [flags] [DEVICE]\n"
      "Serves a block device from user space: as a kernel device, or to NBD clients.\n\n",
      about.program);
  if (about.is_daemon) text += examples(about.program);
  text += kConnecting;
  for (const Section& section : kSections) {
    std::string flags;
    for (const FlagSpec& spec : specs) {
      if (spec.group == section.group) flags += flag_lines(spec);
    }
    if (!flags.empty()) text += fmt::format("\n{}:\n{}", section.title, flags);
  }
  text += "\nLayers (-layer=SPEC), for tests and for looking:\n" + indented(layer_help());
  return text;
}

std::string version_text(const std::string& program) {
  return fmt::format("{} (usbd) {}\n", program, USBD_VERSION);
}

}  // namespace usbd::daemon
