# SPDX-License-Identifier: Apache-2.0
#
# usbd_component(NAME DIR dir [RECURSE] [DEPS component...] [LINK target...]): the static library
# usbd_NAME of all sources in dir, and NAME_test of its *_test.cc files.

add_library(usbd_flags INTERFACE)
target_include_directories(usbd_flags INTERFACE ${PROJECT_SOURCE_DIR}/include
                                                ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(usbd_flags INTERFACE _GNU_SOURCE USBD_VERSION="${PROJECT_VERSION}")
target_compile_options(
  usbd_flags
  INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
            $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor -Woverloaded-virtual>
            -Wimplicit-fallthrough
            $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>
            $<$<BOOL:${USBD_WERROR}>:-Werror>)

set_property(GLOBAL PROPERTY USBD_COMPONENTS "")

function(usbd_component name)
  cmake_parse_arguments(arg "RECURSE" "DIR" "DEPS;LINK" ${ARGN})
  if(arg_RECURSE)
    set(glob GLOB_RECURSE)
  else()
    set(glob GLOB)
  endif()
  file(${glob} sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${arg_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  add_library(usbd_${name} STATIC ${sources})
  list(TRANSFORM arg_DEPS PREPEND usbd_)
  target_link_libraries(usbd_${name} PUBLIC usbd_flags ${arg_DEPS} ${arg_LINK})
  set_property(GLOBAL APPEND PROPERTY USBD_COMPONENTS usbd_${name})
  if(USBD_TESTS AND tests)
    usbd_test(${name}_test SOURCES ${tests} LINK usbd_${name} LABELS unit)
  endif()
endfunction()

# usbd_test(NAME SOURCES file... [LINK target...] LABELS label... [TIMEOUT seconds]): a program of
# gtest.
function(usbd_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 900)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINK} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
endfunction()
