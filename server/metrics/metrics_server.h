#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct mg_connection;
struct mg_context;

namespace evaserve {

// What the metrics server shows. The functions are called on its threads.
struct MetricsPages {
  std::function<std::string()> metrics;  // the body of /metrics
  // /healthz and /readyz answer 503 with the message unless these are ok.
  std::function<absl::Status()> healthy;
  std::function<absl::Status()> ready;
};

// Serves /metrics, /healthz and /readyz over HTTP. Thread-safe.
class MetricsServer {
 public:
  // InvalidArgument for an address that is malformed, or that civetweb was built without: Debian's
  // knows no IPv6.
  static absl::Status CheckAddress(const std::string& address);

  // Listens on `address`, "HOST:PORT"; port 0 takes a free one. Owns some dozens of threads.
  // Errors: CheckAddress()'s, Unavailable if it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              MetricsPages pages);
  ~MetricsServer();

  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  int port() const { return port_; }

 private:
  MetricsServer(std::string host, MetricsPages pages)
      : host_(std::move(host)), pages_(std::move(pages)) {}

  static int Answer(mg_connection* connection, void* self);

  const std::string host_;  // to connect to itself
  const MetricsPages pages_;
  mg_context* context_ = nullptr;
  int port_ = 0;
  std::string error_;  // the first thing that civetweb complained of while starting
};

}  // namespace evaserve
