#include "engine/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "engine/error.h"

namespace lightcone {

namespace {
constexpr size_t alignment = 64;
constexpr size_t band = 256;  // guard bytes before and after a block
constexpr unsigned char pattern = 0xa5;
constexpr size_t classes_per_doubling = 4;
constexpr size_t huge_page = size_t{2} << 20, slab_bytes = 16 * huge_page;
constexpr size_t slab_share = size_t{256} << 10;  // blocks from this size on are cut from slabs
}  // namespace

MemoryStatistics Allocator::statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

void Allocator::reset_peak() {
  std::lock_guard lock(mutex_);
  statistics_.peak = statistics_.in_use;
}

size_t Allocator::class_of(size_t bytes) {
  if (bytes <= 256) return 0;
  const size_t top = std::bit_floor(bytes - 1), step = top / classes_per_doubling, share = (bytes - 1 - top) / step + 1;
  return classes_per_doubling * (std::bit_width(top) - 9) + share;
}

size_t Allocator::class_size(size_t index) {
  if (index == 0) return 256;
  const size_t top = size_t{256} << (index - 1) / classes_per_doubling;
  return top + top / classes_per_doubling * ((index - 1) % classes_per_doubling + 1);
}

void* Allocator::reuse(size_t& size_class) {
  for (size_t index = size_class; index < size_class + classes_per_doubling; ++index) {
    auto& blocks = lists_[index].blocks;
    if (blocks.empty()) continue;
    void* data = blocks.back();
    blocks.pop_back();
    size_class = index;
    return data;
  }
  return nullptr;
}

void Allocator::count(int64_t size, bool fresh) {
  if (fresh) {
    ++statistics_.system_calls;
    statistics_.reserved += size;
  }
  ++statistics_.calls;
  statistics_.in_use += size;
  statistics_.peak = std::max(statistics_.peak, statistics_.in_use);
}

CpuAllocator::~CpuAllocator() { trim(); }

unsigned char* CpuAllocator::from_system(size_t size) {
  if (size < slab_share) return static_cast<unsigned char*>(std::aligned_alloc(alignment, size));
  if (slabs_.empty() || slab_left_ < size) {
    const size_t slab = std::max(slab_bytes, (size + huge_page - 1) / huge_page * huge_page);
    slabs_.reserve(slabs_.size() + 1);
    void* memory = std::aligned_alloc(huge_page, slab);
    if (!memory) return nullptr;
#ifdef __linux__
    madvise(memory, slab, MADV_HUGEPAGE);
#endif
    slabs_.push_back(memory);
    slab_next_ = static_cast<unsigned char*>(memory);
    slab_left_ = slab;
  }
  slab_left_ -= size;
  return std::exchange(slab_next_, slab_next_ + size);
}

Allocator::Block CpuAllocator::allocate(size_t bytes) {
  size_t index = class_of(bytes);
  std::lock_guard lock(mutex_);
  auto* data = static_cast<unsigned char*>(reuse(index));
  const size_t size = class_size(index);
  const bool fresh = !data;
  if (fresh) {
    FreeList& list = lists_[index];
    list.blocks.reserve(list.known + 1);
    data = from_system(size + 2 * band);
    if (!data) fail("memory", "no room for {} bytes ({} in use); use a smaller batch", bytes, statistics_.in_use);
    data += band;
    ++list.known;
  }
  count(static_cast<int64_t>(size), fresh);
  if (guard_) {
    std::memset(data - band, pattern, band);
    std::memset(data, 0xff, bytes);
    std::memset(data + bytes, pattern, size - bytes + band);
  }
  return {data, bytes, index};
}

void CpuAllocator::release(const Block& block) noexcept {
  if (!block.data) return;
  const size_t size = class_size(block.size_class);
  auto* data = static_cast<unsigned char*>(block.data);
  std::lock_guard lock(mutex_);
  statistics_.in_use -= size;
  if (guard_) {
    auto intact = [](const unsigned char* p, size_t n) {
      return std::all_of(p, p + n, [](auto c) { return c == pattern; });
    };
    if (!intact(data - band, band) || !intact(data + block.bytes, size - block.bytes + band)) ++violations_;
  }
  lists_[block.size_class].blocks.push_back(data);
}

void CpuAllocator::trim() {
  std::lock_guard lock(mutex_);
  const bool all = statistics_.in_use == 0;
  for (size_t index = 0; index < lists_.size(); ++index) {
    FreeList& list = lists_[index];
    const size_t size = class_size(index);
    const bool slab = size + 2 * band >= slab_share;
    if (slab && !all) continue;
    if (!slab)
      for (void* block : list.blocks) std::free(static_cast<unsigned char*>(block) - band);
    statistics_.reserved -= static_cast<int64_t>(size * list.blocks.size());
    list.known -= list.blocks.size();
    list.blocks.clear();
  }
  if (!all) return;
  for (void* slab : slabs_) std::free(slab);
  slabs_.clear();
}

void CpuAllocator::set_guard(bool on) {
  std::lock_guard lock(mutex_);
  if (statistics_.in_use != 0) throw Error("memory: guard bands can only be switched while nothing is allocated");
  guard_ = on;
}

void CpuAllocator::clear(void* data, size_t bytes) {
  if (bytes) std::memset(data, 0, bytes);
}

std::function<Allocator::Bytes()> CpuAllocator::start_copy_out(const std::vector<Piece>& pieces) {
  Bytes bytes;
  for (const auto& [data, count] : pieces)
    bytes.insert(bytes.end(), static_cast<const unsigned char*>(data), static_cast<const unsigned char*>(data) + count);
  return [bytes = std::move(bytes)] { return bytes; };
}

void CpuAllocator::copy_in(void* to, const void* from, size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace lightcone
