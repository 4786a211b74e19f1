# How everything is compiled: warnings, sanitizers, linker, where programs land.
set(HATCHERY_SANITIZER "" CACHE STRING "address (with undefined), thread, fuzzer (with address), or empty")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

add_library(hatchery_options INTERFACE)
target_compile_options(hatchery_options INTERFACE
  -Wall -Wextra -Werror=switch -Werror=return-type -Wnon-virtual-dtor -Wimplicit-fallthrough
  -Wno-missing-field-initializers)
target_include_directories(hatchery_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(hatchery_options INTERFACE BOOST_ASIO_NO_DEPRECATED)
target_link_options(hatchery_options INTERFACE -fuse-ld=mold)

# Line tables are enough to read a crash, and halve what two cores have to write.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")

if(HATCHERY_SANITIZER STREQUAL "address")
  set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(HATCHERY_SANITIZER STREQUAL "thread")
  set(sanitize -fsanitize=thread -fno-omit-frame-pointer)
  # Asio's fenced blocks are invisible to TSan.
  target_compile_definitions(hatchery_options INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
elseif(HATCHERY_SANITIZER STREQUAL "fuzzer")
  # libFuzzer's main() comes with tests/fuzz; everything else only tells it where it has been.
  set(sanitize -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer)
elseif(HATCHERY_SANITIZER)
  message(FATAL_ERROR "HATCHERY_SANITIZER is '${HATCHERY_SANITIZER}'; use address, thread or fuzzer")
endif()
if(HATCHERY_SANITIZER)
  target_compile_options(hatchery_options INTERFACE ${sanitize})
  target_link_options(hatchery_options INTERFACE ${sanitize})
endif()

# hatchery_library(NAME SOURCES… DEPS…): one folder of the house.
function(hatchery_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC hatchery_options ${arg_DEPS})
endfunction()
