#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/device.h"

/// The CUDA runtime's name for what a cudaStream_t points to.
struct CUstream_st;

namespace lightcone {

/// Bytes and calls of one allocator. `system_calls` stops growing once the sizes of a training step are known.
struct MemoryStatistics {
  int64_t in_use = 0;        ///< bytes that tensors hold now (rounded up to size classes)
  int64_t peak = 0;          ///< the most that they held since reset_peak()
  int64_t reserved = 0;      ///< bytes taken from the system and not returned
  int64_t calls = 0;         ///< allocations asked for
  int64_t system_calls = 0;  ///< of these, the ones that no free block could serve

  MemoryStatistics& operator+=(const MemoryStatistics& other) {
    in_use += other.in_use;
    peak += other.peak;
    reserved += other.reserved;
    calls += other.calls;
    system_calls += other.system_calls;
    return *this;
  }
};

/// The memory of one device, as a caching allocator: a freed block waits in the free list of its size class (four
/// classes per power of two) for the next request of that class, or of one for which it is at most twice too large, so
/// that what a training takes stops growing although the sizes of batches vary. Blocks are aligned to 64 bytes or more.
/// Safe to use from several threads.
///
/// With `guard` on (tests) a write outside of a block is found; how, the devices say.
class Allocator {
 public:
  Allocator() = default;
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;
  virtual ~Allocator() = default;

  struct Block {
    void* data = nullptr;
    size_t bytes = 0;       ///< as asked for
    size_t size_class = 0;  ///< where it goes back to
  };
  virtual Block allocate(size_t bytes) = 0;
  virtual void release(const Block& block) noexcept = 0;
  MemoryStatistics statistics() const;
  void reset_peak();
  /// Returns free blocks to the system.
  virtual void trim() = 0;

  virtual void set_guard(bool on) = 0;
  int64_t guard_violations() const { return violations_; }

  virtual Device device() const = 0;
  /// The CUDA stream on which this memory is written, read and reused; null on the CPU.
  virtual CUstream_st* stream() const { return nullptr; }
  virtual void clear(void* data, size_t bytes) = 0;                     ///< all bits zero
  virtual void copy_in(void* to, const void* from, size_t bytes) = 0;   ///< from the CPU's memory
  virtual void copy_out(void* to, const void* from, size_t bytes) = 0;  ///< to the CPU's memory; it is there on return
  /// Starts copies to the CPU's memory. Calling what comes back waits for them and gives the bytes, one piece after the
  /// other.
  struct Piece {
    const void* data;
    size_t bytes;
  };
  using Bytes = std::vector<unsigned char>;
  virtual std::function<Bytes()> start_copy_out(const std::vector<Piece>& pieces) = 0;
  virtual void copy_within(void* to, const void* from, size_t bytes) = 0;  ///< from this memory
  /// Waits for everything that was asked of the device so far.
  virtual void synchronize() {}

 protected:
  static size_t class_of(size_t bytes);
  static size_t class_size(size_t index);
  /// A free block for `size_class`, or of one that is at most twice too large, which becomes its class; or null.
  void* reuse(size_t& size_class);
  /// Counts a block of `size` bytes that is handed out, and if it is `fresh` from the system that too.
  void count(int64_t size, bool fresh);

  struct FreeList {
    std::vector<void*> blocks;  // reserved for all that are known, so that release() never needs memory
    size_t known = 0;           // of this class, free or not
  };
  mutable std::mutex mutex_;
  std::array<FreeList, 256> lists_;
  MemoryStatistics statistics_;
  bool guard_ = false;
  int64_t violations_ = 0;
};

/// Large blocks are cut from slabs of huge pages, since walks of the page table cost a few per cent of a training step;
/// trim() returns slabs only if nothing is in use. With `guard` on, blocks come filled with 0xff (NaN in every
/// floating-point format), stand between two bands of a known pattern, and are checked when they are freed: a write
/// outside counts in guard_violations().
class CpuAllocator final : public Allocator {
 public:
  ~CpuAllocator() override;
  Block allocate(size_t bytes) override;
  void release(const Block& block) noexcept override;
  void trim() override;
  void set_guard(bool on) override;

  Device device() const override { return Device::cpu; }
  void clear(void* data, size_t bytes) override;
  void copy_in(void* to, const void* from, size_t bytes) override;
  void copy_out(void* to, const void* from, size_t bytes) override { copy_in(to, from, bytes); }
  std::function<Bytes()> start_copy_out(const std::vector<Piece>& pieces) override;
  void copy_within(void* to, const void* from, size_t bytes) override { copy_in(to, from, bytes); }

 private:
  unsigned char* from_system(size_t size);
  std::vector<void*> slabs_;
  unsigned char* slab_next_ = nullptr;
  size_t slab_left_ = 0;
};

namespace cuda {
/// The memory of the GPU, with a stream of its own. A block is reused as soon as it is released, although the GPU may
/// not have come to its last reader yet: all work on this memory goes through the one stream, which keeps the order, so
/// that whoever gets the block writes to it later. Work on another stream has to wait for it by an event.
///
/// Copies between the devices go through pinned memory, in order with the kernels. copy_in() returns when the source
/// may be overwritten, copy_out() when the result is there.
///
/// With `guard` on nothing is cached: every block is a cudaMalloc of exactly its size and left unwritten, so that tools
/// (compute-sanitizer) see every access outside and every read of what nothing wrote.
///
/// `beside`: one that this function made, for other blocks on the same stream.
std::shared_ptr<Allocator> make_allocator(const Allocator* beside = nullptr);
}  // namespace cuda

}  // namespace lightcone
