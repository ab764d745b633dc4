// Slots for registers: PTX has one for every value, so that most of a warp's registers would be dead at any time and
// its memory far larger than a cache. Those that are never alive together share a slot.
#include "gpusim/machine/allocate.h"

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

namespace gpusim {

namespace {

/// Steps [begin, end) that run one after the other, and who may come next.
struct Piece {
  uint32_t begin = 0, end = 0;
  std::vector<uint32_t> next;
};

using Bits = std::vector<uint64_t>;
bool test(const Bits& b, uint32_t i) { return b[i / 64] >> i % 64 & 1; }
void set(Bits& b, uint32_t i) { b[i / 64] |= uint64_t{1} << i % 64; }
void clear(Bits& b, uint32_t i) { b[i / 64] &= ~(uint64_t{1} << i % 64); }

class Allocation {
 public:
  Allocation(Kernel& kernel, const std::map<Slot, uint8_t>& registers) : kernel_(kernel) {
    for (const auto& [slot, bytes] : registers) {
      number_[slot] = static_cast<uint32_t>(bytes_.size());
      bytes_.push_back(bytes);
    }
  }

  void run() {
    find_pieces();
    find_liveness();
    find_ranges();
    give_slots();
  }

 private:
  // f(slot, is_result) for every register that a step touches.
  template <class F>
  void for_registers(Step& s, F&& f) {
    auto visit = [&](Slot& slot, bool result) {
      if (slot != no_slot && number_.contains(slot)) f(slot, result);
    };
    visit(s.guard, false);
    visit(s.members, false);
    visit(s.base, s.action == Action::clock);
    visit(s.source_base, false);
    if (s.op.operands)
      for (uint32_t k = 0; k < s.operands; ++k) visit(const_cast<Slot&>(s.op.operands[k]), k < s.results);
    else
      for (uint32_t k = 0; k < s.op.x.size(); ++k) visit(s.op.x[k], k < s.results);
  }

  void find_pieces() {
    std::vector<bool> starts(kernel_.steps.size() + 1);
    starts[0] = true;
    for (uint32_t i = 0; i < kernel_.steps.size(); ++i) {
      const Step& s = kernel_.steps[i];
      if (s.action == Action::branch) starts[s.target] = true;
      if (s.action == Action::branch_indexed)
        for (uint32_t t : s.targets) starts[t] = true;
      if (s.action == Action::branch || s.action == Action::branch_indexed || s.action == Action::exit)
        starts[i + 1] = true;
    }
    std::vector<uint32_t> piece_of(kernel_.steps.size() + 1);
    for (uint32_t i = 0; i < kernel_.steps.size(); ++i) {
      if (starts[i]) pieces_.push_back({i, i, {}});
      piece_of[i] = static_cast<uint32_t>(pieces_.size() - 1);
      pieces_.back().end = i + 1;
    }
    for (Piece& p : pieces_) {
      const Step& last = kernel_.steps[p.end - 1];
      const bool always = last.guard == no_slot;
      if (last.action == Action::branch) p.next.push_back(piece_of[last.target]);
      if (last.action == Action::branch_indexed)
        for (uint32_t t : last.targets) p.next.push_back(piece_of[t]);
      const bool leaves =
          last.action == Action::branch || last.action == Action::branch_indexed || last.action == Action::exit;
      if (!(leaves && always) && p.end < kernel_.steps.size()) p.next.push_back(piece_of[p.end]);
    }
  }

  // A step's effect on what is alive, backwards. A guarded step leaves the value of the other lanes.
  void step_back(Step& s, Bits& alive) {
    if (s.guard == no_slot)
      for_registers(s, [&](Slot& slot, bool result) {
        if (result) clear(alive, number_[slot]);
      });
    for_registers(s, [&](Slot& slot, bool result) {
      if (!result) set(alive, number_[slot]);
    });
  }

  void find_liveness() {
    const size_t words = bytes_.size() / 64 + 1;
    in_.assign(pieces_.size(), Bits(words));
    out_.assign(pieces_.size(), Bits(words));
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t p = pieces_.size(); p-- > 0;) {
        for (uint32_t n : pieces_[p].next)
          for (size_t k = 0; k < words; ++k) out_[p][k] |= in_[n][k];
        Bits alive = out_[p];
        for (uint32_t i = pieces_[p].end; i-- > pieces_[p].begin;) step_back(kernel_.steps[i], alive);
        if (alive != in_[p]) {
          in_[p] = std::move(alive);
          changed = true;
        }
      }
    }
  }

  // From the first to the last step at which a register is alive, whatever lies between; and the most 32-bit registers
  // that are alive at once.
  void find_ranges() {
    first_.assign(bytes_.size(), std::numeric_limits<uint32_t>::max());
    last_.assign(bytes_.size(), 0);
    auto extend = [&](uint32_t r, uint32_t at) {
      first_[r] = std::min(first_[r], at);
      last_[r] = std::max(last_[r], at);
    };
    for (size_t p = 0; p < pieces_.size(); ++p) {
      for (uint32_t r = 0; r < bytes_.size(); ++r) {
        if (test(in_[p], r)) extend(r, pieces_[p].begin);
        if (test(out_[p], r)) extend(r, pieces_[p].end);
      }
      Bits alive = out_[p];
      uint32_t live = 0;
      for (uint32_t r = 0; r < bytes_.size(); ++r) live += test(alive, r) ? bytes_[r] : 0;
      for (uint32_t i = pieces_[p].end; i-- > pieces_[p].begin;) {
        Step& s = kernel_.steps[i];
        for_registers(s, [&](Slot& slot, bool result) {
          const uint32_t r = number_[slot];
          extend(r, i);
          const bool was = test(alive, r);
          if (result && s.guard == no_slot && was) clear(alive, r), live -= bytes_[r];
        });
        for_registers(s, [&](Slot& slot, bool result) {
          const uint32_t r = number_[slot];
          if (!result && !test(alive, r)) set(alive, r), live += bytes_[r];
        });
        kernel_.info.registers = std::max(kernel_.info.registers, live / 4);
      }
    }
  }

  void give_slots() {
    std::vector<uint32_t> order;
    for (uint32_t r = 0; r < bytes_.size(); ++r)
      if (first_[r] <= last_[r]) order.push_back(r);
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return std::pair(first_[a], a) < std::pair(first_[b], b); });
    std::map<uint8_t, std::vector<Slot>> free;
    std::multimap<uint32_t, uint32_t> alive;  // by last step
    std::vector<Slot> slot(bytes_.size(), no_slot);
    for (uint32_t r : order) {
      while (!alive.empty() && alive.begin()->first < first_[r]) {
        const uint32_t dead = alive.begin()->second;
        free[bytes_[dead]].push_back(slot[dead]);
        alive.erase(alive.begin());
      }
      std::vector<Slot>& fitting = free[bytes_[r]];
      if (fitting.empty()) {
        slot[r] = kernel_.register_bytes;
        kernel_.register_bytes += std::max(64, bytes_[r] * warp_size);
      } else {
        slot[r] = fitting.back();
        fitting.pop_back();
      }
      alive.emplace(last_[r], r);
    }
    for (Step& s : kernel_.steps) {
      auto rename = [&](Slot& old) {
        if (old == no_slot) return;
        if (const auto it = number_.find(old); it != number_.end()) old = slot[it->second];
      };
      rename(s.guard);
      rename(s.members);
      rename(s.base);
      rename(s.source_base);
      for (Slot& x : s.op.x) rename(x);
      if (s.op.operands)
        for (uint32_t k = 0; k < s.operands; ++k) rename(const_cast<Slot&>(s.op.operands[k]));
    }
  }

  Kernel& kernel_;
  std::map<Slot, uint32_t> number_;
  std::vector<uint8_t> bytes_;
  std::vector<Piece> pieces_;
  std::vector<Bits> in_, out_;
  std::vector<uint32_t> first_, last_;
};

}  // namespace

void allocate_registers(Kernel& kernel, const std::map<Slot, uint8_t>& registers) {
  Allocation(kernel, registers).run();
}

}  // namespace gpusim
