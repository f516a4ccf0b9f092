#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/rpc/authorizer.h"
#include "server/rpc/request_log.h"
#include "server/rpc/tls_certificates.h"

namespace evaserve {

// The credentials of a listening port, which stand between a connection and every service on it,
// ours and gRPC's own: connections are encrypted with `tls`, unless it is null, and no call gets
// past that `authorizer` refuses; `log` hears of those. All, and what this returns, must outlive
// the server.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsCertificates* tls,
                                                               const Authorizer& authorizer,
                                                               RequestLog& log);

}  // namespace evaserve
