// The model in demo/, on its real text, through the server.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <sstream>

#include "client/score_document.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

const std::filesystem::path kDemo = EVASERVE_DEMO_DIR;
// The bar that the model was trained to.
constexpr double kMostOfXz = 0.85;

std::string ReadFile(const std::filesystem::path& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

class DemoModelTest : public testing::Test {
 protected:
  static Config ServeDemo() {
    Config config;
    config.models = {{.name = "demo", .directory = kDemo / "model"}};
    return config;
  }

  TestServer server_{ServeDemo()};
};

TEST_F(DemoModelTest, PredictsHeldOutTextBetterThanXz) {
  const std::string text = ReadFile(kDemo / "heldout.txt");
  Program xz("/usr/bin/xz", {"-9e", "-c", kDemo / "heldout.txt"});
  ASSERT_EQ(xz.Wait(), 0) << xz.Error();
  const double xz_bits_per_byte = 8.0 * xz.Output().size() / text.size();

  const auto score = ScoreDocument(server_.client(), text, {});

  ASSERT_TRUE(score.ok()) << score.status();
  ASSERT_EQ(score->logprobs.size(), text.size());
  EXPECT_LE(score->bits_per_byte, kMostOfXz * xz_bits_per_byte);
}

TEST_F(DemoModelTest, ContinuesTextWithText) {
  const std::string text =
      GenerateAll(server_.client(), GreedyRequest(ReadFile(kDemo / "prompt.txt"), 200));

  const auto num_readable = std::count_if(
      text.begin(), text.end(), [](unsigned char c) { return std::isprint(c) || std::isspace(c); });
  EXPECT_EQ(num_readable, 200) << text;
}

}  // namespace
}  // namespace evaserve
