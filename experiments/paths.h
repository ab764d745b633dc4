#pragma once
#include <filesystem>
#include <string>

namespace lightcone {

/// The folder that holds configs/ and data/: $LIGHTCONE_SHARE if it is set; else ../share/lightcone next to the folder
/// of the executable (an installed binary); else the first folder above the executable with configs/default.toml (a
/// build tree). Throws Error naming what was tried.
std::filesystem::path share_dir();

/// A data file: `data_dir`/`file` as given, relative to the working directory; else, where data_dir is the default
/// "data", the file of that name among those that come with the program. Throws Error naming what was tried.
std::filesystem::path find_data(const std::string& data_dir, const std::string& file);

}  // namespace lightcone
