#include "tests/e2e/call_method.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace evaserve {

std::vector<std::string> AllMethods() {
  std::vector<std::string> methods;
  for (const char* file : {"evaserve/v1/inference.proto", "inference/open_inference.proto"}) {
    const auto* found = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(file);
    for (int i = 0; i < found->service_count(); ++i) {
      const auto& service = *found->service(i);
      for (int j = 0; j < service.method_count(); ++j) {
        methods.push_back(absl::StrCat("/", service.full_name(), "/", service.method(j)->name()));
      }
    }
  }
  return methods;
}

grpc::Status CallMethod(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                        const std::multimap<std::string, std::string>& metadata) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice nothing;
  call->WriteLast(grpc::ByteBuffer(&nothing, 1), {}, nullptr);
  queue.Next(&tag, &ok);
  for (grpc::ByteBuffer answer; ok;) {
    call->Read(&answer, nullptr);
    queue.Next(&tag, &ok);
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  return status;
}

}  // namespace evaserve
