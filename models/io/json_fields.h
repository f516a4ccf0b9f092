#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// Reads the fields of one JSON object and keeps the first error, so that a reader is a list of
// fields with one check at its end. An absent key and null are the same. Not thread-safe.
class JsonFields {
 public:
  // `where` begins every error message. `object` must outlive this; if it is no object, that is the
  // first error.
  JsonFields(const nlohmann::json& object, std::string where);

  const absl::Status& status() const { return status_; }

  bool Has(const char* key) const;

  // The value of `key`, or `fallback` if it is absent. An error if it is of another type or out of
  // [min, max].
  int64_t Integer(const char* key, std::optional<int64_t> fallback, int64_t min, int64_t max);
  double Number(const char* key, std::optional<double> fallback, double min, double max);
  bool Boolean(const char* key, bool fallback);
  std::string String(const char* key, const std::string& fallback);

  // One integer or a list of them.
  std::vector<int64_t> Integers(const char* key, std::vector<int64_t> fallback, int64_t min,
                                int64_t max);

  // A list of strings.
  std::vector<std::string> Strings(const char* key, std::vector<std::string> fallback);

  // The object of `key`, or null if it is absent. An error if it is something else.
  const nlohmann::json* Object(const char* key);

  // An error about `key`, unless there was one before.
  void Fail(const char* key, const std::string& allowed);

 private:
  const nlohmann::json* Find(const char* key) const;

  const nlohmann::json& object_;
  std::string where_;
  absl::Status status_;
};

}  // namespace evaserve
