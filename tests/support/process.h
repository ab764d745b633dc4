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

}  // namespace lightcone::test
