#pragma once
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace lightcone::test {

struct Finished {
  int status = -1;     ///< exit status; 128 + signal if it was killed
  std::string output;  ///< standard output and error together
};

/// Runs the program lightcone with these arguments in `folder`.
Finished lightcone(const std::vector<std::string>& arguments, const std::filesystem::path& folder = ".");

/// The same, going on by itself. Killed at the end of the scope.
class Child {
 public:
  struct Options {
    uint64_t file_limit = 0;    ///< bytes that a file may have; 0: no limit
    bool unprivileged = false;  ///< as nobody where the test is root
    const char* program = LIGHTCONE_BINARY;
  };
  explicit Child(const std::vector<std::string>& arguments, const std::filesystem::path& folder = ".")
      : Child(arguments, folder, Options{}) {}
  Child(const std::vector<std::string>& arguments, const std::filesystem::path& folder, Options options);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  void send(int signal);
  bool running();
  /// Waits until `done` or the end of the child or some seconds; false if it is not done.
  bool wait_for(const std::function<bool()>& done, double seconds = 60);
  Finished finish();

 private:
  void reap(bool wait);
  pid_t child_ = 0;
  int output_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

}  // namespace lightcone::test
