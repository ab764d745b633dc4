#pragma once

namespace gpusim {

class Memory;

/// Whether kernels on a device may touch that memory: its own, pinned memory, and that of another device after
/// cudaDeviceEnablePeerAccess. Takes no lock, for use while kernels run.
bool may_access(int device, const Memory& memory);

}  // namespace gpusim
