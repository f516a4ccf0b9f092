#include "models/vision/image_decoder.h"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr std::string_view kPngBegin = "\x89PNG\r\n\x1a\n";
constexpr std::string_view kJpegBegin = "\xff\xd8\xff";
constexpr int kRgba = 4;

absl::Status Damaged(const char* format, const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("not a readable ", format, ": ", why));
}

absl::Status NoImage(std::string_view file) {
  return absl::InvalidArgumentError(
      absl::StrCat("got ", file.size(), " bytes that are neither a JPEG nor a PNG file"));
}

absl::StatusOr<ImageSize> CheckedSize(int64_t width, int64_t height) {
  if (width > 0 && height > 0 && width <= kMaxImagePixels / height) {
    return ImageSize{width, height};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("got ", width, "x", height, " pixels, allowed are ", kMaxImagePixels));
}

using JpegDecoder = std::unique_ptr<void, int (*)(tjhandle)>;

absl::StatusOr<ImageSize> ReadJpegSize(std::string_view file, const JpegDecoder& decoder) {
  if (decoder == nullptr) return absl::ResourceExhaustedError("no memory for an image decoder");
  int width = 0, height = 0, subsampling = 0, color_space = 0;
  if (tjDecompressHeader3(decoder.get(), reinterpret_cast<const unsigned char*>(file.data()),
                          file.size(), &width, &height, &subsampling, &color_space) != 0 ||
      width <= 0) {
    return Damaged("JPEG", tjGetErrorStr2(decoder.get()));
  }
  if (color_space == TJCS_CMYK || color_space == TJCS_YCCK) {
    return Damaged("JPEG", "its colours are CMYK, allowed are RGB and grey");
  }
  return CheckedSize(width, height);
}

absl::StatusOr<Image> DecodeJpeg(std::string_view file) {
  const JpegDecoder decoder(tjInitDecompress(), tjDestroy);
  const absl::StatusOr<ImageSize> size = ReadJpegSize(file, decoder);
  if (!size.ok()) return size.status();
  const auto* bytes = reinterpret_cast<const unsigned char*>(file.data());
  Image image{.width = static_cast<int>(size->width), .height = static_cast<int>(size->height)};
  image.rgb.resize(size_t(image.width) * image.height * kImageChannels);
  // A cut file is only a warning to the library, which makes the rest grey. Without the limit a
  // progressive file may go over all pixels some thousand times, with a few bytes for each.
  constexpr int kFlags = TJFLAG_STOPONWARNING | TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS;
  if (tjDecompress2(decoder.get(), bytes, file.size(), image.rgb.data(), image.width, /*pitch=*/0,
                    image.height, TJPF_RGB, kFlags) != 0) {
    return Damaged("JPEG", tjGetErrorStr2(decoder.get()));
  }
  return image;
}

uint32_t BigEndian(std::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

// Of a PNG file's chunks the first is the header, which begins with width and height.
absl::StatusOr<ImageSize> ReadPngSize(std::string_view file) {
  constexpr size_t kType = 12, kWidth = 16, kHeight = 20, kEnd = 24;
  if (file.size() < kEnd || file.substr(kType, 4) != "IHDR") return Damaged("PNG", "no header");
  return CheckedSize(BigEndian(file.substr(kWidth, 4)), BigEndian(file.substr(kHeight, 4)));
}

// The file with what makes its pixels alone. The library unpacks and keeps texts: some megabytes of
// them become gigabytes. And it would convert colours by gAMA and the like, as Pillow, and so what
// a model was trained with, does not.
std::string PixelChunks(std::string_view file) {
  constexpr size_t kLength = 4, kType = 4, kCrc = 4;
  std::string kept(kPngBegin);
  file.remove_prefix(kPngBegin.size());
  while (file.size() >= kLength + kType) {
    const std::string_view type = file.substr(kLength, kType);
    const size_t size = kLength + kType + BigEndian(file.substr(0, kLength)) + kCrc;
    const bool is_critical = type[0] >= 'A' && type[0] <= 'Z';
    if (is_critical || type == "tRNS") kept += file.substr(0, size);
    file.remove_prefix(std::min(size, file.size()));
  }
  return kept;
}

absl::StatusOr<Image> DecodePng(std::string_view file) {
  if (const auto size = ReadPngSize(file); !size.ok()) return size.status();
  const std::string chunks = PixelChunks(file);
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, void (*)(png_image*)> closing(&png, png_image_free);
  if (png_image_begin_read_from_memory(&png, chunks.data(), chunks.size()) == 0) {
    return Damaged("PNG", png.message);
  }
  png.format = PNG_FORMAT_RGBA;  // as RGB the library would mix a background in
  png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  std::vector<uint8_t> rgba(PNG_IMAGE_SIZE(png));
  if (png_image_finish_read(&png, nullptr, rgba.data(), 0, nullptr) == 0) {
    return Damaged("PNG", png.message);
  }
  Image image{.width = static_cast<int>(png.width), .height = static_cast<int>(png.height)};
  image.rgb.reserve(rgba.size() / kRgba * kImageChannels);
  for (size_t i = 0; i < rgba.size(); i += kRgba) {
    image.rgb.insert(image.rgb.end(), &rgba[i], &rgba[i] + kImageChannels);
  }
  return image;
}

}  // namespace

absl::StatusOr<ImageSize> ReadImageSize(std::string_view file) {
  if (file.starts_with(kJpegBegin)) return ReadJpegSize(file, {tjInitDecompress(), tjDestroy});
  if (file.starts_with(kPngBegin)) return ReadPngSize(file);
  return NoImage(file);
}

absl::StatusOr<Image> DecodeImage(std::string_view file) {
  if (file.starts_with(kJpegBegin)) return DecodeJpeg(file);
  if (file.starts_with(kPngBegin)) return DecodePng(file);
  return NoImage(file);
}

}  // namespace evaserve
