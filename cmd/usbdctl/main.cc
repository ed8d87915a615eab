// SPDX-License-Identifier: Apache-2.0
//
// usbdctl: looks at what the daemon keeps. Everything it does is in src/ctl.

#include "ctl/program.h"

int main(int argc, char** argv) {
  return usbd::ctl::run(argc, argv);
}
