#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

constexpr int kShownNumbers = 6;  // of a vector, where a person reads it

struct EmbedFlags {
  std::vector<std::string> files;
  bool unnormalized = false;
};

double Dot(const v1::EmbedResponse& a, const v1::EmbedResponse& b) {
  return std::inner_product(a.embedding().begin(), a.embedding().end(), b.embedding().begin(), 0.0);
}

double CosineSimilarity(const v1::EmbedResponse& a, const v1::EmbedResponse& b) {
  return Dot(a, b) / std::sqrt(Dot(a, a) * Dot(b, b));
}

void PrintEmbedding(const std::string& file, const v1::EmbedResponse& response, bool as_json) {
  if (as_json) {
    nlohmann::ordered_json json;
    SetBytes(json, "file", file);
    json["embedding"] = response.embedding();
    json["usage"] = ToJson(response.usage());
    json["timings"] = ToJson(response.timings());
    PrintBytes(ToLine(json));
    return;
  }
  std::string line = absl::StrFormat("%s: %d numbers,", file, response.embedding_size());
  for (int i = 0; i < std::min(kShownNumbers, response.embedding_size()); ++i) {
    line += absl::StrFormat(" %.4f", response.embedding(i));
  }
  PrintBytes(line + (response.embedding_size() > kShownNumbers ? " ...\n" : "\n"));
}

void PrintSimilarity(double cosine_similarity, bool as_json) {
  PrintBytes(as_json ? ToLine({{"cosine_similarity", cosine_similarity}})
                     : absl::StrFormat("cosine similarity %.4f\n", cosine_similarity));
}

ExitCode RunEmbed(const EmbedFlags& flags, const Session& session) {
  std::vector<v1::EmbedResponse> responses;
  for (const std::string& file : flags.files) {
    auto text = ReadInput(file);
    if (!text.ok()) return FailUsage(std::string(text.status().message()));
    v1::EmbedRequest request;
    request.set_model(session.flags.model);
    request.set_text(*std::move(text));
    request.set_unnormalized(flags.unnormalized);
    auto response = session.client.Embed(request, session.call);
    if (!response.ok()) return Fail(response.status());
    PrintEmbedding(file, *response, session.flags.json);
    responses.push_back(*std::move(response));
  }
  if (responses.size() == 2) {
    PrintSimilarity(CosineSimilarity(responses[0], responses[1]), session.flags.json);
  }
  return kExitOk;
}

}  // namespace

Command AddEmbedCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand(
      "embed",
      "A vector for each text, and the cosine similarity if there are two; --json prints "
      "the vectors whole");
  auto flags = std::make_shared<EmbedFlags>();
  app.add_option("FILE", flags->files, "Texts; - for standard input")->required();
  app.add_flag("--unnormalized", flags->unnormalized, "Keep the vectors' lengths");
  return {.app = &app,
          .run = [flags](const Session& session) { return RunEmbed(*flags, session); }};
}

}  // namespace evaserve
