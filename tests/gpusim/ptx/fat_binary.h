#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace gpusim::ptx {

struct Image {
  int target = 0;  ///< 80 for compute_80
  std::string text;
};

/// The PTX texts in what nvcc's host code hands to __cudaRegisterFatBinary (the wrapper of .nvFatBinSegment). Images
/// for real machines (SASS) are passed over. Throws Error if there is no PTX, or only compressed PTX (-no-compress is
/// needed), or the layout is not known.
std::vector<Image> images(const void* fat_binary_wrapper);

/// The entries (fat_layout.h) behind such a wrapper.
std::string_view entries_of(const void* fat_binary_wrapper);

}  // namespace gpusim::ptx
