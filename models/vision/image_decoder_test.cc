#include "models/vision/image_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <turbojpeg.h>
#include <zlib.h>

#include <memory>

#include "absl/strings/escaping.h"
#include "models/testing/status_matchers.h"
#include "models/vision/testing/pattern.h"
#include "models/vision/testing/png_file.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

// PNG files of 3x2 pixels that Pillow wrote, in hexadecimal, and the colours it reads from them.
constexpr char kRgbPng[] =
    "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000001d49444154789c63"
    "b0896bdcc21377ac8f8525fdd1ebc7a7eeb9b3f9030054df08f10454e57f0000000049454e44ae426082";
constexpr char kGreyPng[] =
    "89504e470d0a1a0a0000000d4948445200000003000000020800000000b81f39c60000001049444154789c63"
    "8cf8e0cec21da502000a84021e4896ad4a0000000049454e44ae426082";
constexpr char kGreyPixels[] = "5858584848488f8f8f636363b2b2b2d6d6d6";
constexpr char kAlphaPng[] =
    "89504e470d0a1a0a0000000d49484452000000030000000208060000009d74661a0000002349444154789c63"
    "b0896b14dcc2132778ac8f459025fdd16b86c7a7ee31b8b3f9330000766d0924e2cf951e0000000049454e44"
    "ae426082";
constexpr char kPalettePng[] =
    "89504e470d0a1a0a0000000d4948445200000003000000020203000000e01a8e890000000c504c5445c9d948"
    "c68e043c5e81ac2665f7a258910000000c49444154789c63d8c2c40300023000c324b219a90000000049454e"
    "44ae426082";
constexpr char kPalettePixels[] = "3c5e81ac2665c68e04ac2665c9d948c9d948";
// Of 3x1 pixels of 16 bits: 0, 65535, 32768.
constexpr char k16BitPng[] =
    "89504e470d0a1a0a0000000d49484452000000030000000110000000006e1b972b0000000f49444154789c63"
    "6060f8ffbf8101000800027f64b73d8e0000000049454e44ae426082";

std::string HexOf(const Image& image) {
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(image.rgb.data()), image.rgb.size()});
}

Image DecodeHex(const char* hex) {
  const auto image = DecodeImage(absl::HexStringToBytes(hex));
  EXPECT_TRUE(image.ok()) << image.status();
  return image.value_or(Image());
}

std::string Jpeg(const Image& image, int format) {
  const std::unique_ptr<void, int (*)(tjhandle)> encoder(tjInitCompress(), tjDestroy);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  EXPECT_EQ(tjCompress2(encoder.get(), image.rgb.data(), image.width, 0, image.height, format,
                        &bytes, &size, format == TJPF_GRAY ? TJSAMP_GRAY : TJSAMP_444, 95, 0),
            0);
  std::string file(reinterpret_cast<char*>(bytes), size);
  tjFree(bytes);
  return file;
}

TEST(DecodeImageTest, ReadsPngsOfEveryKind) {
  EXPECT_EQ(DecodeHex(kRgbPng).rgb, Pattern(3, 2).rgb);
  EXPECT_EQ(HexOf(DecodeHex(kGreyPng)), kGreyPixels);
  EXPECT_EQ(HexOf(DecodeHex(kPalettePng)), kPalettePixels);
  EXPECT_THAT(DecodeHex(k16BitPng).rgb, ElementsAre(0, 0, 0, 255, 255, 255, 128, 128, 128));
}

TEST(DecodeImageTest, DropsTheAlphaChannelAsItIs) {
  EXPECT_EQ(DecodeHex(kAlphaPng).rgb, Pattern(3, 2).rgb);
}

TEST(DecodeImageTest, ReadsJpegs) {
  Image image{24, 16};
  for (int i = 0; i < image.width * image.height; ++i) {
    image.rgb.insert(image.rgb.end(), {200, 100, 50});
  }
  const auto decoded = DecodeImage(Jpeg(image, TJPF_RGB));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->width, 24);
  EXPECT_EQ(decoded->height, 16);
  for (size_t i = 0; i < image.rgb.size(); ++i) EXPECT_NEAR(decoded->rgb[i], image.rgb[i], 2) << i;
}

TEST(DecodeImageTest, MakesGreyJpegsGrey) {
  const auto decoded = DecodeImage(Jpeg({8, 8, std::vector<uint8_t>(64, 77)}, TJPF_GRAY));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->rgb.size(), 8u * 8 * 3);
  EXPECT_THAT(decoded->rgb, Each(77));
}

TEST(DecodeImageTest, RefusesWhatIsNoImage) {
  for (const std::string& file : {std::string(), std::string("GIF89a"), std::string(1000, '\0')}) {
    EXPECT_THAT(DecodeImage(file).status(), IsError(kInvalid, "neither a JPEG nor a PNG")) << file;
  }
}

TEST(DecodeImageTest, RefusesFilesThatAreCutAnywhere) {
  const std::string png = absl::HexStringToBytes(kRgbPng);
  // The last chunk, after which nothing comes, has 12 bytes.
  for (size_t size = 8; size < png.size() - 12; ++size) {
    EXPECT_THAT(DecodeImage(png.substr(0, size)).status(), IsError(kInvalid, "PNG")) << size;
  }
  const std::string jpeg = Jpeg(Pattern(24, 16), TJPF_RGB);
  for (size_t size = 3; size < jpeg.size() - 2; ++size) {
    EXPECT_THAT(DecodeImage(jpeg.substr(0, size)).status(), IsError(kInvalid, "JPEG")) << size;
  }
}

// A grey progressive JPEG of 8x8 pixels whose coefficients, all 0, come a bit at a time: 14 scans
// for each of 63.
std::string ScannedJpeg(int num_scans) {
  const std::string one_code = absl::HexStringToBytes(
      "01000000000000000000000000000000"
      "00");
  std::string file = absl::HexStringToBytes("ffd8ffdb004300") + std::string(64, '\1') +
                     absl::HexStringToBytes("ffc2000b080008000801011100") +
                     absl::HexStringToBytes("ffc4001400") + one_code +
                     absl::HexStringToBytes("ffc4001410") + one_code;
  const auto add_scan = [&](int coefficient, int bits_before, int bits) {
    file += absl::HexStringToBytes("ffda0008010100");
    file.append(2, static_cast<char>(coefficient));
    file += static_cast<char>(bits_before << 4 | bits);
    file += '\x7f';
  };
  add_scan(0, 0, 0);
  for (int i = 1; i < num_scans; ++i) {
    const int bits = 13 - (i - 1) % 14;
    add_scan(1 + (i - 1) / 14, bits == 13 ? 0 : bits + 1, bits);
  }
  return file + "\xff\xd9";
}

TEST(DecodeImageTest, RefusesJpegsWithEndlessScans) {
  const auto decoded = DecodeImage(ScannedJpeg(400));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->rgb, Each(128));
  EXPECT_THAT(DecodeImage(ScannedJpeg(800)).status(), IsError(kInvalid, "more than 500 scans"));
}

TEST(DecodeImageTest, RefusesCmyk) {
  const std::string file = Jpeg({8, 8, std::vector<uint8_t>(256, 77)}, TJPF_CMYK);
  EXPECT_THAT(DecodeImage(file).status(), IsError(kInvalid, "CMYK"));
}

std::string PngChunk(const std::string& type, const std::string& data) {
  const auto big_endian = [](uLong value) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
    return bytes;
  };
  const std::string body = type + data;
  const uLong crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), body.size());
  return big_endian(data.size()) + body + big_endian(crc);
}

// Of this process so far, in KiB.
long MostMemory() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(DecodeImageTest, DoesNotUnpackTextsOfPngs) {
  constexpr size_t kHeaderEnd = 33;
  const std::string text(7 << 20, 'a');
  std::string packed(text.size(), '\0');
  uLongf packed_size = packed.size();
  ASSERT_EQ(compress(reinterpret_cast<Bytef*>(packed.data()), &packed_size,
                     reinterpret_cast<const Bytef*>(text.data()), text.size()),
            Z_OK);
  packed.resize(packed_size);
  std::string png = absl::HexStringToBytes(kRgbPng);
  for (int i = 0; i < 50; ++i) {
    png.insert(kHeaderEnd, PngChunk("zTXt", "comment" + std::string(2, '\0') + packed));
  }
  const long before = MostMemory();

  const auto image = DecodeImage(png);

  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->rgb, Pattern(3, 2).rgb);
  EXPECT_LT(MostMemory() - before, 100 << 10);
}

TEST(DecodeImageTest, TakesPixelsAsTheyAreWhateverTheirGamma) {
  constexpr size_t kHeaderEnd = 33;
  const auto with = [](const std::string& type, const std::string& data) {
    std::string png = absl::HexStringToBytes(kRgbPng);
    return DecodeImage(png.insert(kHeaderEnd, PngChunk(type, data)));
  };
  const std::string linear = {0, 1, '\x86', '\xa0'};  // 100000
  for (const auto& image : {with("gAMA", linear), with("sBIT", "\4\4\4")}) {
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->rgb, Pattern(3, 2).rgb);
  }
}

// A header alone may ask for gigabytes.
TEST(DecodeImageTest, RefusesSizesBeyondTheLimit) {
  std::string png = absl::HexStringToBytes(kRgbPng);
  constexpr size_t kWidth = 16, kHeaderCrc = 29;
  png.replace(kWidth, 8, std::string("\0\0\xff\xff\0\0\xff\xff", 8));
  png.replace(kHeaderCrc, 4, absl::HexStringToBytes("39674e07"));
  EXPECT_THAT(DecodeImage(png).status(), IsError(kInvalid, "65535x65535 pixels, allowed are"));
  EXPECT_THAT(ReadImageSize(png).status(), IsError(kInvalid, "65535x65535 pixels, allowed are"));
}

TEST(ReadImageSizeTest, LooksAtTheHeaderOnly) {
  const std::string png = PngFile(Pattern(40, 30)).substr(0, 24);
  const std::string jpeg = Jpeg(Pattern(40, 30), TJPF_RGB).substr(0, 1000);
  for (const std::string& file : {png, jpeg}) {
    const auto size = ReadImageSize(file);
    ASSERT_TRUE(size.ok()) << size.status();
    EXPECT_EQ(size->width, 40);
    EXPECT_EQ(size->height, 30);
    EXPECT_THAT(DecodeImage(file).status(), IsError(kInvalid, "not a readable"));
  }
}

TEST(ReadImageSizeTest, RefusesWhatHasNoHeader) {
  EXPECT_THAT(ReadImageSize("\x89PNG\r\n\x1a\n").status(), IsError(kInvalid, "PNG: no header"));
  EXPECT_THAT(ReadImageSize("\xff\xd8\xff").status(), IsError(kInvalid, "not a readable JPEG"));
  EXPECT_THAT(ReadImageSize("GIF89a").status(), IsError(kInvalid, "neither a JPEG nor a PNG"));
}

}  // namespace
}  // namespace evaserve
