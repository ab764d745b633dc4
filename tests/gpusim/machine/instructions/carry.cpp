#include "gpusim/machine/instructions/integer.h"
#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

// Bits of Op::immediate.
constexpr int32_t takes_carry = 1, gives_carry = 2;

/// F(arguments…, carry) is computed twice as wide; what lies above T is the carry, or the borrow of a difference.
template <class T, class F, class... A>
void run_with_carry(Lanes& w, const Op& op, const A*... arguments) {
  alignas(64) T carry[warp_size];
  const uint32_t bits = op.immediate & takes_carry ? w.predicate(carry_slot) : 0;
  for (int l = 0; l < warp_size; ++l) carry[l] = bits >> l & 1;
  const uint32_t out = mask_lanes(
      w, [](A... a, T c) { return (F{}(a..., c) >> 8 * sizeof(T) & 1) != 0; }, arguments..., carry);
  map_lanes<T>(
      w, op.x[0], [](A... a, T c) { return T(F{}(a..., c)); }, arguments..., carry);
  if (op.immediate & gives_carry) set_predicate(w, carry_slot, out);
}

template <class T, class F>
void sum_with_carry(Lanes& w, const Op& op) {
  run_with_carry<T, F>(w, op, w.of<const T>(op.x[1]), w.of<const T>(op.x[2]));
}

template <class T, class F>
void mad_with_carry(Lanes& w, const Op& op) {
  run_with_carry<T, F>(w, op, w.of<const T>(op.x[1]), w.of<const T>(op.x[2]), w.of<const T>(op.x[3]));
}

constexpr auto sum = []<class T>(T a, T b, T carry) { return Wide<T>(Wide<T>(a) + b + carry); };
constexpr auto difference = []<class T>(T a, T b, T borrow) { return Wide<T>(Wide<T>(a) - b - borrow); };

template <class F>
Choice sums(std::string_view type, F, int32_t carries) {
  return with_width<uint32_t, uint64_t>("us", type, [&]<class T>() -> Choice {
    constexpr uint8_t n = sizeof(T);
    return {sum_with_carry<T, F>, {n, n, n}, Kind::integer, carries};
  });
}

/// {.cc} and the type, after what the caller has read.
template <class F>
Choice sums_taking_carry(const ptx::Instruction& instruction, F f) {
  Modifiers m(instruction);
  const int32_t gives = m.take("cc") ? gives_carry : 0;
  const std::string_view type = m.next();
  return m.done() ? sums(type, f, takes_carry | gives) : Choice{};
}

template <class F>
Choice sums_giving_carry(const ptx::Instruction& instruction, F f) {
  Modifiers m(instruction);
  const bool gives = m.take("cc");
  const std::string_view type = m.next();
  return gives && m.done() ? sums(type, f, gives_carry) : Choice{};
}

Choice mads(const ptx::Instruction& instruction, int32_t takes) {
  Modifiers m(instruction);
  const int high = m.take_one_of({"lo", "hi"});
  const int32_t gives = m.take("cc") ? gives_carry : 0;
  const std::string_view type = m.next();
  if (high < 0 || !(takes | gives) || !m.done()) return {};
  return with_type<uint32_t, int32_t, uint64_t, int64_t>(type, [&]<class T>() -> Choice {
    using U = std::make_unsigned_t<T>;
    constexpr uint8_t n = sizeof(T);
    constexpr auto low = [](U a, U b, U c, U carry) { return sum(product_low(a, b), c, carry); };
    constexpr auto top = [](U a, U b, U c, U carry) {
      return Wide<U>(Wide<U>(U(product_high(T(a), T(b)))) + c + carry);
    };
    return {high ? mad_with_carry<U, decltype(top)> : mad_with_carry<U, decltype(low)>,
            {n, n, n, n},
            Kind::integer,
            takes | gives};
  });
}

}  // namespace

Choice select_add_cc(const ptx::Instruction& instruction, std::span<const Shape>) {
  return sums_giving_carry(instruction, sum);
}

Choice select_addc(const ptx::Instruction& instruction, std::span<const Shape>) {
  return sums_taking_carry(instruction, sum);
}

Choice select_sub_cc(const ptx::Instruction& instruction, std::span<const Shape>) {
  return sums_giving_carry(instruction, difference);
}

Choice select_subc(const ptx::Instruction& instruction, std::span<const Shape>) {
  return sums_taking_carry(instruction, difference);
}

Choice select_mad_cc(const ptx::Instruction& instruction, std::span<const Shape>) { return mads(instruction, 0); }

Choice select_madc(const ptx::Instruction& instruction, std::span<const Shape>) {
  return mads(instruction, takes_carry);
}

}  // namespace gpusim
