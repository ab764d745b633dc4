#pragma once
#include "engine/context.h"

namespace lightcone::bench {

/// Bytes of the last-level cache, as the system tells them.
int64_t last_level_cache();
std::string cpu_model();

/// Bytes per second, reads plus writes, of a copy of `bytes` bytes; the best of a few.
double copy_bandwidth(Context& ctx, int64_t bytes);
/// FLOP per second that products of this dtype cannot exceed: multiply-adds of vector registers or, for bf16 and f32
/// (six for one) where the CPU has them, of AMX tiles, without any load; the best of a few.
double gemm_peak(Context& ctx, DType dtype, bool quick);

}  // namespace lightcone::bench
