#include "models/vision/image_processor.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "models/io/json_fields.h"
#include "models/io/json_file.h"
#include "models/vision/image_decoder.h"

namespace evaserve {
namespace {

constexpr int kMaxTargetSide = 8192;
constexpr std::array<float, 3> kImageNetMean = {0.485f, 0.456f, 0.406f};
constexpr std::array<float, 3> kImageNetStd = {0.229f, 0.224f, 0.225f};

const char* Name(Resample resample) {
  switch (resample) {
    case Resample::kNearest:
      return "nearest";
    case Resample::kBilinear:
      return "bilinear";
    case Resample::kBicubic:
      return "bicubic";
  }
  return "";
}

ImageProcessing DeiTProcessing(int image_size) {
  constexpr int kLargestThatIsNotScaled = 32;
  ImageProcessing processing{.mean = kImageNetMean, .std = kImageNetStd};
  if (image_size <= kLargestThatIsNotScaled) {
    processing.resize_height = processing.resize_width = image_size;
    return processing;
  }
  processing.shortest_edge = static_cast<int>(std::floor(image_size * 256.0 / 224));
  processing.crop_height = processing.crop_width = image_size;
  processing.crop_rounding = CropRounding::kEven;
  return processing;
}

// A size is a number, {"height", "width"}, or, of `size` alone, {"shortest_edge"}. Other keys, such
// as a "longest_edge", would change what an image becomes.
void ReadSize(const nlohmann::json& config, const char* key, JsonFields& fields, int& height,
              int& width, int* shortest_edge) {
  const nlohmann::json& value = config[key];
  const auto fits = [](const nlohmann::json& side) {
    return side.is_number_integer() && side >= 1 && side <= kMaxTargetSide;
  };
  // Whether these are the keys, and their values sides. null is no value.
  const auto has_only = [&](const std::vector<const char*>& names) {
    const auto is_null = [](const nlohmann::json& side) { return side.is_null(); };
    return value.is_object() &&
           std::ssize(value) - std::ranges::count_if(value, is_null) == std::ssize(names) &&
           std::ranges::all_of(
               names, [&](const char* name) { return value.contains(name) && fits(value[name]); });
  };
  if (fits(value)) {
    height = width = value.get<int>();
  } else if (has_only({"height", "width"})) {
    height = value["height"].get<int>();
    width = value["width"].get<int>();
  } else if (shortest_edge != nullptr && has_only({"shortest_edge"})) {
    *shortest_edge = value["shortest_edge"].get<int>();
  } else {
    fields.Fail(key, absl::StrCat("{\"height\": ..., \"width\": ...}",
                                  shortest_edge == nullptr ? "" : " or {\"shortest_edge\": ...}",
                                  ", each 1 to ", kMaxTargetSide));
  }
}

std::array<float, 3> ReadChannels(const nlohmann::json& config, const char* key, JsonFields& fields,
                                  std::array<float, 3> fallback, bool may_be_zero) {
  if (!fields.Has(key)) return fallback;
  const nlohmann::json& value = config[key];
  std::array<float, 3> channels = fallback;
  bool fits = value.is_array() && value.size() == channels.size();
  for (size_t i = 0; fits && i < channels.size(); ++i) {
    fits = value[i].is_number();
    if (fits) channels[i] = value[i].get<float>();
    fits = fits && std::isfinite(channels[i]) && (may_be_zero || channels[i] > 0);
  }
  if (!fits) {
    fields.Fail(key, may_be_zero ? "a list of 3 numbers" : "a list of 3 numbers above 0");
  }
  return channels;
}

Resample ReadResample(JsonFields& fields) {
  const auto number = fields.Integer("resample", static_cast<int>(Resample::kBicubic), 0, 5);
  for (const Resample known : {Resample::kNearest, Resample::kBilinear, Resample::kBicubic}) {
    if (number == static_cast<int>(known)) return known;
  }
  fields.Fail("resample", "0 (nearest), 2 (bilinear) or 3 (bicubic)");
  return Resample::kBicubic;
}

absl::StatusOr<ImageProcessing> Parse(const nlohmann::json& config, const std::string& where) {
  JsonFields fields(config, where);
  ImageProcessing processing;
  if (fields.Boolean("do_resize", true) && fields.Has("size")) {
    ReadSize(config, "size", fields, processing.resize_height, processing.resize_width,
             &processing.shortest_edge);
  }
  processing.resample = ReadResample(fields);
  if (fields.Boolean("do_center_crop", false)) {
    if (!fields.Has("crop_size")) fields.Fail("crop_size", "a size, as do_center_crop is true");
    if (fields.status().ok()) {
      ReadSize(config, "crop_size", fields, processing.crop_height, processing.crop_width,
               /*shortest_edge=*/nullptr);
    }
  }
  const double factor = fields.Number("rescale_factor", 1.0 / 255, 0, 1);
  processing.rescale_factor = fields.Boolean("do_rescale", true) ? static_cast<float>(factor) : 1.f;
  if (fields.Boolean("do_normalize", true)) {
    processing.mean = ReadChannels(config, "image_mean", fields, kImageNetMean, true);
    processing.std = ReadChannels(config, "image_std", fields, kImageNetStd, false);
  }
  if (!fields.status().ok()) return fields.status();
  return processing;
}

// The size that images have in the end, 0 if it is not the same for all.
std::pair<int, int> FinalSize(const ImageProcessing& processing) {
  if (processing.crop_height > 0) return {processing.crop_height, processing.crop_width};
  return {processing.resize_height, processing.resize_width};
}

// What an image is scaled to.
ImageSize ScaledSize(const ImageSize& size, const ImageProcessing& processing) {
  if (processing.resize_height > 0) return {processing.resize_width, processing.resize_height};
  if (processing.shortest_edge == 0) return size;
  const int64_t edge = processing.shortest_edge;
  const int64_t shorter = std::min(size.width, size.height);
  return {size.width * edge / shorter, size.height * edge / shorter};
}

void Normalize(const Image& image, const ImageProcessing& processing, float* pixels) {
  const size_t plane = size_t(image.width) * image.height;
  for (size_t channel = 0; channel < processing.mean.size(); ++channel) {
    for (size_t i = 0; i < plane; ++i) {
      const float x = image.rgb[i * processing.mean.size() + channel] * processing.rescale_factor;
      pixels[channel * plane + i] = (x - processing.mean[channel]) / processing.std[channel];
    }
  }
}

}  // namespace

std::string ImageProcessing::Describe() const {
  std::string text;
  if (resize_height > 0) {
    absl::StrAppend(&text, "resize to ", resize_height, "x", resize_width, " (", Name(resample),
                    "), ");
  } else if (shortest_edge > 0) {
    absl::StrAppend(&text, "resize the shorter side to ", shortest_edge, " (", Name(resample),
                    "), ");
  }
  if (crop_height > 0) absl::StrAppend(&text, "crop ", crop_height, "x", crop_width, ", ");
  absl::StrAppend(&text, "times ", rescale_factor, ", minus [", mean[0], ",", mean[1], ",", mean[2],
                  "], divided by [", std[0], ",", std[1], ",", std[2], "]");
  return text;
}

absl::StatusOr<ImageProcessing> ReadImageProcessing(const std::filesystem::path& directory,
                                                    int image_size) {
  const std::filesystem::path path = directory / "preprocessor_config.json";
  const absl::StatusOr<nlohmann::json> config = ReadJsonObject(path);
  if (absl::IsNotFound(config.status())) return DeiTProcessing(image_size);
  if (!config.ok()) return config.status();
  absl::StatusOr<ImageProcessing> processing = Parse(*config, path.string());
  if (!processing.ok()) return processing.status();
  if (FinalSize(*processing) == std::pair(image_size, image_size)) return processing;
  const auto [height, width] = FinalSize(*processing);
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ": images end as ", height, "x",
                                                 width, ", the model takes ", image_size, "x",
                                                 image_size));
}

absl::StatusOr<int64_t> CountPixels(std::string_view file, const ImageProcessing& processing) {
  const absl::StatusOr<ImageSize> size = ReadImageSize(file);
  if (!size.ok()) return size.status();
  const ImageSize scaled = ScaledSize(*size, processing);
  // Width comes first, so this is the most that there is on the way. A thin strip becomes huge.
  const ImageSize most = {scaled.width, std::max(size->height, scaled.height)};
  if (most.pixels() > kMaxImagePixels) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", size->width, "x", size->height, " pixels, which are ", most.width, "x",
                     most.height, " while they are scaled; allowed are ", kMaxImagePixels));
  }
  return std::max(size->pixels(), most.pixels());
}

absl::Status ProcessImage(std::string_view file, const ImageProcessing& processing, float* pixels) {
  if (const auto count = CountPixels(file, processing); !count.ok()) return count.status();
  absl::StatusOr<Image> image = DecodeImage(file);
  if (!image.ok()) return image.status();
  const ImageSize size = ScaledSize({image->width, image->height}, processing);
  *image = Resize(*image, static_cast<int>(size.width), static_cast<int>(size.height),
                  processing.resample);
  if (processing.crop_height > 0) {
    *image =
        CenterCrop(*image, processing.crop_width, processing.crop_height, processing.crop_rounding);
  }
  Normalize(*image, processing, pixels);
  return absl::OkStatus();
}

}  // namespace evaserve
