#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

void PrintText(const v1::Model& model) {
  std::string line =
      absl::StrFormat("%s version %s: %s", model.name(), model.version(), model.state());
  if (model.state() == "READY") {
    line += absl::StrFormat(", %s, %d parameters", model.architecture(), model.parameters());
    if (!model.dtype().empty()) line += ", " + model.dtype();
    if (model.max_seq_len() > 0) {
      line += absl::StrFormat(", up to %d %ss, window %d, chunk %d, embeddings of %d",
                              model.max_seq_len(), model.token().empty() ? "token" : model.token(),
                              model.window(), model.chunk(), model.embedding_size());
    }
  }
  if (!model.reason().empty()) line += ", " + model.reason();
  PrintBytes(line + "\n");
}

ExitCode RunModels(const Session& session) {
  const auto models = session.client.ListModels(session.call);
  if (!models.ok()) return Fail(models.status());
  for (const v1::Model& model : *models) {
    if (session.flags.json) {
      PrintBytes(ToLine(ToJson(model)));
    } else {
      PrintText(model);
    }
  }
  return kExitOk;
}

}  // namespace

Command AddModelsCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand("models", "What the server serves");
  return {.app = &app, .run = RunModels};
}

}  // namespace evaserve
