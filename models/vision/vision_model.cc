#include "models/vision/vision_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/float_buffer.h"
#include "models/memory_guard.h"
#include "models/vision/image.h"
#include "models/vision/image_decoder.h"

namespace evaserve {
namespace {

constexpr int kPixelValues = 0, kImage = 1;  // inputs
// Tokens that go through the layers together: enough for the kernels, and activations that stay in
// the second-level cache and do not grow with the batch.
constexpr int kTokensPerPass = 1024;
// Images of one request: a small file becomes many pixels.
constexpr int64_t kMaxImages = 256;
constexpr int64_t kMaxRequestPixels = 4 * kMaxImagePixels;

class VisionModel final : public TensorModel {
 public:
  VisionModel(VisionModelParts parts, WorkerPool& workers);

  const TensorModelInfo& info() const override { return parts_.info; }
  absl::StatusOr<int64_t> CountTokens(const Inputs& inputs) const override;
  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override;

 private:
  absl::Status CopyPixels(const Inputs& inputs, float* pixels);
  absl::Status DecodeImages(const InputTensor& images, float* pixels);
  absl::Status RunPasses(const float* pixels, int batch, float* features, float* logits);

  int64_t pixels_per_image() const {
    return int64_t{kImageChannels} * parts_.network->image_size() * parts_.network->image_size();
  }

  VisionModelParts parts_;
  WorkerPool& workers_;
  FloatBuffer pixels_, features_, logits_;
};

VisionModel::VisionModel(VisionModelParts parts, WorkerPool& workers)
    : parts_(std::move(parts)), workers_(workers) {
  const int64_t size = parts_.network->image_size();
  parts_.info.inputs = {
      {.name = "pixel_values",
       .type = TensorType::kFp32,
       .shape = {-1, kImageChannels, size, size},
       .is_optional = true},
      {.name = "image", .type = TensorType::kBytes, .shape = {-1}, .is_optional = true}};
  parts_.info.outputs = {{.name = "logits",
                          .type = TensorType::kFp32,
                          .shape = {-1, parts_.head.out_features()},
                          .labels = parts_.labels},
                         {.name = "embedding",
                          .type = TensorType::kFp32,
                          .shape = {-1, parts_.network->feature_size()}}};
  parts_.info.parameters["image_processing"] = parts_.processing.Describe();
}

int64_t BatchOf(const TensorModel::Inputs& inputs) {
  for (const InputTensor& input : inputs) {
    if (!input.shape.empty()) return input.shape.front();
  }
  return 0;
}

absl::Status CheckInputs(const TensorModel::Inputs& inputs) {
  const InputTensor& images = inputs[kImage];
  if (inputs[kPixelValues].shape.empty() == images.shape.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("inputs: got ", images.shape.empty() ? "none" : "pixel_values and image",
                     ", allowed is one of pixel_values and image"));
  }
  if (images.shape.empty() || images.shape.front() <= kMaxImages) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("image: got ", images.shape.front(), " elements, allowed are ", kMaxImages));
}

OutputTensor Rows(const float* rows, int64_t count, int64_t size) {
  return {{count, size},
          std::string(reinterpret_cast<const char*>(rows), size_t(count * size) * sizeof(float))};
}

absl::Status OfElement(size_t i, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("image: element ", i, ": ", std::string(status.message())));
}

// Reads only the headers of images: they are decoded in Run(), on the workers.
absl::StatusOr<int64_t> VisionModel::CountTokens(const Inputs& inputs) const {
  if (absl::Status status = CheckInputs(inputs); !status.ok()) return status;
  if (inputs[kImage].shape.empty()) return 0;
  const std::vector<std::string_view> files = BytesElements(inputs[kImage].data);
  int64_t sum = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    const absl::StatusOr<int64_t> pixels = CountPixels(files[i], parts_.processing);
    if (!pixels.ok()) return OfElement(i, pixels.status());
    sum += *pixels;
    if (sum > kMaxRequestPixels) {
      return OfElement(i, absl::InvalidArgumentError(
                              absl::StrCat("got ", *pixels, " pixels, with those before it ", sum,
                                           "; a request's images may have ", kMaxRequestPixels)));
    }
  }
  return 0;
}

absl::StatusOr<std::vector<TensorModel::Outputs>> VisionModel::Run(
    std::span<const Inputs* const> requests) {
  int64_t batch = 0;
  for (const Inputs* inputs : requests) {
    if (absl::Status status = CheckInputs(*inputs); !status.ok()) return status;
    batch += BatchOf(*inputs);
  }
  float* pixels = pixels_.Get(batch * pixels_per_image());
  int64_t begin = 0;
  for (const Inputs* inputs : requests) {
    absl::Status status = CopyPixels(*inputs, pixels + begin * pixels_per_image());
    if (!status.ok()) return status;
    begin += BatchOf(*inputs);
  }
  const int64_t feature_size = parts_.network->feature_size();
  const int64_t num_classes = parts_.head.out_features();
  float* features = features_.Get(batch * feature_size);
  float* logits = logits_.Get(batch * num_classes);
  if (absl::Status status = RunPasses(pixels, static_cast<int>(batch), features, logits);
      !status.ok()) {
    return status;
  }
  std::vector<Outputs> results;
  for (const Inputs* inputs : requests) {
    const int64_t count = BatchOf(*inputs);
    results.push_back({Rows(logits, count, num_classes), Rows(features, count, feature_size)});
    logits += count * num_classes;
    features += count * feature_size;
  }
  return results;
}

absl::Status VisionModel::CopyPixels(const Inputs& inputs, float* pixels) {
  if (inputs[kPixelValues].shape.empty()) return DecodeImages(inputs[kImage], pixels);
  std::memcpy(pixels, inputs[kPixelValues].data.data(), inputs[kPixelValues].data.size());
  return absl::OkStatus();
}

absl::Status VisionModel::DecodeImages(const InputTensor& images, float* pixels) {
  const std::vector<std::string_view> files = BytesElements(images.data);
  std::vector<absl::Status> statuses(files.size());
  workers_.Run(static_cast<int>(files.size()), [&](int i, int /*worker*/) {
    statuses[i] = GuardMemory("the image", [&] {
      return ProcessImage(files[i], parts_.processing, pixels + i * pixels_per_image());
    });
  });
  for (size_t i = 0; i < statuses.size(); ++i) {
    if (!statuses[i].ok()) return OfElement(i, statuses[i]);
  }
  return absl::OkStatus();
}

absl::Status VisionModel::RunPasses(const float* pixels, int batch, float* features,
                                    float* logits) {
  const int pass = std::max(1, kTokensPerPass / parts_.network->num_tokens());
  const int64_t feature_size = parts_.network->feature_size();
  for (int begin = 0; begin < batch; begin += pass) {
    if (!is_wanted()()) return absl::CancelledError("nobody waits for the images");
    absl::Status status =
        parts_.network->Run(pixels + begin * pixels_per_image(), std::min(pass, batch - begin),
                            features + begin * feature_size);
    if (!status.ok()) return status;
  }
  Apply(parts_.head, features, batch, logits, workers_);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<TensorModel> MakeVisionModel(VisionModelParts parts, WorkerPool& workers) {
  return std::make_unique<VisionModel>(std::move(parts), workers);
}

absl::StatusOr<std::unique_ptr<TensorModel>> LoadVisionModel(
    const std::filesystem::path& directory, const char* architecture, const VisionConfig& config,
    const Device& device, WorkerPool& workers, NetworkReader read_network) {
  if (absl::Status status = RequireCpu(device); !status.ok()) return status;
  const absl::StatusOr<ImageProcessing> processing =
      ReadImageProcessing(directory, config.image_size);
  if (!processing.ok()) return processing.status();
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  TensorReader reader(*checkpoint);
  absl::StatusOr<std::unique_ptr<ImageNetwork>> network = read_network(reader);
  if (!network.ok()) return network.status();
  LinearLayer head =
      ReadLinear(reader, "head.", {config.num_classes, (*network)->feature_size()}, config.dtype);
  if (!reader.status().ok()) return reader.status();

  VisionModelParts parts;
  parts.info.architecture = architecture;
  parts.info.num_parameters = reader.num_parameters();
  parts.info.weight_bytes = (*network)->weight_bytes() + Bytes(head);
  parts.network = *std::move(network);
  parts.head = std::move(head);
  parts.labels = config.labels;
  parts.processing = *processing;
  return MakeVisionModel(std::move(parts), workers);
}

}  // namespace evaserve
