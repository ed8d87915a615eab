#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# conformance [OPERATIONS]: the public conformance suite through kernel nodes: memory and a file.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
operations=${1:-2000}
need usbd-conformance

for type in mem file; do
  attach "volume-$type" -dev-type="$type" -store-size=64MiB
  usbd-conformance -operations="$operations" "$device"
  stop "$daemon"
done
no_kernel_errors
