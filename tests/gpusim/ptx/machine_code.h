#pragma once
#include <string_view>
#include <vector>

#include "gpusim/resources.h"

namespace gpusim::ptx {

/// The kernels' resources in the machine code of a fat binary's entries; those for other machines are passed over.
std::vector<Resources> machine_code(std::string_view entries);

}  // namespace gpusim::ptx
