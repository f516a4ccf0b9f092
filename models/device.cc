#include "models/device.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace evaserve {

absl::StatusOr<Device> ParseDevice(std::string_view text) {
  constexpr std::string_view kCudaPrefix = "cuda:";
  if (text == "auto") return Device{Device::Kind::kAuto};
  if (text == "cpu") return Device{Device::Kind::kCpu};
  if (text == "cuda") return Device{Device::Kind::kCuda};
  int index = 0;
  if (text.starts_with(kCudaPrefix) &&
      absl::SimpleAtoi(std::string(text.substr(kCudaPrefix.size())), &index) && index >= 0) {
    return Device{Device::Kind::kCuda, index};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device is '", std::string(text), "'; allowed: auto, cpu, cuda, cuda:N"));
}

std::string Name(const Device& device) {
  switch (device.kind) {
    case Device::Kind::kAuto:
      return "auto";
    case Device::Kind::kCpu:
      return "cpu";
    case Device::Kind::kCuda:
      break;
  }
  return absl::StrCat("cuda:", device.index);
}

absl::Status RequireCpu(const Device& device) {
  if (device.kind != Device::Kind::kCuda) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("device is ", Name(device), "; this model runs on the CPU only: auto, cpu"));
}

}  // namespace evaserve
