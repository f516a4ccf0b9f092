#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace evaserve {

// Every method of both inference services, "/package.Service/Method".
std::vector<std::string> AllMethods();

// Calls "/package.Service/Method" with an empty message and `metadata`, whatever kind of method it
// is; how the call ended.
grpc::Status CallMethod(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                        const std::multimap<std::string, std::string>& metadata);

}  // namespace evaserve
