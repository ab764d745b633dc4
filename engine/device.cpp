#include "engine/device.h"

namespace lightcone {

namespace cuda {
// device_cuda.cpp
std::string why_none();
std::string gpu_text();
}  // namespace cuda

std::string_view name_of(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

std::string why_no_cuda() {
  if constexpr (built_with_cuda)
    return cuda::why_none();
  else
    return "this program was built without CUDA (nvcc)";
}

std::string gpu_text() {
  if constexpr (built_with_cuda)
    return why_no_cuda().empty() ? cuda::gpu_text() : "";
  else
    return "";
}

Device choose_device(std::string_view name, const std::function<void(const std::string&)>& say) {
  if (name == "cpu") return Device::cpu;
  if (name != "cuda" && name != "auto") fail("device", "'{}' is none; expected cpu, cuda or auto", name);
  const std::string why = why_no_cuda();
  if (why.empty()) return Device::cuda;
  if (name == "cuda") fail("device", "cuda was asked for, but {}; use device=cpu or device=auto", why);
  say(fmt::format("device = auto: computing on the CPU, as {}", why));
  return Device::cpu;
}

}  // namespace lightcone
