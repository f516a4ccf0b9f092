#include "server/rpc/server_credentials.h"

#include <google/protobuf/descriptor.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "evaserve/v1/inference.pb.h"
#include "inference/open_inference.pb.h"

namespace evaserve {
namespace {

std::string_view View(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// What the log calls a method: paths come from strangers and would make labels of metrics without
// end.
const char* MethodName(std::string_view path) {
  static const auto* const names = [] {
    auto* by_path = new std::map<std::string, const char*, std::less<>>;
    for (const google::protobuf::FileDescriptor* file :
         {v1::GenerateRequest::descriptor()->file(),
          inference::ModelInferRequest::descriptor()->file()}) {
      for (int i = 0; i < file->service_count(); ++i) {
        for (int j = 0; j < file->service(i)->method_count(); ++j) {
          const auto* method = file->service(i)->method(j);
          by_path->emplace(absl::StrCat("/", file->service(i)->full_name(), "/", method->name()),
                           method->name().c_str());
        }
      }
    }
    return by_path;
  }();
  const auto found = names->find(path);
  return found == names->end() ? "other" : found->second;
}

// The metadata of a call that matter here.
struct CallMetadata {
  std::string_view path;
  std::string_view request_id;
  std::string_view authorization;  // empty unless there is exactly one
  std::string_view traceparent;    // likewise

  CallMetadata(const grpc_metadata* metadata, size_t size) {
    int num_authorizations = 0;
    int num_traceparents = 0;
    for (const grpc_metadata& entry : std::span(metadata, size)) {
      const std::string_view key = View(entry.key);
      if (key == ":path") path = View(entry.value);
      if (key == "x-request-id") request_id = View(entry.value);
      if (key == "authorization" && ++num_authorizations == 1) authorization = View(entry.value);
      if (key == "traceparent" && ++num_traceparents == 1) traceparent = View(entry.value);
    }
    if (num_authorizations > 1) authorization = "";
    if (num_traceparents > 1) traceparent = "";
  }

  RequestIdentity identity() const {
    return {.id = std::string(request_id), .trace = ParseTraceparent(traceparent)};
  }
};

// Before each call, on its connection's thread.
class CallCheck {
 public:
  CallCheck(const Authorizer& authorizer, RequestLog& log) : authorizer_(authorizer), log_(log) {}

  // Hands itself to `credentials`.
  static void Install(std::unique_ptr<CallCheck> self, grpc_server_credentials* credentials) {
    grpc_server_credentials_set_auth_metadata_processor(
        credentials, {.process = Process,
                      .destroy = [](void* state) { delete static_cast<CallCheck*>(state); },
                      .state = self.release()});
  }

 private:
  static void Process(void* state, grpc_auth_context*, const grpc_metadata* metadata, size_t size,
                      grpc_process_auth_metadata_done_cb done, void* user_data) {
    const absl::Status status = static_cast<CallCheck*>(state)->Check({metadata, size});
    done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.raw_code()),
         status.ok() ? nullptr : std::string(status.message()).c_str());
  }

  absl::Status Check(const CallMetadata& call) const {
    absl::Status status = authorizer_.Check(call.path, call.authorization);
    if (status.ok()) return status;
    RequestScope scope(log_, authorizer_.CallerWith(call.authorization), MethodName(call.path),
                       MethodKind::kInference);
    scope.SetId(call.identity());
    scope.status = status;
    return status;
  }

  const Authorizer& authorizer_;
  RequestLog& log_;
};

// gRPC asks for the certificates before each handshake. C++ has no way to say so, only its core.
class Credentials : public grpc::ServerCredentials {
 public:
  Credentials(const TlsCertificates* tls, const Authorizer& authorizer, RequestLog& log)
      : tls_(tls),
        credentials_(tls == nullptr ? grpc_insecure_server_credentials_create() : Tls()) {
    if (!authorizer.asks_for_tokens()) return;
    CallCheck::Install(std::make_unique<CallCheck>(authorizer, log), credentials_);
  }
  ~Credentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  grpc_server_credentials* Tls() {
    const auto clients = tls_->clients_need_certificates()
                             ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                             : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(clients, Fetch, this));
  }

  // gRPC calls it under a lock of its own.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* user_data, grpc_ssl_server_certificate_config** config) {
    auto* self = static_cast<Credentials*>(user_data);
    std::shared_ptr<const TlsMaterial> current = self->tls_->current();
    if (current == self->given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {.private_key = current->key.c_str(),
                                             .cert_chain = current->cert.c_str()};
    // gRPC wants authorities in any case, also where it asks clients for nothing: then any will do.
    const std::string& client_ca = current->client_ca.empty() ? current->cert : current->client_ca;
    *config = grpc_ssl_server_certificate_config_create(client_ca.c_str(), &pair, 1);
    self->given_ = std::move(current);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  const TlsCertificates* const tls_;
  std::shared_ptr<const TlsMaterial> given_;  // what gRPC has
  grpc_server_credentials* const credentials_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsCertificates* tls,
                                                               const Authorizer& authorizer,
                                                               RequestLog& log) {
  return std::make_shared<Credentials>(tls, authorizer, log);
}

}  // namespace evaserve
