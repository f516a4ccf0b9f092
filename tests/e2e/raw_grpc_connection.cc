#include "tests/e2e/raw_grpc_connection.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace evaserve {
namespace {

// HTTP/2, RFC 9113: section 3.4, 4.1, 6.
constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHeaderBytes = 9;
enum FrameType : uint8_t { kData = 0, kHeaders = 1, kSettings = 4 };
enum FrameFlags : uint8_t { kNone = 0, kEndStream = 1, kEndHeaders = 4 };

std::string BigEndian(uint32_t value, int num_bytes) {
  std::string bytes;
  for (int i = num_bytes - 1; i >= 0; --i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string Frame(FrameType type, uint8_t flags, uint32_t stream, const std::string& payload) {
  std::string frame = BigEndian(payload.size(), 3);
  frame += static_cast<char>(type);
  frame += static_cast<char>(flags);
  return frame + BigEndian(stream, 4) + payload;
}

// HPACK's literal field without indexing, RFC 7541 section 6.2.2; both shorter than 127 bytes.
std::string HeaderField(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name +
         static_cast<char>(value.size()) + value;
}

std::string CallHeaders(const std::string& path) {
  return HeaderField(":method", "POST") + HeaderField(":scheme", "http") +
         HeaderField(":path", path) + HeaderField(":authority", "localhost") +
         HeaderField("te", "trailers") + HeaderField("content-type", "application/grpc");
}

}  // namespace

RawGrpcConnection::RawGrpcConnection(int port) {
  socket_ = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    perror("connect");
    abort();
  }
}

RawGrpcConnection::~RawGrpcConnection() {
  const linger reset = {.l_onoff = 1, .l_linger = 0};
  setsockopt(socket_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  Close();
}

void RawGrpcConnection::StartCall(const std::string& path, const std::string& message) {
  const std::string grpc_message = std::string(1, '\0') + BigEndian(message.size(), 4) + message;
  Send(kPreface + Frame(kSettings, kNone, 0, "") +
       Frame(kHeaders, kEndHeaders, 1, CallHeaders(path)) +
       Frame(kData, kEndStream, 1, grpc_message));
}

bool RawGrpcConnection::WaitForData() {
  for (;;) {
    const std::string header = Receive(kFrameHeaderBytes);
    if (header.size() < kFrameHeaderBytes) return false;
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(header[i]); };
    Receive(byte(0) << 16 | byte(1) << 8 | byte(2));
    if (byte(3) == kData) return true;
    if (byte(3) == kHeaders && (byte(4) & kEndStream) != 0) return false;
  }
}

void RawGrpcConnection::Close() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

void RawGrpcConnection::Send(const std::string& bytes) {
  if (send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(bytes.size())) {
    perror("send");
    abort();
  }
}

std::string RawGrpcConnection::Receive(size_t num_bytes) {
  std::string bytes(num_bytes, '\0');
  const ssize_t received = recv(socket_, bytes.data(), num_bytes, MSG_WAITALL);
  bytes.resize(received < 0 ? 0 : received);
  return bytes;
}

}  // namespace evaserve
