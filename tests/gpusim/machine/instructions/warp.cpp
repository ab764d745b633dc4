#include <bit>

#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

constexpr auto lane_ids = [] {
  std::array<uint32_t, warp_size> ids{};
  for (int l = 0; l < warp_size; ++l) ids[l] = l;
  return ids;
}();

/// The first fault of an instruction is the one reported.
void blame(Lanes& w, const char* fault) {
  if (!w.fault) w.fault = fault;
}

void check_members(Lanes& w, uint32_t lanes, uint32_t members) {
  const uint32_t missing = members & ~lanes & ~w.exited;
  if (lanes & ~members)
    blame(w, "a lane executes it that its own member mask does not name");
  else if (missing & ~w.mask)
    blame(w, "a member mask names a lane that does not execute it");
  else if (missing)
    blame(w, "lanes that one member mask names give different member masks");
}

/// Calls f with each set of executing lanes that have the same member mask.
template <class F>
void for_each_set(Lanes& w, Slot members, F&& f) {
  const uint32_t* masks = w.of<const uint32_t>(members);
  for (uint32_t left = w.mask; left != 0;) {
    const uint32_t mask = masks[std::countr_zero(left)];
    const uint32_t lanes = left & mask_lanes(
                                      w, [mask](uint32_t m) { return m == mask; }, masks);
    check_members(w, lanes, mask);
    f(lanes);
    left &= ~lanes;
  }
}

void assign(const Lanes& w, Slot to, uint32_t lanes, uint32_t value) {
  if (to == no_slot) return;
  uint32_t* out = w.of<uint32_t>(to);
  for (int l = 0; l < warp_size; ++l) out[l] = lanes >> l & 1 ? value : out[l];
}

void assign_predicate(const Lanes& w, Slot to, uint32_t lanes, bool value) {
  if (to == no_slot) return;
  uint32_t& p = w.predicate(to);
  p = value ? p | lanes : p & ~lanes;
}

enum class Shuffle { up, down, bfly, idx };

/// d{|p}, a, b, c, members. The immediate tells whether there is a p.
template <Shuffle mode>
void shfl(Lanes& w, const Op& op) {
  const Slot* in = op.operands + 1 + op.immediate;
  const auto *a = w.of<const uint32_t>(in[0]), *b = w.of<const uint32_t>(in[1]), *c = w.of<const uint32_t>(in[2]);
  alignas(64) uint32_t from[warp_size], value[warp_size], inside = 0, outside = 0;
  for (int l = 0; l < warp_size; ++l) {
    const int by = b[l] & 31, segment = c[l] >> 8 & 31, first = l & segment, last = first | (c[l] & 31 & ~segment);
    const int lane = mode == Shuffle::up     ? l - by
                     : mode == Shuffle::down ? l + by
                     : mode == Shuffle::bfly ? l ^ by
                                             : first | (by & ~segment);
    const bool is_inside = mode == Shuffle::up ? lane >= last : lane <= last;
    from[l] = is_inside ? lane : l;
    inside |= (is_inside ? 1u : 0u) << l;
  }
  for (int l = 0; l < warp_size; ++l) value[l] = a[from[l]];
  for_each_set(w, in[3], [&](uint32_t lanes) {
    outside |= lanes & mask_lanes(
                           w, [lanes](uint32_t source) { return !(lanes >> source & 1); }, from);
  });
  if (outside) blame(w, "a shuffle takes a value from a lane that does not take part in it");
  if (op.x[0] != no_slot) blend(w.mask, w.of<uint32_t>(op.x[0]), value);
  if (op.immediate && op.x[1] != no_slot) set_predicate(w, op.x[1], inside);
}

Choice select_shfl(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Modifiers m(instruction);
  if (!m.take("sync")) return {};
  const int mode = m.take_one_of({"up", "down", "bfly", "idx"});
  if (mode < 0 || !m.take("b32") || !m.done()) return {};
  static constexpr Handler handlers[] = {shfl<Shuffle::up>, shfl<Shuffle::down>, shfl<Shuffle::bfly>,
                                         shfl<Shuffle::idx>};
  if (operands.size() == 6) return {handlers[mode], {4, 0, 4, 4, 4, 4}, Kind::warp, 1};
  return {handlers[mode], {4, 4, 4, 4, 4}, Kind::warp, 0};
}

/// F(lanes that say yes, lanes asked) for each set.
template <class F>
void vote(Lanes& w, const Op& op) {
  const uint32_t yes = read_predicate(w, op, 1);
  for_each_set(w, op.x[2], [&](uint32_t lanes) { assign_predicate(w, op.x[0], lanes, F{}(yes & lanes, lanes)); });
}

void ballot(Lanes& w, const Op& op) {
  const uint32_t yes = read_predicate(w, op, 1);
  for_each_set(w, op.x[2], [&](uint32_t lanes) { assign(w, op.x[0], lanes, yes & lanes); });
}

Choice select_vote(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const bool sync = m.take("sync");  // vote.sync.all and vote.all.sync are both in use
  const int mode = m.take_one_of({"all", "any", "uni", "ballot"});
  if (!sync || mode < 0 || !m.take(mode == 3 ? "b32" : "pred") || !m.done()) return {};
  constexpr auto all = [](uint32_t yes, uint32_t lanes) { return yes == lanes; };
  constexpr auto any = [](uint32_t yes, uint32_t) { return yes != 0; };
  constexpr auto uni = [](uint32_t yes, uint32_t lanes) { return yes == lanes || yes == 0; };
  static constexpr Handler handlers[] = {vote<decltype(all)>, vote<decltype(any)>, vote<decltype(uni)>, ballot};
  return {handlers[mode], {uint8_t(mode == 3 ? 4 : 0), 0, 4}, Kind::warp};
}

template <class T>
uint32_t lanes_with(const Lanes& w, const T* values, T value) {
  return mask_lanes(
      w, [value](T v) { return v == value; }, values);
}

template <class T>
void match_any(Lanes& w, const Op& op) {
  alignas(64) T values[warp_size];  // d may be the same register
  std::memcpy(values, w.of<T>(op.x[1]), sizeof values);
  for_each_set(w, op.x[2], [&](uint32_t lanes) {
    for (uint32_t left = lanes; left != 0;) {
      const uint32_t same = left & lanes_with(w, values, values[std::countr_zero(left)]);
      assign(w, op.x[0], same, same);
      left &= ~same;
    }
  });
}

/// d{|p}, a, members. The immediate tells whether there is a p.
template <class T>
void match_all(Lanes& w, const Op& op) {
  alignas(64) T values[warp_size];
  std::memcpy(values, w.of<T>(op.x[1 + op.immediate]), sizeof values);
  for_each_set(w, op.x[2 + op.immediate], [&](uint32_t lanes) {
    const bool same = (lanes & ~lanes_with(w, values, values[std::countr_zero(lanes)])) == 0;
    assign(w, op.x[0], lanes, same ? lanes : 0);
    if (op.immediate) assign_predicate(w, op.x[1], lanes, same);
  });
}

Choice select_match(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Modifiers m(instruction);
  const int all = m.take_one_of({"any", "all"});
  if (all < 0 || !m.take("sync")) return {};
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint32_t, uint64_t>("b", type, [&]<class T>() -> Choice {
    if (!all) return {match_any<T>, {4, sizeof(T), 4}, Kind::warp};
    if (operands.size() == 4) return {match_all<T>, {4, 0, sizeof(T), 4}, Kind::warp, 1};
    return {match_all<T>, {4, sizeof(T), 4}, Kind::warp, 0};
  });
}

template <class T, class F>
void redux(Lanes& w, const Op& op) {
  alignas(64) T values[warp_size];
  std::memcpy(values, w.of<T>(op.x[1]), sizeof values);
  for_each_set(w, op.x[2], [&](uint32_t lanes) {
    T result = values[std::countr_zero(lanes)];
    for (uint32_t left = lanes & (lanes - 1); left != 0; left &= left - 1)
      result = F{}(result, values[std::countr_zero(left)]);
    assign(w, op.x[0], lanes, uint32_t(result));
  });
}

Choice select_redux(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  if (!m.take("sync")) return {};
  const int what = m.take_one_of({"add", "min", "max", "and", "or", "xor"});
  const std::string_view type = m.next();
  if (what < 0 || !m.done() || (what >= 3) != (type == "b32")) return {};
  const auto choice = []<class T, class F>(F) { return Choice{redux<T, F>, {4, 4, 4}, Kind::warp}; };
  const auto with = [&]<class T>(auto f) { return choice.template operator()<T>(f); };
  if (what == 3) return with.template operator()<uint32_t>([](uint32_t a, uint32_t b) { return a & b; });
  if (what == 4) return with.template operator()<uint32_t>([](uint32_t a, uint32_t b) { return a | b; });
  if (what == 5) return with.template operator()<uint32_t>([](uint32_t a, uint32_t b) { return a ^ b; });
  return with_type<uint32_t, int32_t>(type, [&]<class T>() {
    if (what == 0) return with.template operator()<T>([](T a, T b) { return T(uint32_t(a) + uint32_t(b)); });
    if (what == 1) return with.template operator()<T>([](T a, T b) { return a < b ? a : b; });
    return with.template operator()<T>([](T a, T b) { return a > b ? a : b; });
  });
}

Choice select_activemask(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  if (!m.take("b32") || !m.done()) return {};
  return {[](Lanes& w, const Op& op) { assign(w, op.x[0], w.mask, w.mask); }, {4}, Kind::warp};
}

/// The lowest member is elected, which PTX leaves open.
void elect(Lanes& w, const Op& op) {
  for_each_set(w, op.x[2], [&](uint32_t lanes) {
    const uint32_t leader = std::countr_zero(lanes);
    assign(w, op.x[0], lanes, leader);
    assign_predicate(w, op.x[1], lanes, false);
    assign_predicate(w, op.x[1], 1u << leader, true);
  });
}

Choice select_elect(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  if (!m.take("sync") || !m.done()) return {};
  return {elect, {4, 0, 4}, Kind::warp};
}

}  // namespace

std::span<const Family> warp_instructions() {
  static const Family families[] = {{"shfl", select_shfl},   {"vote", select_vote},
                                    {"match", select_match}, {"redux", select_redux},
                                    {"elect", select_elect}, {"activemask", select_activemask}};
  return families;
}

}  // namespace gpusim
