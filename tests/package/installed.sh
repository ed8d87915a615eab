#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a device author does: installs usbd into a prefix, builds the examples against it with CMake
# and with pkg-config, serves them, and looks at them with clients that others wrote and with the
# conformance program and library.
#
# Timeout: 600
. "$USBD_SOURCE_DIR/tests/integration/lib.sh"
need cmake ninja g++ pkg-config nbdinfo nbdcopy cmp
[[ -n ${USBD_BUILD_DIR:-} ]] || fail "USBD_BUILD_DIR is not set to a build folder"

echo "-- install"
cmake --install "$USBD_BUILD_DIR" --prefix "$PWD/prefix" >install.log 2>&1 ||
  { cat install.log; fail "cmake --install"; }
pc=$(dirname "$(find prefix -name usbd.pc)")
export PKG_CONFIG_PATH=$PWD/$pc PATH=$PWD/prefix/bin:$PATH
same "$(usbdsrvd -version | grep -o '[0-9.]*[0-9]' | head -n 1)" "$(pkg-config --modversion usbd)" \
  "the version of the daemon and of the package"
! grep -rn "$USBD_SOURCE_DIR" prefix/lib --include='*.cmake' --include='*.pc' ||
  fail "the installed package refers to the source tree"

echo "-- build with CMake"
cp -r "$USBD_SOURCE_DIR/examples" examples # outside the source tree, as an author's project is
cmake -G Ninja -S examples -B with-cmake -DCMAKE_PREFIX_PATH="$PWD/prefix" >cmake.log 2>&1 ||
  { cat cmake.log; fail "find_package(usbd)"; }
cmake --build with-cmake -j 2 >cmake.log 2>&1 || { cat cmake.log; fail "building with CMake"; }

echo "-- build with pkg-config"
# shellcheck disable=SC2046  # words
g++ -std=c++23 examples/checksum_disk.cc -o checksum_disk \
  $(pkg-config --static --cflags --libs usbd) || fail "building with pkg-config"

# check BINARY SIZE: serves it, and compares what clients see with what was written.
check() {
  local binary=$1 size=$2 socket=$PWD/disk.sock uri
  uri="nbd+unix:///?socket=$socket"
  start served.log "$binary" -export="unix:$socket"
  local pid=$last_pid
  wait_for 30 nbdinfo "$uri"
  same "$(nbdinfo --size "$uri")" "$size" "size by nbdinfo"
  nbdinfo --can flush "$uri" || fail "nbdinfo: no flush"
  head -c "$size" /dev/urandom >data
  nbdcopy --flush data "$uri"
  nbdcopy "$uri" back
  cmp data back || fail "what nbdcopy read is not what it wrote"
  usbd-conformance "$uri" || fail "the conformance program found a fault"
  stop "$pid"
  rm -f data back
}

echo "-- serve the example built with CMake"
check with-cmake/checksum_disk $((64 << 20))
echo "-- serve the example built with pkg-config"
check ./checksum_disk $((64 << 20))

echo "-- the programmatic API"
head -c 1M /dev/urandom >data
printed=$(with-cmake/with_disk "unix:$PWD/scratch.sock" \
  'nbdcopy --flush data "$DISK_URI" && nbdcopy "$DISK_URI" - | head -c 1M >back')
cmp data back || fail "with_disk: what was read is not what was written"
grep -q 'scratch.sock: [1-9][0-9]* reads, [1-9][0-9]* writes, [1-9][0-9]* flushes' <<<"$printed" ||
  fail "with_disk: unexpected counts: $printed"
[[ ! -e scratch.sock ]] || fail "with_disk left its socket behind"
! with-cmake/with_disk unix:/absent/x.sock true 2>error.log || fail "with_disk: no error"
grep -q /absent/x.sock error.log || fail "with_disk: the error does not name the socket"

echo "-- the conformance suite as a library"
# shellcheck disable=SC2046  # words
g++ -std=c++23 -I . "$USBD_SOURCE_DIR/tests/package/conformance_test.cc" -o conformance_test \
  $(pkg-config --static --cflags --libs usbd-testing) -lgtest -lgtest_main -lpthread ||
  fail "building against usbd-testing"
USBD_CONFORMANCE_OPERATIONS=2000 ./conformance_test || fail "the example does not conform"
