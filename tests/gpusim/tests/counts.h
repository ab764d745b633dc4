#pragma once

/// Kernels whose counts are derived by hand in test_counts.cpp; each function makes its memory and launches one kernel.
namespace counted {
void copy(int stride, int offset);  // 16 blocks of 256 threads: out[i] = in[stride * i + offset]
void copy4();                       // 4 blocks of 256 threads, a float4 each
void transpose(int padding);        // 128 x 128 floats; -1: without shared memory, else rows of 32 + padding
void product(int tile);             // 128 x 128 floats
void loop(int trips);               // 1 block of 64 threads
void diverge();                     // 1 block of 64 threads
void local();                       // 1 block of 32 threads
void tensor();                      // 2 warps, four products 16 x 8 x 16 each
void mix(int blocks, int trips);    // integers and floats in registers
}  // namespace counted
