#include "engine/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/error.h"

namespace lightcone {

namespace {
constexpr size_t alignment = 64;
constexpr size_t band = 256;  // guard bytes before and after a block
constexpr unsigned char pattern = 0xa5;
}  // namespace

Allocator::~Allocator() { trim(); }

size_t Allocator::size_class(size_t bytes) {
  if (bytes <= 256) return 256;
  const size_t step = std::max<size_t>(std::bit_floor(bytes - 1) / 4, alignment);
  return (bytes + step - 1) / step * step;
}

void* Allocator::allocate(size_t bytes) {
  const size_t size = size_class(bytes);
  std::lock_guard lock(mutex_);
  ++statistics_.calls;
  statistics_.in_use += size;
  statistics_.peak = std::max(statistics_.peak, statistics_.in_use);
  unsigned char* block = nullptr;
  auto list = free_.find(size);
  if (list != free_.end() && !list->second.empty()) {
    block = static_cast<unsigned char*>(list->second.back());
    list->second.pop_back();
  } else {
    block = static_cast<unsigned char*>(std::aligned_alloc(alignment, size + 2 * band));
    if (!block) {
      statistics_.in_use -= size;
      fail("memory", "no room for {} bytes ({} in use); use a smaller batch", bytes, statistics_.in_use);
    }
    block += band;
    ++statistics_.system_calls;
    statistics_.reserved += size;
  }
  if (guard_) {
    std::memset(block - band, pattern, band);
    std::memset(block, 0xff, bytes);
    std::memset(block + bytes, pattern, size - bytes + band);
  }
  return block;
}

void Allocator::release(void* pointer, size_t bytes) noexcept {
  if (!pointer) return;
  const size_t size = size_class(bytes);
  auto* block = static_cast<unsigned char*>(pointer);
  std::lock_guard lock(mutex_);
  statistics_.in_use -= size;
  if (guard_) {
    auto intact = [](const unsigned char* p, size_t n) {
      return std::all_of(p, p + n, [](auto c) { return c == pattern; });
    };
    if (!intact(block - band, band) || !intact(block + bytes, size - bytes + band)) ++violations_;
  }
  try {
    free_[size].push_back(pointer);
  } catch (const std::bad_alloc&) {  // no room to note it: back to the system
    std::free(block - band);
    statistics_.reserved -= static_cast<int64_t>(size);
  }
}

MemoryStatistics Allocator::statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

void Allocator::reset_peak() {
  std::lock_guard lock(mutex_);
  statistics_.peak = statistics_.in_use;
}

void Allocator::trim() {
  std::lock_guard lock(mutex_);
  for (auto& [size, blocks] : free_) {
    for (void* block : blocks) std::free(static_cast<unsigned char*>(block) - band);
    statistics_.reserved -= static_cast<int64_t>(size * blocks.size());
    blocks.clear();
  }
}

void Allocator::set_guard(bool on) {
  std::lock_guard lock(mutex_);
  if (statistics_.in_use != 0) throw Error("memory: guard bands can only be switched while nothing is allocated");
  guard_ = on;
}

}  // namespace lightcone
