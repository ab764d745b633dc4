#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gpusim {

/// A kernel given as PTX text, run by one block. In the body %in and %out are the (global) addresses of two buffers,
/// %lane is the thread's number, and there are registers %p, %h (16 bits), %r (32), %d (64) and %q (128), each from 0
/// to 31. All its instructions count as tested (tested_variants), so that what a test writes is to be what it tests.
struct KernelCase {
  std::string module;  ///< declarations outside of the kernel
  std::string body;
  std::vector<uint8_t> parameter;  ///< of a third parameter, an array named `extra`
  uint32_t threads = 32;
  uint32_t dynamic_shared = 0;
};

/// What `out` holds afterwards; it starts as zeros. Throws Error if the kernel cannot be decoded; fails the test if a
/// finding is left, or none where `finds` is set.
std::vector<uint8_t> run_kernel(const KernelCase& kernel, const std::vector<uint8_t>& in, size_t out_bytes,
                                bool finds = false);

/// Reproducible bytes.
std::vector<uint8_t> random_bytes(size_t n, uint64_t seed);

/// All variants in the PTX of an ELF file (an object or a program that nvcc made with -no-compress), sorted.
std::vector<std::string> variants_in_file(const std::string& path);

}  // namespace gpusim
