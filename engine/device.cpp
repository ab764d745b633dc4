#include "engine/device.h"

#include <spdlog/logger.h>

namespace lightcone {

namespace cuda {
std::string why_none();  // device_cuda.cpp
}

std::string_view name_of(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

std::string why_no_cuda() {
  if constexpr (built_with_cuda)
    return cuda::why_none();
  else
    return "this program was built without CUDA (nvcc)";
}

Device choose_device(std::string_view name, spdlog::logger& log) {
  if (name == "cpu") return Device::cpu;
  if (name != "cuda" && name != "auto") fail("device", "'{}' is none; expected cpu, cuda or auto", name);
  const std::string why = why_no_cuda();
  if (why.empty()) return Device::cuda;
  if (name == "cuda") fail("device", "cuda was asked for, but {}; use device=cpu or device=auto", why);
  log.info("device = auto: computing on the CPU, as {}", why);
  return Device::cpu;
}

}  // namespace lightcone
