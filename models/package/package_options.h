#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace evaserve {

// What serving.json says of rows of different lengths: the names of the inputs and outputs whose
// second dimension is the row's tokens. Rows lie one after the other in such a tensor, [tokens of
// all rows, ...], and the program takes the tokens of each, INT64 [rows], as its last input. Empty:
// rows that are joined have the same shape.
struct RaggedTensors {
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;

  bool empty() const { return inputs.empty() && outputs.empty(); }
};

// About packages (package_model.h), for LoadOptions.
struct PackageOptions {
  bool are_allowed = false;
  std::filesystem::path torch_library;  // empty: it is looked for
  RaggedTensors ragged;
};

}  // namespace evaserve
