#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace evaserve {

// A file descriptor that is closed with its owner. -1 is none.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  ~OwnedFd();
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.Release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;

  int get() const { return fd_; }
  int Release();  // the caller closes it

 private:
  int fd_;
};

// Listens on a port and accepts its connections on a thread of its own.
//
// Used instead of gRPC's own listener, which closes its port for good when accept() fails once for
// want of files or memory (tcp_server_posix.cc of v1.51). This one waits for better times. The last
// files below the process's limit it keeps free, for whatever else must open one: connections that
// would take them are closed at once, which a client takes for a server that is gone for now.
//
// Thread-safe.
class Listener {
 public:
  // Gets a non-blocking socket, which it owns from then on, and the one that it came from.
  using Take = std::function<void(int listening_socket, int connection)>;

  struct Options {
    std::string address;  // HOST:PORT; port 0 takes a free one; see address.h
    // A connection on which nothing that was sent arrives for so long is closed.
    std::chrono::milliseconds user_timeout{20'000};
    // Files that connections leave free.
    int spare_files = 32;
  };

  // Connections wait from here on. Errors: InvalidArgument for a malformed address or one of a host
  // that is not known, Unavailable if it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Listener>> Listen(const Options& options);

  ~Listener();  // as Close()

  int port() const { return port_; }

  // Hands over what comes, on the listener's thread. Once.
  void Start(Take take);

  // Refuses further connections and those that wait. When it returns, Take runs no more.
  void Close();

 private:
  explicit Listener(const Options& options);

  absl::Status Bind();
  void AcceptUntilClosed();
  // Accepts all that wait. False if they have to wait.
  bool AcceptFrom(int listening_socket);

  const Options options_;
  int port_ = 0;
  std::vector<OwnedFd> sockets_;  // a name can stand for several addresses
  OwnedFd closing_;               // readable once it is time to close
  Take take_;
  bool is_short_of_files_ = false;  // of the thread: as it was logged last
  std::thread thread_;
};

// Raises the limit of open files as far as the process may: each connection takes one. As servers
// in Go do.
void RaiseFileLimit();

}  // namespace evaserve
