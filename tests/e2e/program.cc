#include "tests/e2e/program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

namespace evaserve {
namespace {

constexpr int kCreate = O_WRONLY | O_CREAT | O_TRUNC;

std::string ReadFile(const std::filesystem::path& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

}  // namespace

Program::Program(const std::filesystem::path& program, const std::vector<std::string>& args,
                 const std::string& standard_input) {
  WriteFile(files_.path() / "in", standard_input);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, (files_.path() / "in").c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, (files_.path() / "out").c_str(), kCreate, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, (files_.path() / "err").c_str(), kCreate, 0600);

  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  if (posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), environ) != 0) {
    perror(program.c_str());
    abort();
  }
  posix_spawn_file_actions_destroy(&actions);
}

Program::~Program() {
  if (pid_ == 0) return;
  Signal(SIGKILL);
  Wait();
}

void Program::Signal(int signal) { kill(pid_, signal); }

bool Program::StopThread(const std::string& name) {
  const std::filesystem::path threads = "/proc/" + std::to_string(pid_) + "/task";
  for (const auto& thread : std::filesystem::directory_iterator(threads)) {
    if (ReadFile(thread.path() / "comm") != name + "\n") continue;
    const pid_t id = std::stoi(thread.path().filename());
    if (ptrace(PTRACE_SEIZE, id, nullptr, nullptr) != 0) return false;
    stopped_thread_ = id;
    return ptrace(PTRACE_INTERRUPT, id, nullptr, nullptr) == 0;
  }
  return false;
}

int Program::Wait() {
  int status = 0;
  // A thread that we have stopped is ours to bury, before its process.
  while (stopped_thread_ != 0) {
    const bool has_ended =
        waitpid(stopped_thread_, &status, __WALL) < 0 || WIFEXITED(status) || WIFSIGNALED(status);
    if (has_ended) stopped_thread_ = 0;
  }
  waitpid(pid_, &status, 0);
  pid_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

bool Program::WaitForError(const std::string& text) {
  while (Error().find(text) == std::string::npos) {
    siginfo_t ended = {};
    waitid(P_PID, pid_, &ended, WEXITED | WNOHANG | WNOWAIT);
    if (ended.si_pid == pid_) return Error().find(text) != std::string::npos;
    std::this_thread::yield();
  }
  return true;
}

std::string Program::Output() const { return ReadFile(files_.path() / "out"); }

std::string Program::Error() const { return ReadFile(files_.path() / "err"); }

}  // namespace evaserve
