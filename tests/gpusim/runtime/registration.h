#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gpusim/machine/machine.h"
#include "gpusim/ptx/fat_binary.h"
#include "gpusim/runtime/state.h"

namespace gpusim {

/// What one object file registered. Its PTX is parsed when a device first needs something of it: programs register
/// dozens of them, and most are never used.
struct FatBinary {
  const void* wrapper = nullptr;
  std::vector<ptx::Image> images;
  bool images_known = false;
  std::map<int, std::shared_ptr<const ptx::Module>> modules;  ///< by the image's target
  std::map<int, std::unique_ptr<Program>> programs;           ///< by device
};

struct Symbol {
  std::string name;
  FatBinary* binary = nullptr;
};

// All of these refuse what is not there; they throw Error for PTX that gpusim cannot read.

/// The module on a device: the image with the highest target that the device can run.
Program& program_of(FatBinary& binary, Device& device);
/// The kernel that a host function (or a handle) stands for.
CUkern_st& kernel_of(const void* function);
const Kernel& kernel_on(CUkern_st& kernel, Device& device);
/// The variable that a host variable stands for.
void* symbol_on(const void* symbol, Device& device, uint64_t* bytes);
/// The variables and decoded kernels of a device are gone (cudaDeviceReset).
void unload_all(int device);

}  // namespace gpusim
