#include "server/metrics/metrics_server.h"

#include <civetweb.h>

#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/address.h"

namespace evaserve {
namespace {

// A connection that says nothing holds one of civetweb's threads until its time is over, and so
// does one that is kept after its answer; a probe that finds no thread free waits. With these it
// waits a second beside 100 of the one kind and 1.5 s beside 100 of the other. A thread costs 16
// KiB.
constexpr char kThreads[] = "64";
constexpr char kRequestTimeoutMs[] = "1000";
constexpr char kKeepAliveMs[] = "1500";  // for those that ask every second

struct Page {
  int code = 200;
  const char* type = "text/plain; charset=utf-8";
  std::string body;
};

// Where this process reaches what listens on `address`.
std::string ProbeHost(const Address& address) {
  if (!address.is_any()) return address.host;
  return address.host == "::" ? "::1" : "127.0.0.1";
}

Page StatusPage(const absl::Status& status) {
  if (status.ok()) return {.body = "ok\n"};
  return {.code = 503, .body = absl::StrCat(status.message(), "\n")};
}

Page MakePage(std::string_view path, const MetricsPages& pages) {
  if (path == "/metrics") {
    return {200, "text/plain; version=0.0.4; charset=utf-8", pages.metrics()};
  }
  if (path == "/healthz") return StatusPage(pages.healthy());
  if (path == "/readyz") return StatusPage(pages.ready());
  return {.code = 404, .body = "there are /metrics, /healthz and /readyz\n"};
}

void Send(mg_connection* connection, const Page& page, bool with_body) {
  mg_response_header_start(connection, page.code);
  mg_response_header_add(connection, "Content-Type", page.type, -1);
  mg_response_header_add(connection, "Content-Length", std::to_string(page.body.size()).c_str(),
                         -1);
  mg_response_header_add(connection, "Cache-Control", "no-store", -1);
  mg_response_header_send(connection);
  if (with_body) mg_write(connection, page.body.data(), page.body.size());
}

}  // namespace

absl::Status MetricsServer::CheckAddress(const std::string& address) {
  const absl::StatusOr<Address> parsed = ParseAddress(address);
  if (!parsed.ok()) return parsed.status();
  const bool is_ipv6 = parsed->host.find(':') != std::string::npos;
  if (!is_ipv6 || mg_check_feature(MG_FEATURES_IPV6) != 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("got '", address,
                   "', allowed is HOST:PORT with an IPv4 address: the HTTP library of this machine "
                   "is built without IPv6"));
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address,
                                                                    MetricsPages pages) {
  if (absl::Status status = CheckAddress(address); !status.ok()) return status;
  std::unique_ptr<MetricsServer> server(
      new MetricsServer(ProbeHost(*ParseAddress(address)), std::move(pages)));

  mg_callbacks callbacks{};
  callbacks.log_message = [](const mg_connection* connection, const char* message) {
    auto* self = static_cast<MetricsServer*>(mg_get_user_data(mg_get_context(connection)));
    // After the start only broken connections are reported, which concern nobody.
    if (self->context_ == nullptr && self->error_.empty()) self->error_ = message;
    return 1;
  };
  const char* options[] = {"listening_ports",
                           address.c_str(),
                           "num_threads",
                           kThreads,
                           "request_timeout_ms",
                           kRequestTimeoutMs,
                           "keep_alive_timeout_ms",
                           kKeepAliveMs,
                           "tcp_nodelay",
                           "1",
                           "enable_keep_alive",
                           "yes",
                           nullptr};
  server->context_ = mg_start(&callbacks, server.get(), options);
  if (server->context_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address,
                     server->error_.empty() ? "" : absl::StrCat(": ", server->error_)));
  }
  mg_server_port port{};
  if (mg_get_server_ports(server->context_, 1, &port) == 1) server->port_ = port.port;
  mg_set_request_handler(server->context_, "/", &MetricsServer::Answer, server.get());
  return server;
}

MetricsServer::~MetricsServer() {
  if (context_ == nullptr) return;
  // civetweb looks every 2 s whether it is to stop, or when a connection comes.
  absl::Notification stopped;
  std::thread waker([&] {
    do {
      char error[64];
      mg_close_connection(mg_connect_client(host_.c_str(), port_, 0, error, sizeof(error)));
    } while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(10)));
  });
  mg_stop(context_);
  stopped.Notify();
  waker.join();
}

int MetricsServer::Answer(mg_connection* connection, void* self) {
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string_view method = request->request_method;
  if (method != "GET" && method != "HEAD") {
    Send(connection, {.code = 405, .body = "only GET\n"}, /*with_body=*/true);
    return 405;
  }
  const Page page = MakePage(request->local_uri, static_cast<MetricsServer*>(self)->pages_);
  Send(connection, page, /*with_body=*/method == "GET");
  return page.code;
}

}  // namespace evaserve
