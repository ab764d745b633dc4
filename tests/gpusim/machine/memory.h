#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "gpusim/machine/shadow.h"
#include "gpusim/machine/timeline.h"

namespace gpusim {

/// A range of addresses in which allocations live, with a record of who touched each word last. Device memory: the
/// addresses mean nothing to the host (touching them there is a segmentation fault, as with a GPU); the bytes are at
/// storage(address). Pinned host memory: the host sees the same bytes at the address itself, unless protected.
///
/// Addresses are not used again, so that a freed one is recognised; every allocation starts on a page of its own, and a
/// page that belongs to nobody lies behind it.
class Memory {
 public:
  enum class Host : uint8_t { sees_nothing, sees_bytes };
  Memory(std::string name, uint64_t capacity, Host host);
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  struct Allocation {
    uint64_t address = 0;
    uint64_t bytes = 0;
    uint32_t freed_by = 0;  ///< operation, 0: live
    std::string name;       ///< "cudaMalloc", or a variable's name
  };
  /// 0 bytes are allowed. Returns null if more than the capacity would be in use. Nothing in it counts as written.
  void* allocate(uint64_t bytes, std::string name);
  /// False if it is not the start of a live allocation.
  bool free(void* pointer, const Operation& now);

  bool contains(const void* pointer) const;  ///< within this range of addresses, allocated or not
  /// The allocation, live or freed, that the address lies in (or just behind, within its gap).
  std::optional<Allocation> find(const void* pointer) const;
  std::vector<Allocation> live() const;
  uint64_t in_use() const;
  uint64_t capacity() const { return capacity_; }

  /// Where the bytes are for whoever plays the device.
  template <class T>
  T* storage(T* address) const {
    return reinterpret_cast<T*>(reinterpret_cast<uint64_t>(address) + delta_);
  }
  /// Pinned memory: takes the pages of a range from the host, or gives them back. Calls nest. The host that touches
  /// them gets a Finding (host_access), and then the pages, so that the program goes on.
  void protect(const void* address, uint64_t bytes, bool on);

  /// Whether kernels of a device may touch it: its own device's, and peers' that were let; all, if the host sees it.
  bool seen_by(int device) const { return seen_by_.load(std::memory_order_relaxed) >> device & 1; }
  void show_to(int device, bool on);

  // What copies and sets do to a range, checked as a kernel's accesses are: bounds, freed, never written, unordered
  // with another stream's operation. Each reports at most one Finding, and returns false if the range must not be
  // touched.
  bool note_read(const void* address, uint64_t bytes, const Operation& now);
  bool note_write(void* address, uint64_t bytes, const Operation& now);
  /// A copy within devices: what was never written at the source counts as never written at the target.
  bool note_copy(void* to, Memory& source, const void* from, uint64_t bytes, const Operation& now);
  /// The range counts as never written again: for allocators that keep memory to themselves.
  void forget(void* address, uint64_t bytes);

  // For the machine.
  const std::string& name() const { return name_; }
  Page& page(uint64_t address) const { return pages_[(address - base_) / page_bytes]; }
  /// An address in words: which allocation it is in, or how far behind one.
  std::string describe(uint64_t address) const;
  /// Gives a protected page back to the host that touched it. `held`: a copy needs that very byte, not only the page.
  bool release_page(uint64_t address, bool& held);

 private:
  bool check_range(uint64_t address, uint64_t bytes, const Operation& now, const char* verb);
  void report_clash(Clash clash, uint64_t address, const Operation& now, const Other& other, const char* verb);
  template <class Whole, class Part>
  bool for_range(uint64_t address, uint64_t bytes, const Operation& now, const char* verb, Whole&& whole, Part&& part);

  std::string name_;
  uint64_t capacity_ = 0, base_ = 0, next_ = 0, delta_ = 0, in_use_ = 0;
  int file_ = -1;
  std::atomic<uint64_t> seen_by_ = 0;  // bit per device
  Page* pages_ = nullptr;              // one per page_bytes of the range
  mutable std::mutex mutex_;
  std::map<uint64_t, Allocation> allocations_;
  std::vector<std::pair<uint64_t, uint64_t>> held_;  // the ranges that are protected: first and last byte
  std::map<uint64_t, int> protected_;                // pages, and how many copies hold them
};

/// The Memory (of a device, or the pinned one) that an address lies in, or null.
Memory* memory_of(const void* address);

}  // namespace gpusim
