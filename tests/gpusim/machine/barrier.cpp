// Barriers of a block, and what to say when nobody can go on.
#include <algorithm>
#include <bit>
#include <utility>

#include "gpusim/machine/block.h"

namespace gpusim {

namespace {
std::string threads_text(uint32_t expected) { return expected ? std::to_string(expected) : "all"; }
}  // namespace

uint32_t Block::threads_alive() const {
  uint32_t n = 0;
  for (const Warp& w : warps_) n += std::popcount(w.alive);
  return n;
}

void Block::arrive(Warp& w, uint32_t pc, uint32_t lanes, const Step& s) {
  const int first = std::countr_zero(lanes);
  const uint32_t number = w.lanes.of<uint32_t>(s.op.x[1])[first];
  if (number >= barriers_.size())
    return find(Finding::What::divergent_barrier, w, s, first, fmt::format("barrier {} of 16", number), true);
  Barrier& b = barriers_[number];
  const uint32_t expected = s.op.x[2] == no_slot ? 0 : w.lanes.of<uint32_t>(s.op.x[2])[first];
  if (b.arrived && b.expected != expected)
    return find(Finding::What::divergent_barrier, w, s, first,
                fmt::format("barrier {} is reached with {} threads expected, and with {} at {}:{}", number,
                            threads_text(expected), threads_text(b.expected), kernel_.sites[b.site].file,
                            kernel_.sites[b.site].line),
                true, &kernel_.sites[b.site]);
  if (!b.arrived) b.site = s.site;
  b.expected = expected;
  b.arrived += std::popcount(lanes);
  b.warps |= 1u << w.index;
  if (s.op.x[3] != no_slot && s.barrier != BarrierOp::sync && s.barrier != BarrierOp::arrive) {
    const uint32_t p = w.lanes.predicate(s.op.x[3]);
    b.votes += std::popcount((s.op.negated ? ~p : p) & lanes);
  }
  ++counters.barriers;
  if (s.barrier == BarrierOp::arrive)
    w.groups.push_back({.pc = pc + 1, .mask = lanes});
  else
    w.groups.push_back({.pc = pc, .mask = lanes, .wait = Group::Wait::barrier, .barrier = number});
  complete(number);
}

// Lets everybody go if all have come.
bool Block::complete(uint32_t number) {
  Barrier& b = barriers_[number];
  const uint32_t expected = b.expected ? b.expected : threads_alive();
  if (b.arrived == 0 || b.arrived < expected) return false;
  // What those did who came is ordered before what they do from now on. A warp that has ended has come, too, where all
  // of the block are waited for.
  const auto came = [&](const Warp& w) { return (b.warps >> w.index & 1) || (b.expected == 0 && w.alive == 0); };
  uint32_t now = 0;
  WarpClock joined{};
  for (const Warp& w : warps_) {
    if (!came(w)) continue;
    now = std::max(now, w.clock[w.index] + 1);
    for (size_t v = 0; v < joined.size(); ++v) joined[v] = std::max(joined[v], w.clock[v]);
  }
  for (const Warp& w : warps_)
    if (came(w)) joined[w.index] = now;
  const Barrier done = std::exchange(b, {});
  for (Warp& w : warps_) {
    if (!(done.warps >> w.index & 1)) continue;
    w.clock = joined;
    take_seen(w);
    for (Group& g : w.groups) {
      if (g.wait != Group::Wait::barrier || g.barrier != number) continue;
      const Step& s = kernel_.steps[g.pc];
      w.lanes.mask = g.mask;
      if (s.barrier == BarrierOp::popc)
        map_lanes<uint32_t>(w.lanes, s.op.x[0], [&] { return done.votes; });
      else if (s.barrier != BarrierOp::sync)
        set_predicate(w.lanes, s.op.x[0],
                      (s.barrier == BarrierOp::or_ ? done.votes > 0 : done.votes == done.arrived) ? all_lanes : 0);
      g = {.pc = g.pc + 1, .mask = g.mask};
    }
  }
  return true;
}

void Block::complete_all() {
  for (uint32_t b = 0; b < barriers_.size(); ++b) complete(b);
}

// No warp of the block can go on.
void Block::stuck() {
  const Warp* where = nullptr;
  const Group* group = nullptr;
  // A warp whose lanes parted is to blame before one that waits for it, then the one that stands first in the kernel.
  auto rank = [](const Group& g) { return std::pair(g.wait == Group::Wait::barrier, g.pc); };
  for (const Warp& w : warps_)
    for (const Group& g : w.groups)
      if (!group || rank(g) < rank(*group)) where = &w, group = &g;
  if (!group) return;
  const Step& s = kernel_.steps[group->pc];
  const int lane = std::countr_zero(group->mask);
  std::map<uint32_t, const Site*> others_at;  // by step
  for (const Warp& w : warps_)
    for (const Group& g : w.groups)
      if (kernel_.steps[g.pc].site != s.site) others_at[g.pc] = &kernel_.sites[kernel_.steps[g.pc].site];
  std::string others;
  for (const auto& [pc, site] : others_at)
    others += fmt::format("{} {} at line {}", others.empty() ? "; others wait in" : ",", site->text, site->line);
  const Site* other = others_at.empty() ? nullptr : others_at.begin()->second;
  if (group->wait == Group::Wait::members)
    find(Finding::What::wrong_members, *where, s, lane,
         fmt::format("the lanes {:#010x} wait for {:#010x}, which do not come{}", group->mask,
                     group->members & where->alive & ~group->mask, others),
         true, other);
  else if (group->wait == Group::Wait::whole_warp)
    find(Finding::What::divergent_barrier, *where, s, lane,
         fmt::format("the lanes {:#010x} of a warp wait at a barrier that its lanes {:#010x} do not reach{}",
                     group->mask, where->alive & ~group->mask, others),
         true, other);
  else {
    const Barrier& b = barriers_[group->barrier];
    find(Finding::What::divergent_barrier, *where, s, lane,
         fmt::format("{} of {} threads have reached the barrier, and the others never will{}", b.arrived,
                     b.expected ? b.expected : threads_alive(), others),
         true, other);
  }
}

void Block::hang() {
  for (const Warp& w : warps_)
    for (const Group& g : w.groups)
      if (g.wait == Group::Wait::runs)
        return find(Finding::What::deadlock, w, kernel_.steps[g.pc], std::countr_zero(g.mask),
                    "the launch does not come to its end: this is where the first of its blocks was seen", true);
  running_.stop = true;
}

}  // namespace gpusim
