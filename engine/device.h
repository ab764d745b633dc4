#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "engine/error.h"

/// For functions that kernels on either device call.
#ifdef __CUDACC__
#define LIGHTCONE_HOST_DEVICE __host__ __device__
#else
#define LIGHTCONE_HOST_DEVICE
#endif

namespace lightcone {

enum class Device : uint8_t { cpu, cuda };
std::string_view name_of(Device device);

/// Front doors ask this before the device, with `if constexpr`, so that a build without nvcc needs no CUDA function.
#ifdef LIGHTCONE_CUDA
inline constexpr bool built_with_cuda = true;
#else
inline constexpr bool built_with_cuda = false;
#endif

/// Why nothing can be computed with CUDA here (no driver, one that is too old, no GPU, too old a GPU, a build without
/// nvcc); empty if a GPU answers.
std::string why_no_cuda();

/// "NVIDIA H200, 140 GiB, compute capability 9.0"; empty where why_no_cuda() has a reason.
std::string gpu_text();

/// The device that a configuration names: "cpu"; "cuda", which throws Error unless a GPU answers; or "auto", which is
/// cuda if one does and else cpu, for which `say` gets a line with the reason.
Device choose_device(std::string_view name, const std::function<void(const std::string&)>& say);

}  // namespace lightcone

template <>
struct fmt::formatter<lightcone::Device> : fmt::formatter<std::string_view> {
  auto format(lightcone::Device d, format_context& ctx) const {
    return fmt::formatter<std::string_view>::format(lightcone::name_of(d), ctx);
  }
};
