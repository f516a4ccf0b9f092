#include "server/rpc/listener.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

OwnedFd Connect(int port) {
  OwnedFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return OwnedFd();
  }
  return fd;
}

// Whether the other side closes the connection without a word.
bool IsClosedByTheOther(const OwnedFd& connection) {
  char byte;
  return read(connection.get(), &byte, 1) <= 0;
}

class ListenerTest : public ::testing::Test {
 protected:
  void Listen(Listener::Options options = {.address = "127.0.0.1:0"}) {
    auto listener = Listener::Listen(options);
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }

  void Start() {
    listener_->Start([this](int listening_socket, int connection) {
      const absl::MutexLock lock(&mutex_);
      taken_.emplace_back(connection);
    });
  }

  // Whether `count` connections, no more, have been taken in the end.
  bool Takes(size_t count) {
    const absl::MutexLock lock(&mutex_);
    const auto is_enough = [&] { return taken_.size() >= count; };
    mutex_.AwaitWithTimeout(absl::Condition(&is_enough), absl::Seconds(10));
    return taken_.size() == count;
  }

  void CloseTaken() {
    const absl::MutexLock lock(&mutex_);
    taken_.clear();
  }

  absl::Mutex mutex_;
  std::vector<OwnedFd> taken_;
  std::unique_ptr<Listener> listener_;
};

TEST_F(ListenerTest, HandsOverEveryConnection) {
  Listen();
  const OwnedFd early = Connect(listener_->port());  // waits for Start()
  Start();
  const OwnedFd second = Connect(listener_->port());
  const OwnedFd third = Connect(listener_->port());
  EXPECT_TRUE(Takes(3));
}

TEST_F(ListenerTest, RefusesConnectionsOnceItIsClosed) {
  Listen();
  Start();
  const int port = listener_->port();
  listener_->Close();
  EXPECT_EQ(Connect(port).get(), -1);
}

TEST_F(ListenerTest, ClosesThoseThatNobodyTook) {
  Listen();
  const OwnedFd early = Connect(listener_->port());
  listener_.reset();
  EXPECT_TRUE(IsClosedByTheOther(early));
}

TEST_F(ListenerTest, ListensOnAllAddresses) {
  Listen({.address = "0.0.0.0:0"});
  Start();
  const OwnedFd connection = Connect(listener_->port());
  EXPECT_TRUE(Takes(1));
}

TEST_F(ListenerTest, ListensOnANameOfTheMachine) {
  Listen({.address = "localhost:0"});
  Start();
  const OwnedFd connection = Connect(listener_->port());
  EXPECT_TRUE(Takes(1));
}

TEST_F(ListenerTest, SaysThatAPortIsInUse) {
  Listen();
  const auto second = Listener::Listen({.address = absl::StrCat("127.0.0.1:", listener_->port())});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("Address already in use"));
}

TEST_F(ListenerTest, RefusesAddressesThatAreNone) {
  EXPECT_EQ(Listener::Listen({.address = "8001"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto unknown = Listener::Listen({.address = "no such host:8001"});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("host 'no such host'"));
}

// As long as it lives, this process may open no file with a number of `limit` or more.
class FileLimit {
 public:
  explicit FileLimit(int limit) {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit lower = before_;
    lower.rlim_cur = static_cast<rlim_t>(limit);
    setrlimit(RLIMIT_NOFILE, &lower);
  }
  ~FileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

int NextFile() {
  const OwnedFd next(dup(STDERR_FILENO));
  return next.get();
}

TEST_F(ListenerTest, KeepsTheLastFilesFree) {
  Listen({.address = "127.0.0.1:0", .spare_files = 10});
  Start();
  const OwnedFd first = Connect(listener_->port());
  ASSERT_TRUE(Takes(1));
  const OwnedFd refused = [&] {
    const FileLimit limit(NextFile() + 10);
    OwnedFd connection = Connect(listener_->port());
    EXPECT_TRUE(IsClosedByTheOther(connection));
    return connection;
  }();
  const OwnedFd next = Connect(listener_->port());
  EXPECT_TRUE(Takes(2));
}

// Waits for a line of the log.
class LogWatch {
 public:
  LogWatch() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("watched", sink_));
  }
  ~LogWatch() { spdlog::set_default_logger(before_); }

  bool Sees(const std::string& text) { return sink_->Sees(text); }

 private:
  class Sink : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
   public:
    bool Sees(const std::string& text) {
      const absl::MutexLock lock(&mutex_);
      const auto is_there = [&] { return log_.find(text) != std::string::npos; };
      return mutex_.AwaitWithTimeout(absl::Condition(&is_there), absl::Seconds(10));
    }

   private:
    void sink_it_(const spdlog::details::log_msg& message) override {
      const absl::MutexLock lock(&mutex_);
      log_.append(message.payload.data(), message.payload.size());
    }
    void flush_() override {}

    absl::Mutex mutex_;
    std::string log_;
  };

  std::shared_ptr<Sink> sink_ = std::make_shared<Sink>();
  std::shared_ptr<spdlog::logger> before_;
};

TEST_F(ListenerTest, ConnectionsWaitWhileThereAreNoFiles) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the asan preset needs a file to look at an object";
#endif
  LogWatch log;
  Listen();
  OwnedFd waiting = Connect(listener_->port());
  {
    const FileLimit limit(NextFile());
    Start();
    ASSERT_TRUE(log.Sees("connections are refused: Too many open files"));
  }
  EXPECT_TRUE(Takes(1));
  waiting = Connect(listener_->port());
  EXPECT_TRUE(Takes(2));
}

TEST(RaiseFileLimitTest, RaisesItToWhatIsAllowed) {
  const FileLimit limit(NextFile() + 100);
  RaiseFileLimit();
  rlimit now{};
  getrlimit(RLIMIT_NOFILE, &now);
  EXPECT_EQ(now.rlim_cur, now.rlim_max);
}

}  // namespace
}  // namespace evaserve
