// Every RPC that infers, ended in every way in every phase: the client gets the status of the table
// in docs/api.md, the metrics count it once, and nothing is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_test_util.h"
#include "server/testing/fake_model_server.h"

namespace evaserve {
namespace {

using grpc::StatusCode;
using std::chrono::milliseconds;
using std::chrono::system_clock;

// How an RPC is called, to its end; errors in a stream's messages count as its status.
using Call = grpc::Status (*)(FakeModelServer& server, grpc::ClientContext& context);

constexpr uint64_t kNewTokens = 4;
const char kPrompt[] = "abc";

grpc::Status CallGenerate(FakeModelServer& server, grpc::ClientContext& context) {
  v1::GenerateRequest request = GreedyRequest(kPrompt, kNewTokens);
  request.set_model("fake");
  return ReadAll(*server.evaserve().Generate(&context, request)).status;
}

grpc::Status CallGenerateStream(FakeModelServer& server, grpc::ClientContext& context) {
  const auto stream = server.evaserve().GenerateStream(&context);
  v1::GenerateStreamRequest request;
  v1::GenerateRequest& prompt = *request.mutable_begin()->mutable_request();
  prompt = GreedyRequest(kPrompt, kNewTokens);
  prompt.set_model("fake");
  stream->Write(request);
  stream->WritesDone();
  grpc::Status error;
  for (v1::GenerateStreamResponse message; stream->Read(&message);) {
    if (message.has_error()) {
      error = {static_cast<StatusCode>(message.error().code()), message.error().message()};
    }
  }
  const grpc::Status status = stream->Finish();
  return status.ok() ? error : status;
}

grpc::Status CallScore(FakeModelServer& server, grpc::ClientContext& context) {
  v1::ScoreRequest request;
  request.set_model("fake");
  request.set_text(kPrompt);
  v1::ScoreResponse response;
  return server.evaserve().Score(&context, request, &response);
}

grpc::Status CallEmbed(FakeModelServer& server, grpc::ClientContext& context) {
  v1::EmbedRequest request;
  request.set_model("fake");
  request.set_text(kPrompt);
  v1::EmbedResponse response;
  return server.evaserve().Embed(&context, request, &response);
}

grpc::Status CallClassify(FakeModelServer& server, grpc::ClientContext& context) {
  v1::ClassifyRequest request;
  request.set_model("images");
  request.set_image(kPrompt);
  v1::ClassifyResponse response;
  return server.evaserve().Classify(&context, request, &response);
}

inference::ModelInferRequest TextRequest() {
  inference::ModelInferRequest request = InferRequest({kPrompt});
  (*request.mutable_parameters())["max_tokens"].set_int64_param(kNewTokens);
  return request;
}

grpc::Status Infer(FakeModelServer& server, grpc::ClientContext& context,
                   const inference::ModelInferRequest& request) {
  inference::ModelInferResponse response;
  return server.open_inference().ModelInfer(&context, request, &response);
}

StatusCode CodeNamed(const std::string& name) {
  for (int code = 0; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    if (absl::StatusCodeToString(static_cast<absl::StatusCode>(code)) == name) {
      return static_cast<StatusCode>(code);
    }
  }
  return StatusCode::UNKNOWN;
}

grpc::Status StreamInfer(FakeModelServer& server, grpc::ClientContext& context,
                         const inference::ModelInferRequest& request) {
  const auto stream = server.open_inference().ModelStreamInfer(&context);
  stream->Write(request);
  stream->WritesDone();
  grpc::Status error;
  for (inference::ModelStreamInferResponse message; stream->Read(&message);) {
    if (message.error_message().empty()) continue;
    const auto& code = message.infer_response().parameters().at("error_code").string_param();
    error = {CodeNamed(code), message.error_message()};
  }
  const grpc::Status status = stream->Finish();
  return status.ok() ? error : status;
}

struct Rpc {
  const char* name;    // of the test
  const char* method;  // in the metrics
  const char* model;
  bool decodes;
  Call call;
};

const Rpc kRpcs[] = {
    {"Generate", "Generate", "fake", true, CallGenerate},
    {"GenerateStream", "GenerateStream", "fake", true, CallGenerateStream},
    {"Score", "Score", "fake", false, CallScore},
    {"Embed", "Embed", "fake", false, CallEmbed},
    {"Classify", "Classify", "images", false, CallClassify},
    {"Infer", "ModelInfer", "fake", true,
     [](FakeModelServer& server, grpc::ClientContext& context) {
       return Infer(server, context, TextRequest());
     }},
    {"StreamInfer", "ModelStreamInfer", "fake", true,
     [](FakeModelServer& server, grpc::ClientContext& context) {
       return StreamInfer(server, context, TextRequest());
     }},
    {"InferTensors", "ModelInfer", "tensors", false,
     [](FakeModelServer& server, grpc::ClientContext& context) {
       return Infer(server, context, TensorInferRequest(kPrompt));
     }},
    {"StreamInferTensors", "ModelStreamInfer", "tensors", false,
     [](FakeModelServer& server, grpc::ClientContext& context) {
       return StreamInfer(server, context, TensorInferRequest(kPrompt));
     }},
};

enum class Phase { kWaiting, kPrefill, kDecoding };
// After kShutdown calls have time to end, after kShutdownNow they have none.
enum class Ending { kCancel, kDeadline, kError, kShutdown, kShutdownNow };

struct Case {
  Rpc rpc;
  Phase phase;
  Ending ending;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Rpc& rpc : kRpcs) {
    for (Phase phase : {Phase::kWaiting, Phase::kPrefill, Phase::kDecoding}) {
      if (phase == Phase::kDecoding && !rpc.decodes) continue;
      for (Ending ending : {Ending::kCancel, Ending::kDeadline, Ending::kError, Ending::kShutdown,
                            Ending::kShutdownNow}) {
        cases.push_back({rpc, phase, ending});
      }
    }
  }
  return cases;
}

std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  const char* const phases[] = {"Waiting", "Prefill", "Decoding"};
  const char* const endings[] = {"Cancel", "Deadline", "Error", "Shutdown", "ShutdownNow"};
  return absl::StrCat(info.param.rpc.name, phases[static_cast<int>(info.param.phase)],
                      endings[static_cast<int>(info.param.ending)]);
}

class EndingTest : public ::testing::TestWithParam<Case> {
 protected:
  static FakeModelServer::Options Options() {
    FakeModelServer::Options options;
    options.serves_tensors = options.serves_images = true;
    options.config.max_running = 1;
    if (GetParam().ending == Ending::kShutdownNow) {
      options.config.drain_timeout = std::chrono::seconds(0);
    }
    return options;
  }

  // From here on no step of the model ends until Release().
  void Hold() {
    server_.control().Hold();
    server_.tensor_control().Hold();
    server_.image_control().Hold();
  }
  void Release() {
    server_.control().Release();
    server_.tensor_control().Release();
    server_.image_control().Release();
  }
  void WaitUntilHeld() {
    const std::string model = GetParam().rpc.model;
    if (model == "fake") server_.control().WaitUntilHeld();
    if (model == "tensors") server_.tensor_control().WaitUntilHeld();
    if (model == "images") server_.image_control().WaitUntilHeld();
  }

  std::future<grpc::Status> Start(grpc::ClientContext& context, Call call) {
    return std::async(std::launch::async,
                      [this, &context, call] { return call(server_, context); });
  }

  // Brings the call under test to its phase.
  void StartAndReachPhase() {
    const Case& one = GetParam();
    Hold();
    if (one.phase == Phase::kWaiting) {
      other_ = Start(other_context_, one.rpc.call);
      WaitUntilHeld();
    }
    if (one.ending == Ending::kDeadline) {
      context_.set_deadline(system_clock::now() + milliseconds(250));
    }
    tested_ = Start(context_, one.rpc.call);
    if (one.phase == Phase::kWaiting) {
      ASSERT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 2));
      return;
    }
    WaitUntilHeld();
    if (one.phase == Phase::kDecoding) {
      server_.control().AllowSteps(1);
      server_.control().WaitForSteps(1);
      WaitUntilHeld();
    }
  }

  // What the client has sent reaches the server before calls on the same connection do.
  void LetServerHear() {
    constexpr int kCalls = 50;
    for (int i = 0; i < kCalls; ++i) {
      grpc::ClientContext context;
      inference::ServerLiveResponse response;
      server_.open_inference().ServerLive(&context, {}, &response);
    }
  }

  int CountOf(const std::string& code) const {
    return static_cast<int>(server_.MetricValue(
        absl::StrCat("evaserve_requests_total{code=\"", code, "\",method=\"", GetParam().rpc.method,
                     "\",model=\"", GetParam().rpc.model, "\"}")));
  }

  void ExpectNothingIsLeft() {
    EXPECT_TRUE(server_.WaitForMetric("evaserve_requests_in_flight", 0));
    for (const char* metric : {"running_sequences", "waiting_requests", "state_pages_used"}) {
      const std::string line =
          absl::StrCat("evaserve_", metric, "{model=\"", GetParam().rpc.model, "\"}");
      EXPECT_TRUE(server_.WaitForMetric(line, 0)) << line;
    }
    EXPECT_EQ(server_.control().live_sequences(), 0);
  }

  FakeModelServer server_{Options()};
  grpc::ClientContext context_, other_context_;
  std::future<grpc::Status> tested_, other_;
};

TEST_P(EndingTest, GivesTheStatusAndLeavesNothingBehind) {
  StatusCode expected = StatusCode::OK;
  StartAndReachPhase();
  std::thread shutdown;

  switch (GetParam().ending) {
    case Ending::kCancel:
      context_.TryCancel();
      expected = StatusCode::CANCELLED;
      break;
    case Ending::kDeadline:
      std::this_thread::sleep_until(context_.deadline());
      expected = StatusCode::DEADLINE_EXCEEDED;
      break;
    case Ending::kError:
      server_.control().FailIf([](auto) { return absl::InternalError("broken kernel"); });
      server_.tensor_control().FailIf([](auto) { return absl::InternalError("broken kernel"); });
      server_.image_control().FailIf([](auto) { return absl::InternalError("broken kernel"); });
      expected = StatusCode::INTERNAL;
      break;
    case Ending::kShutdownNow:
      expected = StatusCode::UNAVAILABLE;
      [[fallthrough]];
    case Ending::kShutdown:
      shutdown = std::thread([this] { server_.server().Shutdown(); });
      break;
  }
  if (expected == StatusCode::CANCELLED || expected == StatusCode::DEADLINE_EXCEEDED) {
    tested_.wait();
    LetServerHear();
  }
  if (expected == StatusCode::UNAVAILABLE) tested_.wait();  // it waits for no step of the model
  Release();

  const grpc::Status status = tested_.get();
  if (other_.valid()) other_.wait();
  EXPECT_EQ(status.error_code(), expected) << status.error_message();
  if (shutdown.joinable()) {
    shutdown.join();
    EXPECT_EQ(server_.control().live_sequences(), 0);
    return;
  }
  ExpectNothingIsLeft();
  int count = CountOf(absl::StatusCodeToString(static_cast<absl::StatusCode>(expected)));
  // Where the client's clock strikes first, the server hears of a cancellation.
  if (expected == StatusCode::DEADLINE_EXCEEDED) count += CountOf("CANCELLED");
  const int others = GetParam().phase == Phase::kWaiting && expected == StatusCode::INTERNAL;
  EXPECT_EQ(count, 1 + others);
}

INSTANTIATE_TEST_SUITE_P(All, EndingTest, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace evaserve
