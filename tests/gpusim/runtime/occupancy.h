#pragma once
#include "gpusim/machine/machine.h"
#include "gpusim/runtime/device_facts.h"
#include "gpusim/runtime/handles.h"

namespace gpusim {

/// Blocks of a kernel that one multiprocessor holds at once: what threads, block slots, registers and shared memory
/// allow.
int blocks_per_multiprocessor(const KernelInfo& kernel, const DeviceFacts& device, int threads,
                              uint64_t dynamic_shared);
/// The most dynamic shared memory of a launch: what 48 KiB leave, or what cudaFuncSetAttribute allowed.
uint64_t dynamic_limit(const CUkern_st& handle, const KernelInfo& kernel, int device);

}  // namespace gpusim
