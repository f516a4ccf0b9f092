#pragma once

#include <memory>
#include <string>

#include "client/client.h"
#include "models/evabyte/config.h"
#include "models/testing/temp_dir.h"
#include "server/server.h"

namespace evaserve {

// A model of a few kilobytes whose sequences may be long enough to be busy for as long as a test
// needs.
EvaByteConfig LongTinyConfig();

// The real server in the test process, on ports of its own, with a random float32 model "tiny" and
// a client. Aborts if it does not start.
class TestServer {
 public:
  // `config` as given, except for addresses and, if it names none, the models.
  explicit TestServer(Config config = {});

  Server& server() { return *server_; }
  Client& client() { return client_; }
  std::string target() const;

  // What GET of `path` on the metrics port answers, headers included.
  std::string HttpGet(const std::string& path) const;

  // The metric's value, added up over its labels; 0 if it is not there.
  double Metric(const std::string& name) const;

  // Waits until the metric has the value.
  void WaitForMetric(const std::string& name, double value) const;

  // Waits until no sequence runs or waits, no page is in use and no request is in flight.
  void WaitUntilIdle() const;

 private:
  TempDir model_dir_;
  std::unique_ptr<Server> server_;
  Client client_;
};

// A server of the default configuration for all tests that leave it as they found it: starting and
// stopping one takes a second or two.
TestServer& SharedServer();

// A greedy generation that does not stop by itself before `max_new_tokens`.
v1::GenerateRequest GreedyRequest(const std::string& prompt, int64_t max_new_tokens);

// As GreedyRequest(), for as long as a test needs.
v1::GenerateRequest EndlessRequest();

// The text of the whole answer; aborts on an error.
std::string GenerateAll(Client& client, const v1::GenerateRequest& request);

}  // namespace evaserve
