// The interpreter: a warp's groups of lanes, and what moves them.
#include <algorithm>
#include <bit>
#include <utility>

#include "gpusim/machine/block.h"

namespace gpusim {

// Steps after which lanes that stand elsewhere have their turn: the ones in front may wait for them in a loop. Counted
// by the warp's own steps, so that where its lanes part and meet again does not depend on how warps take turns. Sooner
// if they do hardly anything but look at memory.
constexpr uint32_t patience = 4096;
constexpr uint32_t patience_with_polls = 256, polls_seldom = 16;

// Takes the runnable group with the lowest step out of the warp, together with all others that stand there. In a fair
// turn another one goes first, in case the lowest waits for it.
bool Block::take_group(Warp& w, Group& g, uint32_t& next_pc, bool fair) {
  std::vector<Group>& groups = w.groups;
  std::array<uint32_t, warp_size> runnable;  // steps, by their order
  uint32_t n = 0;
  int best = -1;
  for (size_t k = 0; k < groups.size(); ++k) {
    if (groups[k].wait != Group::Wait::runs) continue;
    runnable[n++] = groups[k].pc;
    if (best < 0 || groups[k].pc < groups[best].pc) best = static_cast<int>(k);
  }
  if (best < 0) return false;
  if (fair && n > 1) {
    std::sort(runnable.begin(), runnable.begin() + n);
    const uint32_t pc = runnable[++w.turn % n];
    for (size_t k = 0; k < groups.size(); ++k)
      if (groups[k].wait == Group::Wait::runs && groups[k].pc == pc) best = static_cast<int>(k);
  }
  g = groups[best];
  groups.erase(groups.begin() + best);
  next_pc = ~0u;
  for (size_t k = 0; k < groups.size();) {
    if (groups[k].wait == Group::Wait::runs && groups[k].pc == g.pc) {
      g.mask |= groups[k].mask;
      groups.erase(groups.begin() + k);
      continue;
    }
    // In a fair turn the group runs for its whole slice, wherever the others stand.
    if (!fair && groups[k].wait == Group::Wait::runs) next_pc = std::min(next_pc, groups[k].pc);
    ++k;
  }
  return true;
}

uint32_t Block::members_of(const Warp& w, const Step& s, uint32_t lanes) const {
  const uint32_t* of = w.lanes.of<uint32_t>(s.members);
  uint32_t members = 0;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) members |= of[std::countr_zero(rest)];
  return members;
}

// Lanes that wait at the same step for the same reason wait together.
void Block::wait(Warp& w, uint32_t pc, uint32_t mask, Group::Wait why, uint32_t members) {
  for (Group& g : w.groups)
    if (g.wait == why && g.pc == pc) {
      g.mask |= mask;
      g.members |= members;
      return;
    }
  w.groups.push_back({.pc = pc, .mask = mask, .wait = why, .members = members});
}

// After lanes came to wait or ended: those go on who now wait for nobody.
void Block::release_waiting(Warp& w) {
  uint32_t at_warp_barriers = 0;  // which may be different ones for different lanes
  for (const Group& g : w.groups)
    if (g.wait == Group::Wait::members && kernel_.steps[g.pc].action == Action::warp_barrier)
      at_warp_barriers |= g.mask;
  bool barrier_passed = false;
  for (size_t k = 0; k < w.groups.size(); ++k) {
    Group& g = w.groups[k];
    const Step& s = kernel_.steps[g.pc];
    if (g.wait == Group::Wait::members) {
      const bool barrier = s.action == Action::warp_barrier;
      if (g.members & w.alive & ~(barrier ? at_warp_barriers : g.mask)) continue;
      if (!barrier) run_together(w, s, g.mask);
      barrier_passed |= barrier;
      g = {.pc = g.pc + 1, .mask = g.mask};
    } else if (g.wait == Group::Wait::whole_warp && g.mask == w.alive) {
      const Group whole = g;
      w.groups.erase(w.groups.begin() + k);
      arrive(w, whole.pc, whole.mask, s);
      k = ~size_t{0};  // what arrives may release others of this warp
    }
  }
  if (barrier_passed) ++w.clock[w.index];
}

// An instruction whose lanes have all come.
void Block::run_together(Warp& w, const Step& s, uint32_t lanes) {
  count(s, lanes);
  w.lanes.mask = lanes;
  w.lanes.fault = nullptr;
  if (s.action == Action::load_matrix) return load_matrix(w, s, lanes);
  if (s.action == Action::store_matrix) return store_matrix(w, s, lanes);
  s.op.run(w.lanes, s.op);
  counters.tensor_operations += s.multiply_adds;
  if (w.lanes.fault) find(Finding::What::wrong_members, w, s, std::countr_zero(lanes), w.lanes.fault, false);
}

// What changes how lanes are grouped. The group is not in w.groups; what becomes of it is there afterwards.
void Block::regroup(Warp& w, const Step& s, uint32_t pc, uint32_t mask, uint32_t lanes) {
  count(s, lanes);
  if (mask & ~lanes) w.groups.push_back({.pc = pc + 1, .mask = mask & ~lanes});
  switch (s.action) {
    case Action::branch_indexed: {
      const uint32_t* index = w.lanes.of<uint32_t>(s.base);
      ++counters.branches;
      uint32_t rest = lanes, ways = 0;
      for (; rest; ++ways) {
        const uint32_t i = index[std::countr_zero(rest)];
        uint32_t same = 0;
        for (int l = 0; l < warp_size; ++l) same |= uint32_t{index[l] == i} << l;
        same &= rest;
        rest &= ~same;
        if (i >= s.targets.size())
          return find(Finding::What::trap, w, s, std::countr_zero(same),
                      fmt::format("branches by index {} of {}", i, s.targets.size()), true);
        w.groups.push_back({.pc = s.targets[i], .mask = same});
      }
      counters.divergent_branches += ways > 1;
      return;
    }
    case Action::exit:
      w.alive &= ~lanes;
      w.lanes.exited |= lanes;
      copy_wait(w, lanes, 0);
      release_waiting(w);
      complete_all();
      return;
    case Action::warp_barrier:
    case Action::collective:
    case Action::load_matrix:
    case Action::store_matrix:
      if (s.action != Action::warp_barrier) uncount(s, lanes);  // counted when they run
      wait(w, pc, lanes, Group::Wait::members, members_of(w, s, lanes));
      return release_waiting(w);
    case Action::barrier:
      if (!s.aligned || lanes == w.alive) return arrive(w, pc, lanes, s);
      wait(w, pc, lanes, Group::Wait::whole_warp, 0);
      return release_waiting(w);
    default:
      return;
  }
}

uint64_t Block::run_warp(Warp& w, uint64_t steps) {
  const Step* const program = kernel_.steps.data();
  Group g;
  uint32_t next_pc = ~0u;  // the lowest step of another runnable group
  const bool looks = w.ran % patience_with_polls == 0 && w.polls * polls_seldom > patience_with_polls;
  if (w.ran % patience_with_polls == 0) w.polls = 0;
  const bool turn_over = w.ran >= patience || looks;
  if (turn_over) w.ran = 0;
  if (!turn_over && w.fair) {
    g = w.groups.back();  // its turn goes on
    w.groups.pop_back();
    next_pc = w.fair_next;
  } else {
    w.fair = turn_over;
    if (!take_group(w, g, next_pc, w.fair)) {
      w.fair = false;
      return 0;
    }
  }
  uint32_t pc = g.pc, mask = g.mask;
  const uint64_t given = steps = std::min<uint64_t>(steps, patience_with_polls - w.ran % patience_with_polls);
  const uint64_t polls_before = polls_;
  uint64_t left = given;
  while (left > 0) {
    --left;
    const Step& s = program[pc];
    uint32_t lanes = mask;
    if (s.guard != no_slot) {
      const uint32_t p = w.lanes.predicate(s.guard);
      lanes &= s.guard_negated ? ~p : p;
    }
    if (s.action == Action::branch) {
      // Its guard says where to: all lanes execute it.
      count(s, mask);
      ++counters.branches;
      if (lanes == mask) {
        pc = s.target;
      } else if (lanes == 0) {
        ++pc;
      } else {
        ++counters.divergent_branches;
        w.groups.push_back({.pc = s.target, .mask = lanes});
        next_pc = std::min(next_pc, s.target);
        mask &= ~lanes;
        ++pc;
      }
    } else if (lanes == 0) {
      ++pc;
    } else if (s.action == Action::arithmetic) {
      w.lanes.mask = lanes;
      s.op.run(w.lanes, s.op);
      count(s, lanes);
      ++pc;
    } else if (s.action < Action::regroups) {
      now_ = clock_ + steps - left;
      run_simple(w, s, lanes);
      count(s, lanes);
      ++pc;
      if (running_.stop.load(std::memory_order_relaxed)) break;
    } else if (s.members != no_slot && s.action != Action::warp_barrier && lanes == mask &&
               (members_of(w, s, lanes) & w.alive & ~lanes) == 0) {
      run_together(w, s, lanes);
      ++pc;
    } else {
      clock_ += steps - left;
      steps = left;
      regroup(w, s, pc, mask, lanes);
      mask = 0;
      if (running_.stop.load(std::memory_order_relaxed)) break;
    }
    if (mask == 0 || pc >= next_pc) {
      if (mask) w.groups.push_back({.pc = pc, .mask = mask});
      mask = 0;
      w.fair = false;
      if (!take_group(w, g, next_pc, false)) break;
      pc = g.pc;
      mask = g.mask;
    }
  }
  if (mask)
    w.groups.push_back({.pc = pc, .mask = mask});
  else
    w.fair = false;
  w.fair_next = next_pc;
  w.ran += static_cast<uint32_t>(given - left);
  w.polls += static_cast<uint32_t>(polls_ - polls_before);
  clock_ += steps - left;
  return 1;
}

void Block::run_simple(Warp& w, const Step& s, uint32_t lanes) {
  switch (s.action) {
    case Action::load:
      return load(w, s, lanes);
    case Action::store:
      return store(w, s, lanes);
    case Action::atomic:
      return atomic(w, s, lanes);
    case Action::fence:
      return fence(w, s);
    case Action::copy_async:
      return copy_async(w, s, lanes);
    case Action::copy_commit:
      ++w.copy_group;
      return;
    case Action::copy_wait:
      return copy_wait(w, lanes, s.waits_all ? 0 : s.op.immediate);
    case Action::print:
      return print(w, s, lanes);
    case Action::assertion:
      return assertion(w, s, lanes);
    case Action::to_generic: {
      w.lanes.mask = lanes;
      const uint64_t add = static_cast<uint64_t>(s.offset);
      return map_lanes<uint64_t>(
          w.lanes, s.op.x[0], [&](uint64_t a) { return a + add; }, w.lanes.of<uint64_t>(s.op.x[1]));
    }
    case Action::is_space: {
      w.lanes.mask = lanes;
      const uint64_t top = s.space == ptx::Space::shared  ? shared_window >> 60
                           : s.space == ptx::Space::local ? local_window >> 60
                           : s.space == ptx::Space::param ? param_window >> 60
                                                          : 0;
      const auto in_window = [&](uint64_t a) { return a >> 60 == top; };
      return set_predicate(w.lanes, s.op.x[0], mask_lanes(w.lanes, in_window, w.lanes.of<uint64_t>(s.op.x[1])));
    }
    case Action::clock: {
      w.lanes.mask = lanes;
      const uint64_t now = now_;
      if (s.register_bytes == 8) return map_lanes<uint64_t>(w.lanes, s.base, [&] { return now; });
      return map_lanes<uint32_t>(w.lanes, s.base, [&] { return static_cast<uint32_t>(now); });
    }
    case Action::trap:
      return find(Finding::What::trap, w, s, std::countr_zero(lanes), "trap", true);
    default:
      return;
  }
}

}  // namespace gpusim
