#include "server/rpc/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/address.h"

namespace evaserve {
namespace {

constexpr int kRetryMs = 100;

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

bool HasIpv6() {
  const OwnedFd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  return fd.get() >= 0 && bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)) == 0;
}

absl::StatusOr<AddressList> Resolve(const Address& address) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  // All addresses are those of both families where the machine has both, so that probes by either
  // arrive.
  const std::string host = address.host == "0.0.0.0" && HasIpv6() ? "::" : address.host;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
  if (error == 0) return AddressList(list, freeaddrinfo);
  return absl::InvalidArgumentError(
      absl::StrCat("host '", address.host, "': ", gai_strerror(error)));
}

int PortOf(int socket) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size) != 0) return 0;
  // At the same place for both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&name)->sin_port);
}

void SetPort(int port, addrinfo& info) {
  reinterpret_cast<sockaddr_in*>(info.ai_addr)->sin_port = htons(static_cast<uint16_t>(port));
}

void SetOption(int socket, int level, int name, int value) {
  setsockopt(socket, level, name, &value, sizeof(value));
}

// -1, with errno, if it cannot be done. Connections inherit what is set here.
OwnedFd ListenOn(const addrinfo& info, bool both_families, std::chrono::milliseconds user_timeout) {
  OwnedFd fd(socket(info.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return fd;
  SetOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  SetOption(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout.count()));
  if (info.ai_family == AF_INET6) SetOption(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, !both_families);
  if (bind(fd.get(), info.ai_addr, info.ai_addrlen) != 0 || listen(fd.get(), SOMAXCONN) != 0) {
    return OwnedFd();
  }
  return fd;
}

// Nothing came after all, or this connection alone is lost.
bool ConcernsOneConnection(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

// Descriptors are the lowest free numbers, so one near the limit tells that few are left.
bool IsAmongTheLast(int fd, int spare_files) {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
         static_cast<rlim_t>(fd) + static_cast<rlim_t>(spare_files) >= limit.rlim_cur;
}

}  // namespace

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

int OwnedFd::Release() { return std::exchange(fd_, -1); }

Listener::Listener(const Options& options)
    : options_(options), closing_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

Listener::~Listener() { Close(); }

absl::StatusOr<std::unique_ptr<Listener>> Listener::Listen(const Options& options) {
  std::unique_ptr<Listener> self(new Listener(options));
  if (absl::Status status = self->Bind(); !status.ok()) return status;
  return self;
}

absl::Status Listener::Bind() {
  const absl::StatusOr<Address> address = ParseAddress(options_.address);
  if (!address.ok()) return address.status();
  const absl::StatusOr<AddressList> list = Resolve(*address);
  if (!list.ok()) return list.status();
  int error = 0;
  for (addrinfo* info = list->get(); info != nullptr && error != EADDRINUSE; info = info->ai_next) {
    if (port_ != 0) SetPort(port_, *info);
    OwnedFd socket = ListenOn(*info, address->is_any(), options_.user_timeout);
    if (socket.get() < 0) {
      error = errno;
      continue;
    }
    port_ = PortOf(socket.get());
    sockets_.push_back(std::move(socket));
  }
  // Another server on one of the addresses would silently take a part of the connections.
  if (!sockets_.empty() && error != EADDRINUSE) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", options_.address, ": ", std::strerror(error)));
}

void Listener::Start(Take take) {
  take_ = std::move(take);
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "listener");
    AcceptUntilClosed();
  });
}

void Listener::Close() {
  if (thread_.joinable()) {
    eventfd_write(closing_.get(), 1);
    thread_.join();
  }
  sockets_.clear();
}

void Listener::AcceptUntilClosed() {
  std::vector<pollfd> files = {{.fd = closing_.get(), .events = POLLIN, .revents = 0}};
  for (const OwnedFd& socket : sockets_) {
    files.push_back({.fd = socket.get(), .events = POLLIN, .revents = 0});
  }
  bool has_to_wait = false;
  while (true) {
    // While connections have to wait only Close() is listened to.
    poll(files.data(), has_to_wait ? 1 : files.size(), has_to_wait ? kRetryMs : -1);
    if (files[0].revents != 0) return;
    has_to_wait = false;
    for (size_t i = 1; i < files.size(); ++i) {
      if (!AcceptFrom(files[i].fd)) has_to_wait = true;
    }
  }
}

bool Listener::AcceptFrom(int listening_socket) {
  while (true) {
    OwnedFd connection(accept4(listening_socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    const int error = connection.get() < 0 ? errno : 0;
    if (error == EAGAIN) return true;
    if (ConcernsOneConnection(error)) continue;
    const bool is_short = error != 0 || IsAmongTheLast(connection.get(), options_.spare_files);
    if (is_short && !is_short_of_files_) {
      spdlog::error("connections are refused: {}",
                    error != 0 ? std::strerror(error) : "Too many open files");
    }
    is_short_of_files_ = is_short;
    if (error != 0) return false;
    if (!is_short) take_(listening_socket, connection.Release());
  }
}

void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace evaserve
