#include "server/testing/fake_model_server.h"

#include <civetweb.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/request.h"

namespace evaserve {

FakeModelServer::FakeModelServer(Options options) : before_load_(options.before_load) {
  spdlog::set_level(spdlog::level::warn);
  auto model = std::make_unique<FakeModel>(std::move(options.model));
  control_ = model->control();
  models_["fake"] = std::move(model);
  auto tensors = std::make_unique<FakeTensorModel>();
  tensor_control_ = tensors->control();
  models_["tensors"] = std::move(tensors);
  auto images = std::make_unique<FakeImageModel>();
  image_control_ = images->control();
  models_["images"] = std::move(images);
  options.config.models = {{"fake", "/nowhere/fake"}};
  if (options.serves_tensors) options.config.models.push_back({"tensors", "/nowhere/tensors"});
  if (options.serves_images) options.config.models.push_back({"images", "/nowhere/images"});
  options.config.warmup_tokens = 0;  // tests count the steps
  options.config.address = "127.0.0.1:0";
  options.config.metrics_address = "127.0.0.1:0";
  auto server = Server::Listen(
      options.config,
      [this](const std::filesystem::path& directory, auto&&...) {
        return Load(directory.filename().string());
      },
      options.on_failure);
  EXPECT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  if (before_load_ == nullptr) {
    const absl::Status status = server_->WaitUntilLoaded();
    EXPECT_TRUE(status.ok()) << status;
  }
  const auto channel = Connect();
  evaserve_ = v1::Inference::NewStub(channel);
  open_inference_ = inference::GRPCInferenceService::NewStub(channel);
}

absl::StatusOr<AnyModel> FakeModelServer::Load(const std::string& name) {
  if (before_load_ != nullptr) before_load_(name);
  auto model = models_.extract(name);
  if (model.empty()) return absl::InvalidArgumentError("there is one, and it was loaded");
  return std::move(model.mapped());
}

std::shared_ptr<grpc::Channel> FakeModelServer::Connect() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection for each channel
  // A reader's window stays at 64 KiB, so that a slow one is felt however fast the machine is.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                                   grpc::InsecureChannelCredentials(), arguments);
}

inference::ModelStatistics FakeModelServer::Statistics(const std::string& model) {
  grpc::ClientContext context;
  inference::ModelStatisticsRequest request;
  inference::ModelStatisticsResponse response;
  request.set_name(model);
  EXPECT_TRUE(open_inference_->ModelStatistics(&context, request, &response).ok());
  EXPECT_EQ(response.model_stats_size(), 1);
  return response.model_stats(0);
}

std::string FakeModelServer::Get(const std::string& path) const {
  char error[256] = "";
  mg_connection* connection = mg_download("127.0.0.1", server_->metrics_port(), 0, error,
                                          sizeof(error), "GET %s HTTP/1.0\r\n\r\n", path.c_str());
  if (connection == nullptr) return error;
  std::string answer = absl::StrCat(mg_get_response_info(connection)->status_code, "\n");
  char buffer[4096];
  for (int n; (n = mg_read(connection, buffer, sizeof(buffer))) > 0;) answer.append(buffer, n);
  mg_close_connection(connection);
  return answer;
}

std::string FakeModelServer::GetOnce(const std::string& path, const std::string& start) const {
  for (int i = 0; i < 1000 && !Get(path).starts_with(start); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return Get(path);
}

double FakeModelServer::MetricValue(const std::string& metric) const {
  std::istringstream page(Get("/metrics"));
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with(metric + " ")) return std::stod(line.substr(metric.size() + 1));
  }
  return 0;
}

bool FakeModelServer::WaitForMetric(const std::string& metric, double value) const {
  const TimePoint deadline = Clock::now() + std::chrono::seconds(10);
  while (Clock::now() < deadline) {
    if (MetricValue(metric) == value) return true;
    std::this_thread::yield();
  }
  return false;
}

v1::GenerateRequest GreedyRequest(const std::string& prompt, uint64_t max_new_tokens) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(max_new_tokens);
  return request;
}

GeneratedText ReadAll(grpc::ClientReader<v1::GenerateResponse>& reader) {
  GeneratedText result;
  for (v1::GenerateResponse message; reader.Read(&message); ++result.num_messages) {
    result.text += message.text();
    result.last = message;
  }
  result.status = reader.Finish();
  return result;
}

}  // namespace evaserve
