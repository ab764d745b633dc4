#pragma once
#include "gpusim/report.h"

namespace gpusim {

/// Keeps a finding for take_findings(), unless the same one (what, kernel, lines, text without addresses) is there, and
/// prints it if the options ask for it.
void report(Finding finding);
void report(LaunchReport launch);

}  // namespace gpusim
