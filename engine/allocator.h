#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

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

/// Caching CPU allocator: every block is aligned to 64 bytes; a freed block waits in the free list of its size class
/// (four classes per power of two) for the next request of that class, or of one for which it is at most twice too
/// large, so that what a training takes stops growing although the sizes of batches vary. Large blocks are cut from
/// slabs of huge pages, since walks of the page table cost a few per cent of a training step. Safe to use from several
/// threads.
///
/// With `guard` on (tests), blocks come filled with 0xff (NaN in every floating-point format), stand between two bands
/// of a known pattern, and are checked when they are freed: a write outside counts in guard_violations().
class Allocator {
 public:
  Allocator() = default;
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;
  ~Allocator();

  struct Block {
    void* data = nullptr;
    size_t bytes = 0;       ///< as asked for
    size_t size_class = 0;  ///< where it goes back to
  };
  Block allocate(size_t bytes);
  void release(const Block& block) noexcept;
  MemoryStatistics statistics() const;
  void reset_peak();
  /// Returns free blocks to the system: the small ones, and the slabs if nothing is in use.
  void trim();

  void set_guard(bool on);
  int64_t guard_violations() const { return violations_; }

 private:
  static size_t class_of(size_t bytes);
  static size_t class_size(size_t index);
  unsigned char* from_system(size_t size);

  struct FreeList {
    std::vector<void*> blocks;
    size_t known = 0;  // of this class, free or not
  };
  mutable std::mutex mutex_;
  std::array<FreeList, 256> lists_;
  std::vector<void*> slabs_;
  unsigned char* slab_next_ = nullptr;
  size_t slab_left_ = 0;
  MemoryStatistics statistics_;
  bool guard_ = false;
  int64_t violations_ = 0;
};

}  // namespace lightcone
