#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/connection.h"

namespace evaserve {

// The channel of ConnectionOptions. Errors: those of Client::Connect().
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target,
                                                           const ConnectionOptions& options,
                                                           const grpc::ChannelArguments& arguments);

}  // namespace evaserve
