#include "gpusim/runtime/exit.h"

#include <cstdlib>
#include <string_view>

#include "gpusim/machine/findings.h"
#include "gpusim/runtime/state.h"

namespace gpusim {

namespace {

void find_leaks(State& s) {
  for (Device& device : s.devices)
    for (const Memory::Allocation& allocation : device.memory.live()) {
      if (!allocation.name.starts_with("cuda")) continue;  // a variable
      Finding finding;
      finding.what = Finding::What::leak;
      finding.text =
          fmt::format("{} bytes of {} on device {} were never freed", allocation.bytes, allocation.name, device.number);
      finding.address = allocation.address;
      report(std::move(finding));
    }
}

void finish() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  drain();
  const char* leaks = std::getenv("GPUSIM_LEAKS");
  if (leaks && std::string_view(leaks) == "1") find_leaks(s);
}

}  // namespace

void finish_at_exit() {
  take_findings();  // what prints findings at the end registers itself first, so that it comes after this
  std::atexit(finish);
}

}  // namespace gpusim
