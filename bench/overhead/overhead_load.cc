// Calls ModelInfer of a model that answers OUTPUT0 = INPUT0, checks each answer, and prints one
// line of JSON. One thread does all of it, since the server runs on the same cores.
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/overhead/identity_call.h"
#include "inference/open_inference.grpc.pb.h"
#include "nlohmann/json.hpp"

namespace evaserve {
namespace {

using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;

struct Flags {
  std::string target;
  std::string model = "identity";
  int elements = 256;
  int concurrency = 32;
  int connections = 1;
  double seconds = 1;
  double wait_seconds = 30;
};

// One call at a time, again and again.
struct Call {
  GRPCInferenceService::Stub* stub = nullptr;
  ModelInferRequest request;
  ModelInferResponse response;
  grpc::Status status;
  absl::Time start;
  std::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<ModelInferResponse>> reader;
};

struct Outcome {
  std::vector<double> latencies_us;  // of right answers
  int64_t errors = 0;
  std::string first_error;
  double seconds = 0;
};

// Empty if the answer is right.
std::string ErrorOf(const Call& call) {
  if (!call.status.ok()) return call.status.error_message();
  return WhatIsWrong(call.request, call.response);
}

class Load {
 public:
  explicit Load(const Flags& flags) : calls_(flags.concurrency) {
    for (int i = 0; i < flags.connections; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetMaxReceiveMessageSize(-1);
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // channels alike would share one
      stubs_.push_back(GRPCInferenceService::NewStub(
          grpc::CreateCustomChannel(flags.target, grpc::InsecureChannelCredentials(), arguments)));
    }
    for (size_t i = 0; i < calls_.size(); ++i) {
      calls_[i].stub = stubs_[i % stubs_.size()].get();
      calls_[i].request = MakeIdentityRequest(flags.model, flags.elements);
    }
  }

  // Calls once on each connection, and again until the answers are right, as a server may still be
  // loading its model. What is wrong after `limit`; empty if nothing.
  std::string WaitUntilRight(absl::Duration limit) {
    const absl::Time end = absl::Now() + limit;
    std::string wrong;
    for (size_t i = 0; i < std::min(stubs_.size(), calls_.size());) {
      Start(calls_[i]);
      wrong = ErrorOf(*Next());
      if (wrong.empty()) {
        ++i;
      } else if (absl::Now() > end) {
        return wrong;
      } else {
        absl::SleepFor(absl::Milliseconds(50));
      }
    }
    return "";
  }

  Outcome Run(absl::Duration duration) {
    Outcome outcome;
    const absl::Time begin = absl::Now();
    absl::Time now = begin;
    for (Call& call : calls_) Start(call);
    for (size_t in_flight = calls_.size(); in_flight > 0;) {
      Call& call = *Next();
      now = absl::Now();
      Count(call, now, outcome);
      if (now - begin < duration) {
        Start(call);
      } else {
        --in_flight;
      }
    }
    outcome.seconds = absl::ToDoubleSeconds(now - begin);
    return outcome;
  }

 private:
  void Start(Call& call) {
    MakeDifferent(call.request, ++num_started_);
    call.start = absl::Now();
    call.context.emplace();
    call.context->set_deadline(absl::ToChronoTime(call.start + absl::Seconds(10)));
    call.reader = call.stub->AsyncModelInfer(&*call.context, call.request, &queue_);
    call.reader->Finish(&call.response, &call.status, &call);
  }

  Call* Next() {
    void* call = nullptr;
    bool ok = false;
    queue_.Next(&call, &ok);
    return static_cast<Call*>(call);
  }

  static void Count(const Call& call, absl::Time now, Outcome& outcome) {
    const std::string wrong = ErrorOf(call);
    if (wrong.empty()) {
      outcome.latencies_us.push_back(absl::ToDoubleMicroseconds(now - call.start));
    } else if (++outcome.errors == 1) {
      outcome.first_error = wrong;
    }
  }

  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<GRPCInferenceService::Stub>> stubs_;
  std::vector<Call> calls_;
  int64_t num_started_ = 0;
};

double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at = values.begin() + static_cast<int64_t>(share * (std::ssize(values) - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

void PrintLine(const Flags& flags, const Outcome& outcome) {
  nlohmann::ordered_json line;
  line["concurrency"] = flags.concurrency;
  line["requests"] = outcome.latencies_us.size();
  line["requests_per_s"] = static_cast<double>(outcome.latencies_us.size()) / outcome.seconds;
  line["p50_us"] = Quantile(outcome.latencies_us, 0.5);
  line["p99_us"] = Quantile(outcome.latencies_us, 0.99);
  line["errors"] = outcome.errors;
  if (outcome.errors > 0) line["first_error"] = outcome.first_error;
  printf("%s\n", line.dump().c_str());
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Calls a model that answers what it is sent.", "overhead_load");
  app.add_option("target", flags.target, "HOST:PORT")->required();
  app.add_option("--model", flags.model)->capture_default_str();
  app.add_option("--elements", flags.elements, "INPUT0 is FP32 [1, this]")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--concurrency", flags.concurrency, "Calls in flight")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--connections", flags.connections, "That the calls are spread over")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seconds", flags.seconds)->capture_default_str();
  app.add_option("--wait", flags.wait_seconds, "Seconds until the first answer must be right")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  Load load(flags);
  if (std::string wrong = load.WaitUntilRight(absl::Seconds(flags.wait_seconds)); !wrong.empty()) {
    fprintf(stderr, "%s: %s\n", flags.target.c_str(), wrong.c_str());
    return 1;
  }
  const Outcome outcome = load.Run(absl::Seconds(flags.seconds));
  PrintLine(flags, outcome);
  return outcome.errors > 0 ? 1 : 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }
