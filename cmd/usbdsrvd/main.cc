// SPDX-License-Identifier: Apache-2.0
//
// usbdsrvd: serves one volume. Everything it does is in src/daemon.

#include "daemon/program.h"

int main(int argc, char** argv) {
  return usbd::daemon::run_daemon(argc, argv);
}
