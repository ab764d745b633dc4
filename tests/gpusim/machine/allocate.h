#pragma once
#include <map>

#include "gpusim/machine/kernel.h"

namespace gpusim {

/// Gives the registers of a decoded kernel their slots, behind those that it has. `registers`: what stands for each of
/// them in the steps until now (numbers that no other slot has), and its bytes. Notes the most that are alive at once.
void allocate_registers(Kernel& kernel, const std::map<Slot, uint8_t>& registers);

}  // namespace gpusim
