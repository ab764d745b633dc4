#pragma once

namespace gpusim {

/// At the end of the process: works that are left are run, findings that nobody took are printed, and the exit status
/// is 86 if there are any.
void at_exit_check();

}  // namespace gpusim
