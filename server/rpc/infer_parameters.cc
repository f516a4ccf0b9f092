#include "server/rpc/infer_parameters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/rpc/generate_checks.h"
#include "server/rpc/quoted.h"
#include "server/rpc/refuse.h"

namespace evaserve {
namespace {

using inference::InferParameter;

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

// One parameter as it came.
struct Given {
  const char* name;
  const InferParameter& value;
};

std::string Describe(const InferParameter& value) {
  switch (value.parameter_choice_case()) {
    case InferParameter::kBoolParam:
      return absl::StrCat("bool ", value.bool_param() ? "true" : "false");
    case InferParameter::kInt64Param:
      return absl::StrCat("integer ", value.int64_param());
    case InferParameter::kUint64Param:
      return absl::StrCat("integer ", value.uint64_param());
    case InferParameter::kDoubleParam:
      return absl::StrCat("number ", value.double_param());
    case InferParameter::kStringParam:
      return absl::StrCat("string '", Quoted(value.string_param()), "'");
    case InferParameter::PARAMETER_CHOICE_NOT_SET:
      return "nothing";
  }
  return "nothing";
}

absl::Status RefuseValue(const Given& given, std::string_view allowed) {
  return Refuse(given.name, ": got ", Describe(given.value), ", allowed is ", std::string(allowed));
}

// What a string says, if it is a number to its end: the only fraction that the clients of KServe
// and MLServer can send.
std::optional<double> NumberIn(const std::string& text) {
  double number;
  if (!absl::SimpleAtod(text, &number)) return std::nullopt;
  return number;
}

// A whole number in [0, 2^64), or none.
std::optional<uint64_t> WholeNumber(const InferParameter& value) {
  switch (value.parameter_choice_case()) {
    case InferParameter::kInt64Param:
      if (value.int64_param() < 0) return std::nullopt;
      return static_cast<uint64_t>(value.int64_param());
    case InferParameter::kUint64Param:
      return value.uint64_param();
    case InferParameter::kDoubleParam: {
      const double number = value.double_param();
      if (!(number >= 0 && number < 0x1p64) || number != std::trunc(number)) return std::nullopt;
      return static_cast<uint64_t>(number);
    }
    default:
      return std::nullopt;
  }
}

absl::Status ReadInteger(const Given& given, int64_t min, int64_t max, int64_t& to) {
  const std::optional<uint64_t> number = WholeNumber(given.value);
  if (!number || *number < static_cast<uint64_t>(min) || *number > static_cast<uint64_t>(max)) {
    return RefuseValue(given, absl::StrCat("an integer from ", min, " to ", max));
  }
  to = static_cast<int64_t>(*number);
  return absl::OkStatus();
}

absl::Status ReadNumber(const Given& given, double& to) {
  switch (given.value.parameter_choice_case()) {
    case InferParameter::kInt64Param:
      to = static_cast<double>(given.value.int64_param());
      return absl::OkStatus();
    case InferParameter::kUint64Param:
      to = static_cast<double>(given.value.uint64_param());
      return absl::OkStatus();
    case InferParameter::kDoubleParam:
      to = given.value.double_param();
      return absl::OkStatus();
    case InferParameter::kStringParam:
      if (const std::optional<double> number = NumberIn(given.value.string_param())) {
        to = *number;
        return absl::OkStatus();
      }
      break;
    default:
      break;
  }
  return RefuseValue(given, "a number");
}

absl::Status ReadBool(const Given& given, bool& to) {
  if (!given.value.has_bool_param()) return RefuseValue(given, "a bool");
  to = given.value.bool_param();
  return absl::OkStatus();
}

absl::Status ReadTopK(const Given& given, InferParameters& to) {
  int64_t top_k = 0;
  absl::Status status = ReadInteger(given, 0, std::numeric_limits<int>::max(), top_k);
  to.generate.sampling.top_k = static_cast<int>(top_k);
  return status;
}

absl::Status ReadSeed(const Given& given, InferParameters& to) {
  to.generate.sampling.seed = WholeNumber(given.value);
  if (to.generate.sampling.seed) return absl::OkStatus();
  return RefuseValue(given, "an integer from 0 to 18446744073709551615");
}

absl::Status ReadStop(const Given& given, InferParameters& to) {
  if (!given.value.has_string_param()) return RefuseValue(given, "a string");
  to.generate.stop = {given.value.string_param()};
  return absl::OkStatus();
}

absl::Status ReadTimeout(const Given& given, InferParameters& to) {
  constexpr int64_t kYear = int64_t{365} * 24 * 3600 * 1'000'000;
  int64_t timeout_us = 0;
  absl::Status status = ReadInteger(given, 0, kYear, timeout_us);
  if (timeout_us > 0)
    to.timeout = std::chrono::microseconds(timeout_us);  // 0 is none, as in Triton
  return status;
}

absl::Status ReadPriority(const Given& given, InferParameters& to) {
  int64_t priority = 0;
  absl::Status status = ReadInteger(given, 0, kLeastUrgent, priority);
  if (priority > 0) to.priority = static_cast<int>(priority);  // 0 is the default, as in Triton
  return status;
}

absl::Status RefuseSequence(const Given& given, std::string_view allowed) {
  return absl::UnimplementedError(
      absl::StrCat(given.name, ": got ", Describe(given.value), ", allowed is ",
                   std::string(allowed), ": there are no sequences here, each request is whole"));
}

absl::Status RequireZero(const Given& given, InferParameters& to) {
  if (WholeNumber(given.value) == 0) return absl::OkStatus();
  return RefuseSequence(given, "0");
}

absl::Status RequireFalse(const Given& given, InferParameters& to) {
  if (given.value.has_bool_param() && !given.value.bool_param()) return absl::OkStatus();
  return RefuseSequence(given, "false");
}

struct Reader {
  const char* name;
  absl::Status (*read)(const Given& given, InferParameters& to);
};

// The last kNumTensorReaders are those that Triton's clients may send of their own accord.
constexpr Reader kReaders[] = {
    {"max_tokens",
     [](const Given& given, InferParameters& to) {
       return ReadInteger(given, 1, kMaxInt64, to.generate.max_new_tokens);
     }},
    {"temperature",
     [](const Given& given, InferParameters& to) {
       return ReadNumber(given, to.generate.sampling.temperature);
     }},
    {"top_k", ReadTopK},
    {"top_p", [](const Given& given,
                 InferParameters& to) { return ReadNumber(given, to.generate.sampling.top_p); }},
    {"min_p", [](const Given& given,
                 InferParameters& to) { return ReadNumber(given, to.generate.sampling.min_p); }},
    {"repetition_penalty",
     [](const Given& given, InferParameters& to) {
       return ReadNumber(given, to.generate.sampling.repetition_penalty);
     }},
    {"seed", ReadSeed},
    {"stop", ReadStop},
    {"include_stop_str_in_output",
     [](const Given& given, InferParameters& to) {
       return ReadBool(given, to.generate.include_stop);
     }},
    {"ignore_eos", [](const Given& given,
                      InferParameters& to) { return ReadBool(given, to.generate.ignore_eos); }},
    {"timeout", ReadTimeout},
    {"triton_enable_empty_final_response",
     [](const Given& given, InferParameters& to) {
       return ReadBool(given, to.empty_final_response);
     }},
    {"priority", ReadPriority},
    {"sequence_id", RequireZero},
    {"sequence_start", RequireFalse},
    {"sequence_end", RequireFalse},
};

constexpr size_t kNumTensorReaders = 6;
constexpr std::span<const Reader> kTensorReaders =
    std::span<const Reader>(kReaders).last(kNumTensorReaders);

using Parameters = google::protobuf::Map<std::string, InferParameter>;

std::vector<std::string> NamesOf(std::span<const Reader> readers) {
  std::vector<std::string> names;
  for (const Reader& reader : readers) names.push_back(reader.name);
  return names;
}

const Reader* FindReader(std::string_view name, std::span<const Reader> readers) {
  for (const Reader& reader : readers) {
    if (name == reader.name) return &reader;
  }
  return nullptr;
}

absl::Status Read(const Parameters& parameters, std::span<const Reader> readers,
                  InferParameters& to) {
  for (const auto& [name, value] : parameters) {
    const Reader* reader = FindReader(name, readers);
    if (reader == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("parameters: got '", Quoted(name),
                                                     "', allowed are ",
                                                     absl::StrJoin(NamesOf(readers), ", ")));
    }
    if (absl::Status status = reader->read({reader->name, value}, to); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

TimePoint EarlierDeadline(TimePoint deadline, const InferParameters& parameters) {
  if (!parameters.timeout) return deadline;
  return std::min(deadline, Clock::now() + *parameters.timeout);
}

absl::StatusOr<InferParameters> ParseInferParameters(const Parameters& parameters,
                                                     const SamplingParams& defaults) {
  InferParameters result;
  result.generate.sampling = defaults;
  if (absl::Status status = Read(parameters, kReaders, result); !status.ok()) return status;
  if (absl::Status status = CheckGenerateOptions(result.generate); !status.ok()) return status;
  return result;
}

absl::StatusOr<InferParameters> ParseTensorParameters(const Parameters& parameters) {
  InferParameters result;
  absl::Status status = Read(parameters, kTensorReaders, result);
  if (!status.ok()) return status;
  return result;
}

std::vector<std::string> InferParameterNames() { return NamesOf(kReaders); }

}  // namespace evaserve
