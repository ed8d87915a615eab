# SPDX-License-Identifier: Apache-2.0
#
# The target check-headers: every header of include/ and src/ compiles alone, and twice, which shows
# that it includes what it uses and guards itself. Not part of `all`.

file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/*.h
     ${PROJECT_SOURCE_DIR}/src/*.h)
set(sources)
foreach(header ${headers})
  file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR} ${header})
  string(REPLACE "/" "_" source "${name}")
  set(source ${PROJECT_BINARY_DIR}/check-headers/${source}.cc)
  if(NOT EXISTS ${source})
    file(WRITE ${source} "#include \"${header}\"\n#include \"${header}\"\n")
  endif()
  list(APPEND sources ${source})
endforeach()

get_property(components GLOBAL PROPERTY USBD_COMPONENTS)
add_library(check-headers OBJECT EXCLUDE_FROM_ALL ${sources})
target_link_libraries(check-headers PRIVATE ${components} GTest::gtest)
