#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "models/testing/temp_dir.h"

namespace evaserve {

// A program of ours in a process of its own, with its input and output in files. Killed if it still
// runs at the end. Not thread-safe.
class Program {
 public:
  // `args` without the program's name. Aborts if it cannot be started.
  Program(const std::filesystem::path& program, const std::vector<std::string>& args,
          const std::string& standard_input = "");
  ~Program();

  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void Signal(int signal);

  // Stops one of its threads for good, by its name; the others go on. False if there is none or the
  // system does not allow it. Nothing but an end is possible afterwards.
  bool StopThread(const std::string& name);

  // Waits for the end: what it exits with, or minus the signal that ended it.
  int Wait();

  // Waits until standard error contains `text`; false if the program ended without.
  bool WaitForError(const std::string& text);

  std::string Output() const;
  std::string Error() const;

 private:
  TempDir files_;
  pid_t pid_ = 0;             // 0 after the end
  pid_t stopped_thread_ = 0;  // 0: none
};

}  // namespace evaserve
