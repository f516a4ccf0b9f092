#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/worker_pool.h"
#include "models/eva/layers.h"
#include "models/tensor_model.h"
#include "models/vision/image_processor.h"
#include "models/vision/vision_config.h"

namespace evaserve {

// What an architecture makes of images before its classifier. Not thread-safe.
class ImageNetwork {
 public:
  virtual ~ImageNetwork() = default;

  virtual int image_size() const = 0;    // pixels of a side
  virtual int feature_size() const = 0;  // of the pooled features
  virtual int num_tokens() const = 0;    // of an image in the widest part: what a pass costs

  virtual int64_t weight_bytes() const = 0;

  // From pixels [batch, 3, image_size, image_size] to features [batch, feature_size]. An image's
  // features do not depend on the others of the batch.
  virtual absl::Status Run(const float* pixels, int batch, float* features) = 0;
};

struct VisionModelParts {
  TensorModelInfo info;  // architecture, num_parameters, weight_bytes; the rest is filled in
  std::unique_ptr<ImageNetwork> network;
  LinearLayer head;                 // [num_classes, feature_size]
  std::vector<std::string> labels;  // [num_classes], or none
  ImageProcessing processing;
};

// A model that classifies images. Of its inputs a request has one:
//
//   pixel_values  FP32 [n, 3, size, size]  pixels as the network takes them
//   image         BYTES [n]                JPEG or PNG files, to be processed as the model declares
//
// Images are at most 256 in a request, and have at most 4 * kMaxImagePixels together; CountTokens()
// looks at their headers for that.
//
// Its outputs: logits FP32 [n, num_classes], and embedding FP32 [n, feature_size], the pooled
// features before the classifier.
std::unique_ptr<TensorModel> MakeVisionModel(VisionModelParts parts, WorkerPool& workers);

// Makes a network of a checkpoint's tensors. Errors are the reader's.
using NetworkReader =
    absl::FunctionRef<absl::StatusOr<std::unique_ptr<ImageNetwork>>(TensorReader& reader)>;

// Loads the rest of a directory: weights, their classifier `head`, and how images are processed.
// Errors are LoadModel()'s.
absl::StatusOr<std::unique_ptr<TensorModel>> LoadVisionModel(
    const std::filesystem::path& directory, const char* architecture, const VisionConfig& config,
    const Device& device, WorkerPool& workers, NetworkReader read_network);

}  // namespace evaserve
