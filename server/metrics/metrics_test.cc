#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/metrics/process_metrics.h"

namespace evaserve {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

// Gives every metric a value, with all its labels.
void UseAll(Metrics& metrics) {
  metrics.SetModelReady("m", true);
  metrics.SetStepAge("m", milliseconds(1));
  metrics.SetCertificateEnd("cert", absl::UnixEpoch());
  metrics.OnRequestStart();
  metrics.OnRequestEnd({.model = "m", .method = "Generate", .code = "OK", .input_bytes = 1});
  metrics.MakeObserver("m");
}

// A metric's type and labels: "gauge(model, version)".
using Shapes = std::map<std::string, std::string>;

std::string Shape(const std::string& type, const std::set<std::string>& labels) {
  return absl::StrCat(type, "(", absl::StrJoin(labels, ", "), ")");
}

// The names of the labels in `line`, a sample of /metrics, but those of a histogram's buckets.
std::set<std::string> LabelsOf(const std::string& line) {
  static const std::regex label(R"(([a-z_]+)="[^"]*")");
  std::set<std::string> names;
  for (std::sregex_iterator i(line.begin(), line.end(), label), end; i != end; ++i) {
    if ((*i)[1] != "le") names.insert((*i)[1]);
  }
  return names;
}

Shapes ShapesIn(const std::string& page) {
  Shapes shapes;
  std::istringstream lines(page);
  std::string name, type;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, keyword;
    if (line.starts_with("# TYPE ")) {
      words >> hash >> keyword >> name >> type;
    } else if (!line.starts_with("#")) {
      shapes[name] = Shape(type, LabelsOf(line));
    }
  }
  return shapes;
}

// What the tables of docs/metrics.md say. A table without a column of labels is of metrics that
// have none.
Shapes DocumentedShapes() {
  static const std::regex row(R"(\| `([a-z_]+)` \| ([a-z]+) \| (.*) \|)");
  static const std::regex values(R"(\([^)]*\))");
  Shapes shapes;
  bool has_labels = false;
  std::ifstream file(EVASERVE_DOCS_DIR "/metrics.md");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("| metric |")) has_labels = line.starts_with("| metric | type | labels |");
    std::smatch cells;
    if (!std::regex_match(line, cells, row)) continue;
    const std::string rest = cells[3];
    std::set<std::string> labels;
    if (has_labels) {
      const std::string cell = std::regex_replace(rest.substr(0, rest.find('|')), values, "");
      for (absl::string_view name : absl::StrSplit(cell, ',')) {
        name = absl::StripAsciiWhitespace(name);
        if (!name.empty()) labels.emplace(name);
      }
    }
    shapes[cells[1]] = Shape(cells[2], labels);
  }
  return shapes;
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

TEST(MetricsTest, CountsOnWhereTheLabelsAreTheSame) {
  Metrics metrics("test");
  for (const char* code : {"OK", "OK", "CANCELLED"}) {
    metrics.OnRequestEnd({.model = "m", .method = "Score", .code = code});
    metrics.OnRequestEnd({.model = "m", .method = "Score", .code = code, .input_bytes = 7});
  }

  const std::string page = metrics.Text();

  EXPECT_THAT(page,
              HasSubstr("evaserve_requests_total{code=\"OK\",method=\"Score\",model=\"m\"} 4"));
  EXPECT_THAT(
      page,
      HasSubstr("evaserve_requests_total{code=\"CANCELLED\",method=\"Score\",model=\"m\"} 2"));
  EXPECT_THAT(page,
              HasSubstr("evaserve_request_duration_seconds_count{method=\"Score\",model=\"m\"} 6"));
  EXPECT_THAT(page, HasSubstr("evaserve_input_bytes_total{model=\"m\"} 21"));
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
        "evaserve_state_pages_total{model=\"m\"} 6", "evaserve_state_used_bytes{model=\"m\"} 28",
        "evaserve_state_pool_bytes{model=\"m\"} 42",
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

TEST(MetricsTest, MemoryOfStatesIsThatOfAllVersions) {
  Metrics metrics("test");
  const auto one = metrics.MakeObserver("m");
  auto two = metrics.MakeObserver("m");
  one->OnState({.pages_used = 2, .pages_total = 10, .page_bytes = 1000});
  two->OnState({.pages_used = 3, .pages_total = 20, .page_bytes = 1});

  EXPECT_THAT(metrics.Text(), HasSubstr("evaserve_state_used_bytes{model=\"m\"} 2003\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("evaserve_state_pool_bytes{model=\"m\"} 10020\n"));
  two.reset();
  EXPECT_THAT(metrics.Text(), HasSubstr("evaserve_state_used_bytes{model=\"m\"} 2000\n"));
}

TEST(MetricsTest, EveryMetricSaysWhatItIs) {
  Metrics metrics("test");
  UseAll(metrics);
  const std::string page = metrics.Text();

  EXPECT_GT(ShapesIn(page).size(), 20u);
  for (const auto& [name, shape] : ShapesIn(page)) {
    EXPECT_THAT(page, HasSubstr("# HELP " + name + " "));
    EXPECT_THAT(page, Not(HasSubstr("# HELP " + name + " \n")));
  }
}

TEST(MetricsTest, TheDocumentationListsTheMetricsThatThereAre) {
  Metrics metrics("test");
  UseAll(metrics);

  EXPECT_EQ(DocumentedShapes(), ShapesIn(metrics.Text()));
}

TEST(ProcessMetricsTest, AreThoseOfThisProcess) {
  const int64_t before = ResidentBytes();
  std::vector<char> ballast(64 << 20, 'x');

  EXPECT_GT(ResidentBytes(), before + (32 << 20));
  EXPECT_EQ(ballast.back(), 'x');
}

}  // namespace
}  // namespace evaserve
