#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/support/scratch_folder.h"

// A training that can be interrupted in many ways: its commands, and what it leaves if nothing does.
namespace lightcone::test {

using Arguments = std::vector<std::string>;
/// The run's folder, in that of the commands, and what goes on with it.
inline const std::filesystem::path run = "runs/topt_local_debug/a";
inline const Arguments resume = {"run", "--resume", run.string(), "--threads", "1"};

/// A training of a second with all the state that one can have: dropout, averages, a plateau schedule that reduces, a
/// best network. And a warm start from it.
Arguments training(const Arguments& more = {});
Arguments warm_start(const Arguments& more = {});

/// Rows of metrics.csv in a run's folder, its header among them; 0 before it is there.
int64_t metrics_rows(const std::filesystem::path& folder);

/// What a run leaves, by name: bytes, without the times that it took.
using Content = std::map<std::string, std::string>;
Content content(const std::filesystem::path& folder);
void check_same(const Content& expected, const Content& got);

/// A training and a warm start that nothing interrupted.
struct Reference {
  ScratchFolder first, both;
  Content first_content, both_content;
  double seconds = 0;  ///< of the training
  Reference();
};
const Reference& reference();

}  // namespace lightcone::test
