#include "tests/e2e/test_server.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "models/testing/random_model.h"
#include "tests/e2e/connect_to.h"

namespace evaserve {
namespace {

constexpr int64_t kEndlessTokens = 100'000;

std::unique_ptr<Server> StartServer(Config config, const std::filesystem::path& model_dir) {
  spdlog::set_level(spdlog::level::warn);
  if (config.models.empty()) {
    WriteRandomModel(model_dir, LongTinyConfig());
    config.models = {{.name = "tiny", .directory = model_dir}};
  }
  config.address = "127.0.0.1:0";
  config.metrics_address = "127.0.0.1:0";
  auto server = Server::Start(config);
  if (!server.ok()) {
    fprintf(stderr, "%s\n", server.status().ToString().c_str());
    abort();
  }
  return *std::move(server);
}

}  // namespace

EvaByteConfig LongTinyConfig() {
  EvaByteConfig config = TinyConfig();
  config.max_positions = 1 << 17;
  return config;
}

TestServer::TestServer(Config config)
    : server_(StartServer(std::move(config), model_dir_.path())), client_(target()) {}

std::string TestServer::target() const {
  return "127.0.0.1:" + std::to_string(server_->grpc_port());
}

std::string TestServer::HttpGet(const std::string& path) const {
  const int connection = ConnectTo(server_->metrics_port());
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  send(connection, request.data(), request.size(), MSG_NOSIGNAL);
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(connection, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
  close(connection);
  return answer;
}

double TestServer::Metric(const std::string& name) const {
  double sum = 0;
  std::istringstream lines(HttpGet("/metrics"));
  for (std::string line; std::getline(lines, line);) {
    const bool is_meant = line.rfind(name + "{", 0) == 0 || line.rfind(name + " ", 0) == 0;
    if (is_meant) sum += std::stod(line.substr(line.rfind(' ')));
  }
  return sum;
}

void TestServer::WaitForMetric(const std::string& name, double value) const {
  while (Metric(name) != value) std::this_thread::yield();
}

void TestServer::WaitUntilIdle() const {
  for (const char* name : {"evaserve_running_sequences", "evaserve_waiting_requests",
                           "evaserve_state_pages_used", "evaserve_requests_in_flight"}) {
    WaitForMetric(name, 0);
  }
}

TestServer& SharedServer() {
  static TestServer server;
  return server;
}

v1::GenerateRequest GreedyRequest(const std::string& prompt, int64_t max_new_tokens) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(max_new_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

v1::GenerateRequest EndlessRequest() { return GreedyRequest("abc", kEndlessTokens); }

std::string GenerateAll(Client& client, const v1::GenerateRequest& request) {
  std::string text;
  GenerateStream stream = client.Generate(request);
  while (auto response = stream.Next()) text += response->text();
  if (absl::Status status = stream.Finish(); !status.ok()) {
    fprintf(stderr, "%s\n", status.ToString().c_str());
    abort();
  }
  return text;
}

}  // namespace evaserve
