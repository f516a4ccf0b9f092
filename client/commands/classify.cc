#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

struct ClassifyFlags {
  std::vector<std::string> files;
  uint32_t top_k = 5;
};

std::string NameOf(const v1::Class& one) {
  return one.label().empty() ? absl::StrCat("class ", one.index()) : one.label();
}

void PrintClasses(const std::string& file, const v1::ClassifyResponse& response, bool as_json) {
  if (as_json) {
    nlohmann::ordered_json json;
    SetBytes(json, "file", file);
    json["classes"] = nlohmann::json::array();
    for (const v1::Class& one : response.classes()) {
      json["classes"].push_back(
          {{"index", one.index()}, {"label", one.label()}, {"probability", one.probability()}});
    }
    json["timings"] = ToJson(response.timings());
    PrintBytes(ToLine(json));
    return;
  }
  std::string line = absl::StrCat(file, ":");
  for (const v1::Class& one : response.classes()) {
    absl::StrAppend(&line, " ", NameOf(one), absl::StrFormat(" (%.2f%%)", one.probability() * 100));
  }
  PrintBytes(line + "\n");
}

ExitCode RunClassify(const ClassifyFlags& flags, const Session& session) {
  for (const std::string& file : flags.files) {
    auto image = ReadInput(file);
    if (!image.ok()) return FailUsage(std::string(image.status().message()));
    v1::ClassifyRequest request;
    request.set_model(session.flags.model);
    request.set_image(*std::move(image));
    request.set_top_k(flags.top_k);
    const auto response = session.client.Classify(request, session.call);
    if (!response.ok()) return Fail(response.status());
    PrintClasses(file, *response, session.flags.json);
  }
  return kExitOk;
}

}  // namespace

Command AddClassifyCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand("classify", "What images show, and how likely that is");
  auto flags = std::make_shared<ClassifyFlags>();
  app.add_option("IMAGE", flags->files, "JPEG or PNG files; - for standard input")->required();
  app.add_option("--top-k", flags->top_k, "How many classes to tell")
      ->check(CLI::Range(1u, 1000000u))
      ->capture_default_str();
  return {.app = &app,
          .run = [flags](const Session& session) { return RunClassify(*flags, session); }};
}

}  // namespace evaserve
