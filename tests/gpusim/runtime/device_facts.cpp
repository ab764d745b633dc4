#include "gpusim/runtime/device_facts.h"

#include <array>

#include "gpusim/error.h"

namespace gpusim {

namespace {
constexpr uint64_t gigabyte = uint64_t{1} << 30;
constexpr std::array table{
    DeviceFacts{.capability = 80,
                .name = "gpusim sm_80 (as an A100-SXM4-80GB)",
                .multiprocessors = 108,
                .memory_bytes = 80 * gigabyte,
                .shared_optin = 163 * 1024,
                .shared_per_multiprocessor = 164 * 1024,
                .l2_bytes = 40 << 20,
                .persisting_l2_bytes = 30 << 20,
                .clock_khz = 1410000,
                .memory_clock_khz = 1593000,
                .memory_bus_bits = 5120,
                .copy_engines = 3,
                .double_ratio = 2},
    DeviceFacts{.capability = 90,
                .name = "gpusim sm_90 (as an H100-SXM5-80GB)",
                .multiprocessors = 132,
                .memory_bytes = 80 * gigabyte,
                .shared_optin = 227 * 1024,
                .shared_per_multiprocessor = 228 * 1024,
                .l2_bytes = 50 << 20,
                .persisting_l2_bytes = 32 << 20,
                .clock_khz = 1980000,
                .memory_clock_khz = 2619000,
                .memory_bus_bits = 5120,
                .copy_engines = 3,
                .double_ratio = 2},
};
}  // namespace

const DeviceFacts& device_facts(int capability) {
  for (const DeviceFacts& facts : table)
    if (facts.capability == capability) return facts;
  fail("GPUSIM_ARCH is {}: there are facts of sm_80 and sm_90 only", capability);
}

}  // namespace gpusim
