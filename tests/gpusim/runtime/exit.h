#pragma once

namespace gpusim {

/// At the end of the process what is left in streams is run, so that its faults are found; with GPUSIM_LEAKS=1 memory
/// of cudaMalloc that was never freed is a finding, too.
void finish_at_exit();

}  // namespace gpusim
