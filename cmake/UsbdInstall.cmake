# SPDX-License-Identifier: Apache-2.0
#
# What `cmake --install` puts down: libusbd.a, all components in one static library; the headers of
# include/usbd; a CMake package (find_package(usbd) gives usbd::usbd) and usbd.pc, both with the
# libraries that a static one needs from whoever links it; the conformance suite; the programs;
# the systemd unit.
include(CMakePackageConfigHelpers)

# Everything a component LINKs, with its name in usbd.pc. A component that links something else
# stops the configuration here, so that the installed package cannot lack it.
set(usbd_package_names
    "fmt::fmt|fmt"
    "spdlog::spdlog|spdlog"
    "tomlplusplus::tomlplusplus|tomlplusplus"
    "PkgConfig::uring|liburing >= 2.3"
    "PkgConfig::nl|libnl-genl-3.0|libnl-3.0"
    # Not libkmod: with --static that asks for libraries of its own that Debian does not install.
    "PkgConfig::kmod|-lkmod"
    # Not libcurl, libcrypto: the same.
    "PkgConfig::curl|-lcurl"
    "PkgConfig::crypto|-lcrypto"
    "PkgConfig::pugixml|pugixml"
    "PkgConfig::lz4|liblz4"
    "PkgConfig::zstd|libzstd"
    "PkgConfig::snappy|snappy"
    "PkgConfig::zlib|zlib"
    "Threads::Threads")

get_property(components GLOBAL PROPERTY USBD_COMPONENTS)
add_library(usbd STATIC)
add_library(usbd::usbd ALIAS usbd)
set(requires)
foreach(component ${components})
  target_sources(usbd PRIVATE $<TARGET_OBJECTS:${component}>)
  get_target_property(links ${component} INTERFACE_LINK_LIBRARIES)
  list(FILTER links EXCLUDE REGEX "^usbd_")
  foreach(link ${links})
    set(entry ${usbd_package_names})
    list(FILTER entry INCLUDE REGEX "^${link}(\\||$)")
    if(NOT entry)
      message(FATAL_ERROR "${component} links ${link}, which cmake/UsbdInstall.cmake and "
                          "packaging/usbd-config.cmake.in do not know")
    endif()
    string(REPLACE "|" ";" packages "${entry}")
    list(REMOVE_AT packages 0)
    list(APPEND requires ${packages})
    target_link_libraries(usbd PUBLIC ${link})
  endforeach()
endforeach()
list(REMOVE_DUPLICATES requires)
set(libs ${requires})
list(FILTER requires EXCLUDE REGEX "^-")
list(FILTER libs INCLUDE REGEX "^-")
list(JOIN requires ", " USBD_PC_REQUIRES)
list(JOIN libs " " USBD_PC_LIBS)
set_target_properties(usbd PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(usbd PUBLIC cxx_std_23)
target_include_directories(usbd PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                       $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# From usbd.pc to the prefix, so that the installed tree may be moved.
file(RELATIVE_PATH USBD_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})

set(usbd_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/usbd)
set(templates ${PROJECT_SOURCE_DIR}/packaging)
configure_package_config_file(${templates}/usbd-config.cmake.in usbd-config.cmake
                              INSTALL_DESTINATION ${usbd_cmake_dir})
write_basic_package_version_file(usbd-config-version.cmake COMPATIBILITY SameMinorVersion)
configure_file(${templates}/usbd.pc.in usbd.pc @ONLY)
configure_file(${templates}/usbd-testing.pc.in usbd-testing.pc @ONLY)
configure_file(${templates}/usbd@.service.in usbd@.service @ONLY)

install(TARGETS usbd EXPORT usbd ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT usbd NAMESPACE usbd:: FILE usbd-targets.cmake DESTINATION ${usbd_cmake_dir})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/usbd DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_BINARY_DIR}/usbd-config.cmake
              ${PROJECT_BINARY_DIR}/usbd-config-version.cmake
        DESTINATION ${usbd_cmake_dir})
install(FILES ${PROJECT_BINARY_DIR}/usbd.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_BINARY_DIR}/usbd@.service DESTINATION lib/systemd/system)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The conformance suite for devices of others: usbd::testing, usbd-testing.pc; its header wants
# gtest included before it. Built with the tests, and only then installed.
function(usbd_install_testing)
  get_target_property(links usbd_testing INTERFACE_LINK_LIBRARIES)
  list(FILTER links EXCLUDE REGEX "^usbd_")
  if(links)
    message(FATAL_ERROR "usbd_testing links ${links}, which its installed package does not know")
  endif()
  add_library(testing STATIC $<TARGET_OBJECTS:usbd_testing>)
  set_target_properties(testing PROPERTIES LINKER_LANGUAGE CXX OUTPUT_NAME usbd-testing)
  target_link_libraries(testing PUBLIC usbd)
  install(TARGETS testing EXPORT usbd ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${PROJECT_BINARY_DIR}/usbd-testing.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

# These targets are defined after this file is read.
function(usbd_install_rest)
  foreach(program usbdsrvd usbdctl usbd-conformance)
    if(TARGET ${program})
      install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    endif()
  endforeach()
  if(TARGET usbd_testing)
    usbd_install_testing()
  endif()
endfunction()
cmake_language(DEFER DIRECTORY ${PROJECT_SOURCE_DIR} CALL usbd_install_rest)
