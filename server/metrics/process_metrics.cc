#include "server/metrics/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "server/metrics/metrics.h"

namespace evaserve {
namespace {

struct ProcessStat {
  double cpu_seconds = 0;
  double num_threads = 0;
  double start_seconds = 0;  // after boot
  double virtual_bytes = 0;
  double resident_bytes = 0;
};

// Fields of /proc/self/stat by their number in proc(5).
std::optional<ProcessStat> ReadStat() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The command name, field 2, may hold spaces and parentheses.
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;

  std::istringstream rest(line.substr(name_end + 1));
  std::vector<double> fields{0, 0, 0};  // fields 0 .. 2, and 3 is a letter
  std::string state;
  rest >> state;
  fields.push_back(0);
  for (double value; rest >> value;) fields.push_back(value);
  if (fields.size() < 25) return std::nullopt;

  const double ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  return ProcessStat{
      .cpu_seconds = (fields[14] + fields[15]) / ticks_per_second,
      .num_threads = fields[20],
      .start_seconds = fields[22] / ticks_per_second,
      .virtual_bytes = fields[23],
      .resident_bytes = fields[24] * static_cast<double>(sysconf(_SC_PAGESIZE)),
  };
}

std::optional<double> BootTimeSeconds() {
  std::ifstream file("/proc/stat");
  for (std::string key; file >> key;) {
    double value = 0;
    if (key == "btime" && file >> value) return value;
    file.ignore(1 << 20, '\n');
  }
  return std::nullopt;
}

std::optional<double> OpenFileDescriptors() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return std::nullopt;
  int count = -3;  // ".", ".." and the descriptor of the directory
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

prometheus::MetricFamily Single(const MetricInfo& info, prometheus::MetricType type, double value) {
  prometheus::ClientMetric metric;
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {info.name, info.help, type, {metric}};
}

}  // namespace

std::vector<prometheus::MetricFamily> CollectProcessMetrics() {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families;
  auto add_gauge = [&](const MetricInfo& info, double value) {
    families.push_back(Single(info, MetricType::Gauge, value));
  };
  if (const auto stat = ReadStat()) {
    families.push_back(Single(metric::kProcessCpu, MetricType::Counter, stat->cpu_seconds));
    add_gauge(metric::kProcessRss, stat->resident_bytes);
    add_gauge(metric::kProcessVirtual, stat->virtual_bytes);
    add_gauge(metric::kProcessThreads, stat->num_threads);
    if (const auto boot = BootTimeSeconds()) {
      add_gauge(metric::kProcessStart, *boot + stat->start_seconds);
    }
  }
  if (const auto open = OpenFileDescriptors()) add_gauge(metric::kProcessFds, *open);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add_gauge(metric::kProcessMaxFds, static_cast<double>(limit.rlim_cur));
  }
  return families;
}

int64_t ResidentBytes() {
  const auto stat = ReadStat();
  return stat ? static_cast<int64_t>(stat->resident_bytes) : 0;
}

}  // namespace evaserve
