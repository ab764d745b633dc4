#pragma once
#include "engine/context.h"

namespace lightcone::bench {

/// Bytes of the last-level cache, as the system tells them.
int64_t last_level_cache();
std::string cpu_model();

/// Bytes per second, reads plus writes, of a copy of `bytes` bytes; the best of a few.
double copy_bandwidth(Context& ctx, int64_t bytes);
/// FLOP per second of an n³ product by oneDNN on its own threads (f32, bf16), or of multiply-adds in registers (f64);
/// the best of a few.
double gemm_peak(Context& ctx, DType dtype, int64_t n);

}  // namespace lightcone::bench
