#pragma once
#include "gpusim/runtime/ranges.h"

namespace gpusim {

/// Rows of bytes to copy; a plain copy is one row.
struct Copy {
  const char* call = "";  ///< the function, for messages
  void* to = nullptr;
  size_t to_pitch = 0;
  const void* from = nullptr;
  size_t from_pitch = 0;
  size_t width = 0, height = 1;
  cudaMemcpyKind kind = cudaMemcpyDefault;
};

/// Queues a copy as cudaMemcpyAsync does: pageable sources are staged at once, pageable targets are waited for, all
/// else stays pending.
void copy_async(State& s, const Copy& copy, CUstream_st& stream, const WorkList& also = {});
/// As cudaMemcpy does: in addition it waits for copies from and to the host, but for the last part of one from pageable
/// memory, and not for those between devices.
void copy_blocking(State& s, const Copy& copy, CUstream_st& stream, const WorkList& also = {});

}  // namespace gpusim
