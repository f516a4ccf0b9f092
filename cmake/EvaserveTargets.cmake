# evaserve_library(NAME SRCS ... [DEPS ...])      static library evaserve_NAME, alias evaserve::NAME
# evaserve_executable(NAME SRCS ... [DEPS ...])   program NAME
# evaserve_test(NAME SRCS ... [DEPS ...] [LABELS ...] [PREFIX ...])   GoogleTest program, one CTest
#   case per test, its name after PREFIX
function(evaserve_target_options target)
  target_include_directories(${target} PUBLIC "${CMAKE_SOURCE_DIR}")
  # A field without an initialiser has its default, which is what designated initialisers are for.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unused-parameter
    -Wno-missing-field-initializers)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict)  # false alarms: gcc bug 105651
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    target_compile_options(${target} PRIVATE -Wthread-safety)
  endif()
  if(EVASERVE_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

function(evaserve_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(evaserve_${name} STATIC ${ARG_SRCS})
  add_library(evaserve::${name} ALIAS evaserve_${name})
  evaserve_target_options(evaserve_${name})
  target_link_libraries(evaserve_${name} PUBLIC ${ARG_DEPS})
endfunction()

function(evaserve_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  evaserve_target_options(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  if(CMAKE_CXX_FLAGS_DEBUG MATCHES "fsanitize=thread")
    target_link_libraries(${name} PRIVATE evaserve_tsan)
  endif()
endfunction()

# evaserve_test_executable(NAME SRCS ... [DEPS ...]): a GoogleTest program. Its sources are optimised a
# little only, which compiles in less time; the libraries as ever.
function(evaserve_test_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  evaserve_executable(${name} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

function(evaserve_test name)
  if(NOT EVASERVE_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "PREFIX" "SRCS;DEPS;LABELS" ${ARGN})
  evaserve_test_executable(${name} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS})
  set(properties TIMEOUT 300)
  if(ARG_LABELS)
    list(APPEND properties LABELS "${ARG_LABELS}")
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${ARG_PREFIX}" DISCOVERY_TIMEOUT 60
    PROPERTIES ${properties})
endfunction()
