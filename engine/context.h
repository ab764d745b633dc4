#pragma once
#include <memory>

#include "engine/allocator.h"
#include "engine/profiler.h"
#include "engine/rng.h"
#include "engine/tensor.h"

namespace lightcone {

namespace cuda {
class Products;
}

/// Everything a kernel needs besides its operands: device, memory, threads, random streams, profiler. The first
/// argument of every kernel; nothing is global. One Context serves one thread of control; a second one (a data
/// loader's) has its own. On a GPU it has one stream, on which all its kernels and copies follow each other; nothing
/// waits for them but what reads a number back.
class Context {
 public:
  /// `threads` = 0 takes what OpenMP offers (OMP_NUM_THREADS or the number of cores).
  explicit Context(int threads = 0, uint64_t seed = 0) : Context(Device::cpu, threads, seed) {}
  /// Throws Error if the device is cuda and no GPU answers.
  explicit Context(Device device, int threads = 0, uint64_t seed = 0);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const { return device_; }
  CUstream_st* stream() const { return allocator_->stream(); }  ///< null on the CPU
  /// Throws Error unless this is the CPU. Loops over chunks ask, so that no function without a CUDA kernel goes on.
  void require_cpu() const {
    if (device_ != Device::cpu) [[unlikely]]
      refuse_device();
  }
  /// Whether a GPU may round the factors of f32 products to tf32 (10 bits of mantissa), as
  /// float32_matmul_precision=high asks.
  bool tf32() const { return tf32_; }
  void set_tf32(bool on) { tf32_ = on; }
  /// Whether a Graph records what is asked of the GPU (graph.h).
  bool recording() const { return recording_; }
  int threads() const { return threads_; }
  void set_threads(int threads);

  Tensor empty(Shape shape, DType dtype) { return Tensor(allocator_, shape, dtype); }
  Tensor zeros(Shape shape, DType dtype);
  /// A tensor with these values, converted to `dtype`.
  Tensor of(Shape shape, DType dtype, std::span<const double> values);
  /// Row offsets, i32 [n]: on a GPU the tensor keeps the numbers for Tensor::offsets(), too.
  Tensor offsets(std::span<const int32_t> numbers);
  /// A copy in this Context's memory, from whichever device. To the CPU it waits for all work before it.
  Tensor copy(const Tensor& x);
  /// x itself where it is in this kind of memory, else a copy here.
  Tensor here(const Tensor& x) { return x.device() == device_ ? x : copy(x); }
  /// The only element of each of these tensors here. A GPU's are on their way until values() is called, which waits for
  /// them, and not for what was asked of the GPU since.
  class Reading {
   public:
    const std::vector<double>& values();

   private:
    friend class Context;
    std::vector<DType> dtypes_;
    std::function<Allocator::Bytes()> arrive_;
    std::vector<double> values_;
  };
  Reading read(const std::vector<Tensor>& scalars);
  /// For what is done on the CPU on the way to the GPU and back: this Context itself, or one on the CPU with as many
  /// threads, which this one keeps.
  Context& host();

  /// Scratch of n elements for the inside of a kernel; comes from the caching allocator and goes back at the end of the
  /// scope.
  template <class T>
  class Scratch {
   public:
    Scratch(Context& ctx, int64_t n) : allocator_(*ctx.allocator_), block_(allocator_.allocate(n * sizeof(T))) {}
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { allocator_.release(block_); }
    T* data() { return static_cast<T*>(block_.data); }
    T& operator[](int64_t i) { return data()[i]; }

   private:
    Allocator& allocator_;
    Allocator::Block block_;
  };
  template <class T>
  Scratch<T> scratch(int64_t n) {
    return Scratch<T>(*this, n);
  }

  Allocator& allocator() { return *allocator_; }
  /// On a GPU: what multiply() of cublaslt.h keeps; made when first asked for.
  cuda::Products& products();
  Profiler& profiler() { return profiler_; }
  Rng& rng() { return rng_; }

 private:
  friend class Graph;
  [[noreturn]] void refuse_device() const;

  Device device_;
  std::shared_ptr<Allocator> allocator_;
  std::shared_ptr<cuda::Products> products_;
  Profiler profiler_;
  Rng rng_;
  int threads_;
  bool tf32_ = false, recording_ = false;
  std::unique_ptr<Context> host_;
};

}  // namespace lightcone
