#pragma once
#include <bit>
#include <cstdint>
#include <vector>

namespace gpusim {

/// Which 32-byte sectors were read and written: per page of 4096 bytes two sets of 128 bits.
class SectorSet {
 public:
  struct Bits {
    uint64_t page = ~uint64_t{0};
    uint64_t generation = 0;
    uint64_t read[2] = {}, write[2] = {};
  };
  SectorSet() : table_(64) {}

  Bits& at(uint64_t page) {
    if (Bits& last = table_[last_]; last.page == page && last.generation == generation_) return last;
    if (2 * used_ >= table_.size()) grow();
    size_t i = slot(page);
    Bits& bits = table_[i];
    if (bits.generation != generation_) {
      bits = {page, generation_};
      ++used_;
    }
    last_ = i;
    return bits;
  }
  void clear() {
    ++generation_;
    used_ = 0;
  }
  void join(const SectorSet& other) {
    for (const Bits& b : other.table_)
      if (b.generation == other.generation_) {
        Bits& mine = at(b.page);
        for (int h = 0; h < 2; ++h) mine.read[h] |= b.read[h], mine.write[h] |= b.write[h];
      }
  }
  uint64_t read_sectors() const { return count(&Bits::read); }
  uint64_t written_sectors() const { return count(&Bits::write); }

 private:
  uint64_t count(uint64_t (Bits::*of)[2]) const {
    uint64_t n = 0;
    for (const Bits& b : table_)
      if (b.generation == generation_) n += std::popcount((b.*of)[0]) + std::popcount((b.*of)[1]);
    return n;
  }
  size_t slot(uint64_t page) const {
    size_t i = (page * 0x9e3779b97f4a7c15u) >> 20 & (table_.size() - 1);
    while (table_[i].generation == generation_ && table_[i].page != page) i = (i + 1) & (table_.size() - 1);
    return i;
  }
  void grow() {
    std::vector<Bits> old(table_.size() * 2);
    old.swap(table_);
    for (const Bits& b : old)
      if (b.generation == generation_) table_[slot(b.page)] = b;
  }
  std::vector<Bits> table_;
  uint64_t generation_ = 1;
  size_t used_ = 0, last_ = 0;
};

}  // namespace gpusim
