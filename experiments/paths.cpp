#include "experiments/paths.h"

#include <cstdlib>

#include "engine/error.h"

namespace lightcone {

namespace fs = std::filesystem;

fs::path share_dir() {
  std::error_code ignored;
  if (const char* set = std::getenv("LIGHTCONE_SHARE"); set && *set) {
    if (fs::is_directory(fs::path(set) / "configs", ignored)) return set;
    fail("share_dir", "LIGHTCONE_SHARE is {}, where there is no folder configs/; correct or unset it", set);
  }
  const fs::path bin = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  const fs::path installed = (bin / "../share/lightcone").lexically_normal();
  if (fs::is_directory(installed / "configs", ignored)) return installed;
  for (fs::path folder = bin; folder.has_relative_path(); folder = folder.parent_path())
    if (fs::exists(folder / "configs/default.toml", ignored)) return folder;
  fail("share_dir",
       "no folder with the configurations: LIGHTCONE_SHARE is not set, {} does not exist, and no folder above {} "
       "has configs/default.toml; set LIGHTCONE_SHARE to the folder that holds configs/ and data/",
       installed.string(), bin.string());
}

fs::path find_data(const std::string& data_dir, const std::string& file) {
  std::error_code ignored;
  const fs::path given = fs::path(data_dir) / file;
  if (fs::exists(given, ignored)) return given;
  std::string tried = fs::absolute(given, ignored).string();
  // "data/" is "data" with an empty last part.
  if (fs::path name = fs::path(data_dir + "/").lexically_normal(); name == fs::path("data/")) {
    const fs::path shared = share_dir() / "data" / file;
    if (fs::exists(shared, ignored)) return shared;
    tried += " and " + shared.string();
  }
  fail("data",
       "{} does not exist (tried {}); set data.data_dir to its folder; data.dataset=mini and data.dataset=tiny come "
       "with "
       "the program",
       file, tried);
}

}  // namespace lightcone
