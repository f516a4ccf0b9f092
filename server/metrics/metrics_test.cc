#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "server/metrics/process_metrics.h"

namespace evaserve {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

// Gives every metric a value.
void UseAll(Metrics& metrics) {
  metrics.SetModelReady("m", true);
  metrics.SetCertificateEnd("cert", absl::UnixEpoch());
  metrics.OnRequestStart();
  metrics.OnRequestEnd({.model = "m", .method = "Generate", .code = "OK", .input_bytes = 1});
  metrics.MakeObserver("m");
}

std::vector<std::string> NamesIn(const std::string& page) {
  std::vector<std::string> names;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, type, name;
    if (words >> hash >> type >> name && type == "TYPE") names.push_back(name);
  }
  return names;
}

TEST(MetricsTest, CountsRequestsByModelMethodAndCode) {
  Metrics metrics("1.2.3");
  metrics.OnRequestStart();
  metrics.OnRequestStart();
  metrics.OnRequestEnd({.model = "m",
                        .method = "Score",
                        .code = "OK",
                        .duration = milliseconds(20),
                        .input_bytes = 7});

  const std::string page = metrics.Text();

  EXPECT_THAT(page, HasSubstr("evaserve_build_info{version=\"1.2.3\"} 1"));
  EXPECT_THAT(page,
              HasSubstr("evaserve_requests_total{code=\"OK\",method=\"Score\",model=\"m\"} 1"));
  EXPECT_THAT(page, HasSubstr("evaserve_requests_in_flight 1"));
  EXPECT_THAT(page, HasSubstr("evaserve_input_bytes_total{model=\"m\"} 7"));
  EXPECT_THAT(page, HasSubstr("evaserve_request_duration_seconds_bucket{method=\"Score\",model="
                              "\"m\",le=\"0.01\"} 0"));
  EXPECT_THAT(page, HasSubstr("evaserve_request_duration_seconds_bucket{method=\"Score\",model="
                              "\"m\",le=\"0.025\"} 1"));
}

TEST(MetricsTest, AnObserverFillsItsModelsMetrics) {
  Metrics metrics("test");
  const auto observer = metrics.MakeObserver("m");
  observer->OnStep({.num_sequences = 2,
                    .prefill_tokens = 10,
                    .decode_tokens = 1,
                    .duration = microseconds(250)});
  observer->OnState({.running = 1,
                     .waiting = 2,
                     .waiting_tokens = 3,
                     .pages_used = 4,
                     .pages_promised = 5,
                     .pages_total = 6,
                     .page_bytes = 7});
  observer->OnFirstStep(milliseconds(1));
  observer->OnFirstToken(milliseconds(2), 1023);
  observer->OnFirstToken(milliseconds(3), 1024);
  observer->OnNextToken(microseconds(150));
  Completion completion;
  completion.usage.new_bytes = 9;
  observer->OnDone(Task::kGenerate, completion);

  const std::string page = metrics.Text();

  for (const char* line :
       {"evaserve_step_sequences_sum{model=\"m\"} 2", "evaserve_step_tokens_sum{model=\"m\"} 11",
        "evaserve_step_duration_seconds_sum{model=\"m\"} 0.00025",
        "evaserve_prefill_tokens_total{model=\"m\"} 10",
        "evaserve_decode_tokens_total{model=\"m\"} 1", "evaserve_running_sequences{model=\"m\"} 1",
        "evaserve_waiting_requests{model=\"m\"} 2", "evaserve_waiting_tokens{model=\"m\"} 3",
        "evaserve_state_pages_used{model=\"m\"} 4", "evaserve_state_pages_promised{model=\"m\"} 5",
        "evaserve_state_pages_total{model=\"m\"} 6", "evaserve_state_page_bytes{model=\"m\"} 7",
        "evaserve_queue_wait_seconds_sum{model=\"m\"} 0.001",
        "evaserve_time_to_first_byte_seconds_sum{model=\"m\",prompt_tokens=\"<1K\"} 0.002",
        "evaserve_time_to_first_byte_seconds_sum{model=\"m\",prompt_tokens=\"<8K\"} 0.003",
        "evaserve_time_between_bytes_seconds_sum{model=\"m\"} 0.00015",
        "evaserve_output_bytes_total{model=\"m\"} 9"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(MetricsTest, TellsWhenCertificatesEnd) {
  Metrics metrics("test");
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("evaserve_certificate")));

  metrics.SetCertificateEnd("cert", absl::FromUnixSeconds(1'800'000'000));
  metrics.SetCertificateEnd("client_ca", absl::FromUnixSeconds(1'900'000'000));
  metrics.SetCertificateEnd("cert", absl::FromUnixSeconds(2'000'000'000));

  EXPECT_THAT(metrics.Text(),
              HasSubstr("evaserve_certificate_not_after_seconds{file=\"cert\"} 2000000000\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("evaserve_certificate_not_after_seconds{file=\"client_ca\"}"
                                        " 1900000000\n"));
}

TEST(MetricsTest, WhatIsRemovedIsNotShown) {
  Metrics metrics("test");
  for (const char* model : {"stays", "goes"}) {
    metrics.SetModelReady(model, true);
    metrics.SetStepAge(model, milliseconds(5));
  }

  metrics.RemoveModelReady("goes");
  metrics.RemoveStepAge("goes");

  EXPECT_THAT(metrics.Text(), Not(HasSubstr("goes")));
  EXPECT_THAT(metrics.Text(), HasSubstr("evaserve_model_ready{model=\"stays\"} 1\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("evaserve_step_age_seconds{model=\"stays\"} 0.005\n"));
}

TEST(MetricsTest, EveryMetricSaysWhatItIs) {
  Metrics metrics("test");
  UseAll(metrics);
  const std::string page = metrics.Text();

  EXPECT_GT(NamesIn(page).size(), 20u);
  for (const std::string& name : NamesIn(page)) {
    EXPECT_THAT(page, HasSubstr("# HELP " + name + " "));
    EXPECT_THAT(page, Not(HasSubstr("# HELP " + name + " \n")));
  }
}

TEST(MetricsTest, TheDocumentationListsEveryMetric) {
  std::ifstream file(EVASERVE_DOCS_DIR "/metrics.md");
  std::stringstream text;
  text << file.rdbuf();
  Metrics metrics("test");
  UseAll(metrics);

  for (const std::string& name : NamesIn(metrics.Text())) {
    EXPECT_THAT(text.str(), HasSubstr("`" + name + "`"));
  }
}

TEST(ProcessMetricsTest, AreThoseOfThisProcess) {
  const int64_t before = ResidentBytes();
  std::vector<char> ballast(64 << 20, 'x');

  EXPECT_GT(ResidentBytes(), before + (32 << 20));
  EXPECT_EQ(ballast.back(), 'x');
}

}  // namespace
}  // namespace evaserve
