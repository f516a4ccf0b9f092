#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "nlohmann/json.hpp"

namespace evaserve {

// A file beside this one; make_vectors.py writes them.
inline std::filesystem::path VectorFile(const std::string& name) {
  return std::filesystem::path(EVASERVE_TEXT_VECTORS) / name;
}

inline nlohmann::json ReadVectors(const std::string& name) {
  std::ifstream file(VectorFile(name));
  return nlohmann::json::parse(file);
}

}  // namespace evaserve
