#include "models/io/json_fields.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/json_file.h"

namespace evaserve {
namespace {

std::optional<int64_t> WholeNumber(const nlohmann::json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return std::nullopt;
  }
  return value.get<int64_t>();
}

}  // namespace

JsonFields::JsonFields(const nlohmann::json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (object.is_object()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(where_, " is ", JsonExcerpt(object), "; allowed: an object"));
}

const nlohmann::json* JsonFields::Find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::Has(const char* key) const { return Find(key) != nullptr; }

std::vector<std::string> JsonFields::Strings(const char* key, std::vector<std::string> fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  const bool are_strings = value->is_array() && std::ranges::all_of(*value, [](const auto& item) {
                             return item.is_string();
                           });
  if (are_strings) return value->get<std::vector<std::string>>();
  Fail(key, "a list of strings");
  return fallback;
}

const nlohmann::json* JsonFields::Object(const char* key) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || value->is_object()) return value;
  Fail(key, "an object");
  return nullptr;
}

void JsonFields::Fail(const char* key, const std::string& allowed) {
  if (!status_.ok()) return;
  const nlohmann::json* value = Find(key);
  status_ = absl::InvalidArgumentError(
      absl::StrCat(where_, ": \"", key, "\" is ",
                   value == nullptr ? "missing" : JsonExcerpt(*value), "; allowed: ", allowed));
}

int64_t JsonFields::Integer(const char* key, std::optional<int64_t> fallback, int64_t min,
                            int64_t max) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr && fallback) return *fallback;
  const std::optional<int64_t> number = value ? WholeNumber(*value) : std::nullopt;
  if (!number || *number < min || *number > max) {
    Fail(key, absl::StrCat("a whole number from ", min, " to ", max));
    return fallback.value_or(min);
  }
  return *number;
}

double JsonFields::Number(const char* key, std::optional<double> fallback, double min, double max) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr && fallback) return *fallback;
  // The negation also refuses what is not comparable.
  if (value == nullptr || !value->is_number() ||
      !(value->get<double>() >= min && value->get<double>() <= max)) {
    Fail(key, absl::StrCat("a number from ", min, " to ", max));
    return fallback.value_or(min);
  }
  return value->get<double>();
}

bool JsonFields::Boolean(const char* key, bool fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    Fail(key, "true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::string JsonFields::String(const char* key, const std::string& fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    Fail(key, "a string");
    return fallback;
  }
  return value->get<std::string>();
}

std::vector<int64_t> JsonFields::Integers(const char* key, std::vector<int64_t> fallback,
                                          int64_t min, int64_t max) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  std::vector<int64_t> numbers;
  const auto take = [&](const nlohmann::json& item) {
    const std::optional<int64_t> number = WholeNumber(item);
    if (!number || *number < min || *number > max) {
      Fail(key, absl::StrCat("whole numbers from ", min, " to ", max));
    }
    numbers.push_back(number.value_or(min));
  };
  if (value->is_array()) {
    for (const nlohmann::json& item : *value) take(item);
  } else {
    take(*value);
  }
  return numbers;
}

}  // namespace evaserve
