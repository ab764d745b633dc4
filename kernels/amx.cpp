#include "kernels/amx.h"

#ifdef LIGHTCONE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lightcone::kernels::amx {

#ifdef LIGHTCONE_AMX
bool available() {
  static const bool yes = [] {
    constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;         // of leaf 7, EDX
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (bf16 | tile)) != (bf16 | tile)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  }();
  return yes;
}
#else
bool available() { return false; }
#endif

}  // namespace lightcone::kernels::amx
