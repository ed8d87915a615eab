// SPDX-License-Identifier: Apache-2.0
//
// usbdctl: will talk to running daemons. There is nothing to say to them yet: what the daemon has
// today it takes as flags and signals.

#include <cstdio>
#include <string_view>

namespace {

constexpr char kHelp[] =
    "Usage: usbdctl [-help] [-version]\n"
    "Will control running usbdsrvd daemons. This build has no commands yet.\n"
    "Today: SIGUSR1 makes a daemon log its statistics, SIGTERM stops it, and a kernel device that\n"
    "it had to leave waiting is removed with `nbd-client -d /dev/nbdN`.\n";

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "-help" || word == "--help" || word == "-h") {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (word == "-version" || word == "--version") {
      std::puts("usbdctl (usbd) " USBD_VERSION);
      return 0;
    }
    std::fprintf(stderr,
                 "usbdctl: \"%s\" is not known: this build has no commands yet, only -help and "
                 "-version\n",
                 argv[i]);
    return 2;
  }
  std::fputs(kHelp, stderr);
  return 2;
}
