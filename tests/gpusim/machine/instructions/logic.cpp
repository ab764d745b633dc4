#include "gpusim/machine/instructions/logic.h"

#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

/// One type modifier: F on whole registers of bits, or on predicates, which are bits already.
template <class F>
Choice bitwise(const ptx::Instruction& instruction, F) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  if (type == "pred")
    return {[](Lanes& w, const Op& op) {
              set_predicate(w, op.x[0], F{}(read_predicate(w, op, 1), read_predicate(w, op, 2)));
            },
            {0, 0, 0},
            Kind::predicate};
  return with_width<uint16_t, uint32_t, uint64_t>(
      "b", type, []<class T>() { return lanewise([](T a, T b) { return T(F{}(a, b)); }); });
}

/// What a table of 8 bits says for each bit of a, b and c (4a + 2b + c is the index).
struct Table {
  uint32_t zero[4], turn[4];  // for each a and b: the answer where c is 0, and whether c changes it
  explicit Table(uint32_t bits) {
    for (int i = 0; i < 4; ++i) {
      zero[i] = bits >> 2 * i & 1 ? ~0u : 0u;
      turn[i] = (bits >> (2 * i + 1) & 1 ? ~0u : 0u) ^ zero[i];
    }
  }
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    const auto of_c = [&](int i) { return zero[i] ^ (turn[i] & c); };
    const auto pick = [](uint32_t by, uint32_t x, uint32_t y) { return (by & x) | (~by & y); };
    return pick(a, pick(b, of_c(3), of_c(2)), pick(b, of_c(1), of_c(0)));
  }
};

void lop3(Lanes& w, const Op& op) {
  map_lanes<uint32_t>(w, op.x[0], Table(op.immediate), w.of<const uint32_t>(op.x[1]), w.of<const uint32_t>(op.x[2]),
                      w.of<const uint32_t>(op.x[3]));
}

/// d|p, a, b, c, table, q: also p = (d != 0) and or or q.
template <bool with_and>
void lop3_pred(Lanes& w, const Op& op) {
  const Table table(op.immediate);
  const auto *a = w.of<const uint32_t>(op.x[2]), *b = w.of<const uint32_t>(op.x[3]), *c = w.of<const uint32_t>(op.x[4]);
  const uint32_t q = read_predicate(w, op, 6),
                 bits = mask_lanes(
                     w, [&](uint32_t i, uint32_t j, uint32_t k) { return table(i, j, k) != 0; }, a, b, c);
  if (op.x[0] != no_slot) map_lanes<uint32_t>(w, op.x[0], table, a, b, c);
  if (op.x[1] != no_slot) set_predicate(w, op.x[1], with_and ? bits & q : bits | q);
}

template <bool left, class T>
T shifted(T a, uint32_t by) {
  constexpr uint32_t width = 8 * sizeof(T);
  if constexpr (left) return T(by < width ? a << (by & (width - 1)) : 0);
  const T rest = std::is_signed_v<T> ? T(a >> (width - 1)) : T(0);
  return by < width ? T(a >> (by & (width - 1))) : rest;
}

/// Bytes of b:a picked by the nibbles of the selector; a nibble's upper bit asks for the byte's sign instead.
uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t nibble = selector >> 4 * i & 0xf;
    uint32_t byte = (nibble & 4 ? b : a) >> 8 * (nibble & 3) & 0xff;
    byte = nibble & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte;
    result |= byte << 8 * i;
  }
  return result;
}

/// A mode of prmt is four selectors, of which the lower two bits of c take one.
template <uint64_t selectors>
Choice permute_mode() {
  return lanewise(
      [](uint32_t a, uint32_t b, uint32_t c) { return permuted(a, b, uint32_t(selectors >> 16 * (c & 3)) & 0xffff); });
}

}  // namespace

Choice select_and(const ptx::Instruction& instruction, std::span<const Shape>) {
  return bitwise(instruction, [](auto a, auto b) { return a & b; });
}

Choice select_or(const ptx::Instruction& instruction, std::span<const Shape>) {
  return bitwise(instruction, [](auto a, auto b) { return a | b; });
}

Choice select_xor(const ptx::Instruction& instruction, std::span<const Shape>) {
  return bitwise(instruction, [](auto a, auto b) { return a ^ b; });
}

Choice select_not(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  if (type == "pred")
    return {
        [](Lanes& w, const Op& op) { set_predicate(w, op.x[0], ~read_predicate(w, op, 1)); }, {0, 0}, Kind::predicate};
  return with_width<uint16_t, uint32_t, uint64_t>("b", type,
                                                  []<class T>() { return lanewise([](T a) { return T(~a); }); });
}

Choice select_cnot(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint16_t, uint32_t, uint64_t>("b", type,
                                                  []<class T>() { return lanewise([](T a) { return T(a == 0); }); });
}

Choice select_lop3(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int combine = m.take_one_of({"and", "or"});
  if (m.next() != "b32" || !m.done() || instruction.operands.size() != (combine < 0 ? 5 : 6)) return {};
  const ptx::Operand& table = instruction.operands[4];
  if (table.kind != ptx::Operand::Kind::immediate || table.value < 0 || table.value > 255) return {};
  if (combine < 0) return {lop3, {4, 4, 4, 4, 4}, Kind::integer, int32_t(table.value)};
  return {
      combine == 0 ? lop3_pred<true> : lop3_pred<false>, {4, 0, 4, 4, 4, 4, 0}, Kind::integer, int32_t(table.value)};
}

Choice select_shl(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint16_t, uint32_t, uint64_t>(
      "b", type, []<class T>() { return lanewise([](T a, uint32_t by) { return shifted<true>(a, by); }); });
}

Choice select_shr(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  const auto shift = []<class T>() { return lanewise([](T a, uint32_t by) { return shifted<false>(a, by); }); };
  Choice choice = with_width<uint16_t, uint32_t, uint64_t>("bu", type, shift);
  return choice.run ? choice : with_type<int16_t, int32_t, int64_t>(type, shift);
}

Choice select_shf(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int right = m.take_one_of({"l", "r"}), clamp = m.take_one_of({"wrap", "clamp"});
  if (right < 0 || clamp < 0 || m.next() != "b32" || !m.done()) return {};
  static constexpr auto both = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
  static constexpr auto at_most_32 = [](uint32_t c) { return c < 32 ? c : 32; };
  if (right && clamp)
    return lanewise([](uint32_t a, uint32_t b, uint32_t c) { return uint32_t(both(a, b) >> at_most_32(c)); });
  if (right) return lanewise([](uint32_t a, uint32_t b, uint32_t c) { return uint32_t(both(a, b) >> (c & 31)); });
  if (clamp)
    return lanewise([](uint32_t a, uint32_t b, uint32_t c) { return uint32_t(both(a, b) << at_most_32(c) >> 32); });
  return lanewise([](uint32_t a, uint32_t b, uint32_t c) { return uint32_t(both(a, b) << (c & 31) >> 32); });
}

Choice select_prmt(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  if (!m.take("b32")) return {};
  const std::string_view mode = m.next();
  if (!m.done()) return {};
  if (mode.empty()) return lanewise([](uint32_t a, uint32_t b, uint32_t c) { return permuted(a, b, c); });
  if (mode == "f4e") return permute_mode<0x6543'5432'4321'3210>();
  if (mode == "b4e") return permute_mode<0x0123'7012'6701'5670>();
  if (mode == "rc8") return permute_mode<0x3333'2222'1111'0000>();
  if (mode == "ecl") return permute_mode<0x3333'3222'3211'3210>();
  if (mode == "ecr") return permute_mode<0x3210'2210'1110'0000>();
  if (mode == "rc16") return permute_mode<0x3232'1010'3232'1010>();
  return {};
}

}  // namespace gpusim
