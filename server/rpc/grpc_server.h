#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "server/engine/request.h"
#include "server/rpc/authorizer.h"
#include "server/rpc/listener.h"
#include "server/rpc/service_parts.h"
#include "server/rpc/tls_certificates.h"

namespace grpc {
class Server;
class ServerCredentials;
namespace experimental {
class ExternalConnectionAcceptor;
}
}  // namespace grpc

namespace evaserve {

struct GrpcServerOptions {
  std::string address = "0.0.0.0:8001";  // HOST:PORT; port 0 takes a free one
  std::string server_version;            // as ServerMetadata tells it
  // Who may connect, and call. Both must outlive the server.
  const TlsCertificates* tls = nullptr;    // null: connections are not encrypted
  const Authorizer* authorizer = nullptr;  // required
  // A larger message is refused with RESOURCE_EXHAUSTED. gRPC's own limit for receiving is 4 MiB.
  int max_message_bytes = 64 << 20;
  // Memory for what has been received and is not handed on yet, of all connections together. gRPC
  // 1.51 takes a message in whole before it looks at its size, up to 4 GiB; past this, it ends
  // calls and closes connections as they come to hand, also of clients that sent little.
  int64_t receive_memory_bytes = int64_t{1} << 30;
  // Metadata of one call; more is refused with RESOURCE_EXHAUSTED.
  int max_metadata_bytes = 16 << 10;
  // Streams that one connection may have open at a time.
  int max_concurrent_streams = 4096;
  // After this long without traffic a connection is probed, and closed unless the other side
  // answers within keepalive_timeout: so sequences of clients that lost the network are freed.
  std::chrono::milliseconds keepalive_time{60'000};
  std::chrono::milliseconds keepalive_timeout{20'000};
  // A connection that is about this old takes no more calls, and is closed when those in flight
  // have ended, at the latest after the grace. 0: never, and as long as they take.
  std::chrono::milliseconds max_connection_age{0};
  std::chrono::milliseconds max_connection_age_grace{0};
  // Clients may probe as often as this.
  std::chrono::milliseconds min_client_ping_interval{10'000};
};

// The gRPC side of the server: both inference services, grpc.health.v1 and reflection. Health knows
// "" (the whole server), both services by their full names, and every model by its name; all start
// as NOT_SERVING. Thread-safe.
class GrpcServer {
 public:
  // Listens at once. What `parts` refers to must outlive this. Errors: Unavailable if the address
  // cannot be listened on.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const ServiceParts& parts);
  ~GrpcServer();  // as Shutdown(Clock::now(), TimePoint::max())

  int port() const;

  // Sets the health of a model, or of all else (whole server and services).
  void SetModelServing(const std::string& model, bool serving);
  void SetServing(bool serving);

  // Sets all health to NOT_SERVING for good; watchers hear of it.
  void SetNotServingForGood();

  // Closes the port, takes no more calls and tells the clients so, which then connect elsewhere.
  // Calls that go on are not disturbed. One thread at a time, as Shutdown().
  void BeginShutdown();

  // BeginShutdown(), waits for the calls that go on until `deadline`, then cancels them and waits
  // for their end until `limit`. False if some have not ended by then.
  bool Shutdown(TimePoint deadline, TimePoint limit);

 private:
  struct Services;

  GrpcServer();

  std::unique_ptr<Services> services_;                    // outlives server_
  std::shared_ptr<grpc::ServerCredentials> credentials_;  // outlives server_
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Listener> listener_;
  std::thread ending_;            // from BeginShutdown() on
  absl::Notification has_ended_;  // no call is left
};

}  // namespace evaserve
