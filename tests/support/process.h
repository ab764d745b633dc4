#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace lightcone::test {

struct Finished {
  int status = -1;     ///< exit status; 128 + signal if it was killed
  std::string output;  ///< standard output and error together
};

/// Runs the program lightcone with these arguments in `folder`.
Finished lightcone(const std::vector<std::string>& arguments, const std::filesystem::path& folder = ".");

/// A folder of its own, removed with everything in it at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace lightcone::test
