#pragma once

#include <string>

namespace evaserve {

// A gRPC client that is nothing but a socket, so that it can vanish without a word, as no real
// client library would. Aborts if it cannot connect.
class RawGrpcConnection {
 public:
  explicit RawGrpcConnection(int port);
  // Closes the connection with a reset.
  ~RawGrpcConnection();

  RawGrpcConnection(const RawGrpcConnection&) = delete;
  RawGrpcConnection& operator=(const RawGrpcConnection&) = delete;

  // Sends a call of `path`, "/package.Service/Method", with `message`, a serialised protobuf.
  void StartCall(const std::string& path, const std::string& message);

  // Waits for the first message of the answer; false if the server ended the call or the
  // connection instead.
  bool WaitForData();

  // Closes the connection in order, as the kernel does for a process that has ended.
  void Close();

 private:
  void Send(const std::string& bytes);
  std::string Receive(size_t num_bytes);

  int socket_ = -1;
};

}  // namespace evaserve
