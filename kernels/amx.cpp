#include "kernels/amx.h"

#include <atomic>
#if defined(__AMX_BF16__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lightcone {

namespace {
bool ask() {
#if defined(__AMX_BF16__)
  // Leaf 7: AMX-BF16 is bit 22 of edx, AMX-TILE bit 24.
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return false;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
std::atomic<bool> wanted = true;
}  // namespace

bool amx_available() {
  static const bool available = ask();
  return available && wanted;
}

void use_amx(bool on) { wanted = on; }

}  // namespace lightcone
