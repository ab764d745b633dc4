#pragma once
#include <filesystem>

namespace lightcone::test {

/// The smallest set of jets that comes with the program.
inline const std::filesystem::path tiny_jets = std::filesystem::path(LIGHTCONE_SOURCE_DIR) / "data/toptagging_tiny.npz";

}  // namespace lightcone::test
