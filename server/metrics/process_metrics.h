#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <vector>

namespace evaserve {

// CPU time, memory, file descriptors, threads and start time of this process, read from /proc now.
// What cannot be read is left out.
std::vector<prometheus::MetricFamily> CollectProcessMetrics();

// Resident memory of this process; 0 if it cannot be read.
int64_t ResidentBytes();

}  // namespace evaserve
