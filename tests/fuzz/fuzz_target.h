#pragma once

#include <cstddef>
#include <cstdint>

// What libFuzzer calls with one input, and run_seeds.cc with every file of a corpus.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
