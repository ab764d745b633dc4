#pragma once
#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <type_traits>
#include <utility>

#include "gpusim/machine/instruction.h"

namespace gpusim {

// What the files of this folder share: reading modifiers, finding the C++ type for a PTX type, and making a handler of
// a function of one lane.

__extension__ using uint128_t = unsigned __int128;
__extension__ using int128_t = __int128;

/// An instruction's modifiers. Each is taken once, and none may be left in the end. Those asked for by name may stand
/// anywhere (max.s32.relu is as good as max.relu.s32, for ptxas too); types and the like are read from left to right.
class Modifiers {
 public:
  explicit Modifiers(const ptx::Instruction& instruction)
      : left_(instruction.modifiers.begin(), instruction.modifiers.end()) {}

  bool done() const { return left_.empty(); }
  std::string_view next() {
    if (left_.empty()) return {};
    const std::string_view first = left_.front();
    left_.erase(left_.begin());
    return first;
  }
  bool take(std::string_view name) {
    const auto found = std::find(left_.begin(), left_.end(), name);
    if (found == left_.end()) return false;
    left_.erase(found);
    return true;
  }
  /// The index of the first of these names that is there, which is then taken; -1 if none is.
  int take_one_of(std::initializer_list<std::string_view> names) {
    int i = 0;
    for (std::string_view name : names) {
      if (take(name)) return i;
      ++i;
    }
    return -1;
  }

 private:
  std::vector<std::string_view> left_;
};

template <class T>
constexpr std::string_view bits_name() {
  constexpr std::string_view names[] = {"8", "16", "32", "64", "128"};
  return names[sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : sizeof(T) == 8 ? 3 : 4];
}

/// f<T>() for the one of these types that PTX calls so: "u16", "s32", "f64"; else no Choice.
template <class... T, class F>
Choice with_type(std::string_view name, F&& f) {
  Choice choice;
  const auto is = [name]<class U>() {
    constexpr char kind = std::is_floating_point_v<U> ? 'f' : std::is_signed_v<U> ? 's' : 'u';
    return !name.empty() && name[0] == kind && name.substr(1) == bits_name<U>();
  };
  (void)((is.template operator()<T>() && (choice = f.template operator()<T>(), true)) || ...);
  return choice;
}

/// f<T>() for the one of these unsigned types that is as wide as the type called `name`, where only the width matters.
/// `kinds` are the first letters that the instruction takes, of b, u, s and f (f32 and f64).
template <class... T, class F>
Choice with_width(std::string_view kinds, std::string_view name, F&& f) {
  Choice choice;
  if (name.empty() || kinds.find(name[0]) == std::string_view::npos || name == "f16") return choice;
  (void)((name.substr(1) == bits_name<T>() && (choice = f.template operator()<T>(), true)) || ...);
  return choice;
}

template <class F>
struct OfLanes : OfLanes<decltype(&F::operator())> {};

template <class F, class R, class... A>
struct OfLanes<R (F::*)(A...) const> {
  static void run(Lanes& w, const Op& op) {
    [&]<size_t... i>(std::index_sequence<i...>) { map_lanes<R>(w, op.x[0], F{}, w.of<const A>(op.x[i + 1])...); }
    (std::index_sequence_for<A...>{});
  }
  static Choice choice(Kind kind) { return {run, {uint8_t(sizeof(R)), uint8_t(sizeof(A))...}, kind}; }
};

/// The instruction that does to each lane what f, a lambda without captures, does to values of its parameter types.
template <class F>
Choice lanewise(F, Kind kind = Kind::integer) {
  return OfLanes<F>::choice(kind);
}

/// A predicate operand, turned round if it is !%p.
inline uint32_t read_predicate(const Lanes& w, const Op& op, int i) {
  return w.predicate(op.operands[i]) ^ (op.negated >> i & 1 ? ~0u : 0u);
}

}  // namespace gpusim
