# hatchery_test(NAME SOURCES… DEPS… [LABEL e2e] [SERIAL]): a GoogleTest program; each of its tests is a
# CTest test of its own, so that one that crashes takes no other along.
include(GoogleTest)

# The guest that e2e tests boot; the test e2e_guest_image builds it first.
set(HATCHERY_TEST_IMAGE_DIR ${CMAKE_BINARY_DIR}/guest)

function(hatchery_test name)
  cmake_parse_arguments(arg "SERIAL" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT arg_LABEL)
    set(arg_LABEL unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set(properties LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT})
  if(arg_SERIAL)
    list(APPEND properties RUN_SERIAL TRUE)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  if(arg_LABEL STREQUAL e2e)
    list(APPEND properties FIXTURES_REQUIRED guest_image RUN_SERIAL TRUE
      ENVIRONMENT HATCHERY_TEST_IMAGE_DIR=${HATCHERY_TEST_IMAGE_DIR})
  endif()
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 NO_PRETTY_VALUES
    PROPERTIES ${properties})
endfunction()
