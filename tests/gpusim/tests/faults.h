#pragma once
#include <cuda_runtime.h>

#include <optional>
#include <span>

#include "gpusim/report.h"

/// A program with a fault planted in it, and the same one without. The lines to blame carry the comment `FAULT name`;
/// if there is none, the finding has no line.
struct Fault {
  const char* name;
  std::optional<gpusim::Finding::What> what;  ///< nothing: a program that only looks wrong
  void (*run)(int bad);                       ///< 1 or 0; ends before the device is done
};

std::span<const Fault> faults_of_memory();   // faults_memory.cu
std::span<const Fault> faults_of_order();    // faults_order.cu
std::span<const Fault> faults_of_waiting();  // faults_waiting.cu
std::span<const Fault> refused_kernels();    // the same; the name is what the message has to say

/// Device memory that is gone with its scope.
template <class T>
struct OnDevice {
  explicit OnDevice(int count, bool written = true) {
    cudaMalloc(&data, count * sizeof(T));
    if (written) cudaMemset(data, 0, count * sizeof(T));
  }
  OnDevice(const OnDevice&) = delete;
  ~OnDevice() {
    cudaDeviceSynchronize();
    cudaFree(data);
  }
  operator T*() const { return data; }
  T* data = nullptr;
};
