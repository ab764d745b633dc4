#pragma once
#include <span>
#include <string>

#include "gpusim/report.h"
#include "gpusim/resources.h"

namespace gpusim {

/// Launches by kernel as an aligned table: launches, thread instructions, sectors asked for, DRAM traffic and how many
/// times the least it is, bank conflicts, registers and occupancy, and the bound on each GPU of roofline.h with what
/// sets it. Kernels that `resources` does not know have no registers and occupancy. The largest bound comes first.
std::string kernel_table(std::span<const LaunchReport> launches, std::span<const Resources> resources);

}  // namespace gpusim
