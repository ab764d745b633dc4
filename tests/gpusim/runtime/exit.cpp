#include "gpusim/runtime/exit.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "gpusim/machine/findings.h"
#include "gpusim/runtime/state.h"

namespace gpusim {

namespace {

constexpr int status_of_findings = 86;

void find_leaks(State& s) {
  const char* wanted = std::getenv("GPUSIM_LEAKS");
  if (!wanted || *wanted != '1') return;
  for (Device& device : s.devices)
    for (const Memory::Allocation& allocation : device.memory.live()) {
      if (!allocation.name.starts_with("cuda")) continue;  // variables stay
      Finding finding;
      finding.what = Finding::What::leak;
      finding.text =
          fmt::format("{} bytes of {} on device {} were never freed", allocation.bytes, allocation.name, device.number);
      finding.address = allocation.address;
      report(std::move(finding));
    }
}

void check() {
  State& s = state();
  {
    std::lock_guard lock(s.mutex);
    drain();
    find_leaks(s);
  }
  const std::vector<Finding> findings = take_findings();
  if (findings.empty()) return;
  for (const Finding& finding : findings)
    if (!options().print) fmt::print(stderr, "gpusim: {}: {}\n", name_of(finding.what), finding.text);
  fmt::print(stderr, "gpusim: {} finding{}\n", findings.size(), findings.size() == 1 ? "" : "s");
  std::fflush(nullptr);
  _exit(status_of_findings);
}

}  // namespace

void at_exit_check() { std::atexit(check); }

}  // namespace gpusim
