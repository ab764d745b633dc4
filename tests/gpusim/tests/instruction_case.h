#pragma once
#include <bit>
#include <functional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "gpusim/machine/instruction.h"
#include "gpusim/machine/instructions/select.h"

namespace gpusim {

/// The bits of a value of any width; true is 1.
using Bits = uint128_t;

template <class T>
Bits to_bits(T value) {
  if constexpr (std::is_same_v<T, float>)
    return std::bit_cast<uint32_t>(value);
  else if constexpr (std::is_same_v<T, double>)
    return std::bit_cast<uint64_t>(value);
  else if constexpr (std::is_same_v<T, bool> || sizeof(T) == 16)
    return Bits(value);
  else
    return std::make_unsigned_t<T>(value);
}

template <class T>
T from_bits(Bits bits) {
  if constexpr (std::is_same_v<T, bool>)
    return bits != 0;
  else if constexpr (std::is_same_v<T, float>)
    return std::bit_cast<float>(uint32_t(bits));
  else if constexpr (std::is_same_v<T, double>)
    return std::bit_cast<double>(uint64_t(bits));
  else
    return T(bits);
}

/// Variants (ptx::Instruction::variant) that ran in this process' InstructionCases.
std::set<std::string>& tested_variants();

/// One instruction with registers of its own for 32 lanes: decoded from PTX text as the machine does it. Registers are
/// named by what they hold: %p predicates, %b8_, %h 16, %r 32, %d 64 and %q 128 bits; each with a number from 0 to 15.
class InstructionCase {
 public:
  struct alignas(64) Line {
    std::byte bytes[64];
  };

  /// Throws Error if choose() does not know the instruction, or wants registers of other widths.
  explicit InstructionCase(std::string_view text);

  const ptx::Instruction& instruction() const { return instruction_; }
  size_t operands() const { return slots_.size(); }
  bool is_register(size_t operand) const { return shapes_[operand].is_register; }
  bool is_ignored(size_t operand) const { return slots_[operand] == no_slot; }
  uint8_t bytes(size_t operand) const { return bytes_[operand]; }

  /// Operands are counted as in Op: vectors and pairs element by element. Ignored ones have no values.
  void set(size_t operand, int lane, Bits value) { store(slots_[operand], bytes_[operand], lane, value); }
  Bits get(size_t operand, int lane) const { return get(operand, lane, memory); }
  Bits get(size_t operand, int lane, const std::vector<Line>& from) const {
    return load(from, slots_[operand], bytes_[operand], lane);
  }
  template <class F>
  void set_each(size_t operand, F&& value_of_lane) {
    for (int l = 0; l < warp_size; ++l) set(operand, l, to_bits(value_of_lane(l)));
  }
  bool carry(int lane) const { return load(memory, carry_slot, 0, lane) != 0; }
  void set_carry(int lane, bool flag) { store(carry_slot, 0, lane, flag); }

  /// Both operands in one register from now on.
  void share(size_t operand, size_t with) { slots_[operand] = slots_[with]; }

  /// Runs it; the answer is what the instruction found wrong with its lanes, or null.
  const char* run(uint32_t mask = all_lanes, uint32_t exited = 0);

  std::vector<Line> memory;  ///< all registers

 private:
  void store(Slot slot, uint8_t bytes, int lane, Bits value);
  static Bits load(const std::vector<Line>& from, Slot slot, uint8_t bytes, int lane);

  ptx::Instruction instruction_;
  std::vector<Shape> shapes_;
  std::vector<uint8_t> bytes_;
  std::vector<Slot> slots_;
  Op op_;
};

/// The carry flag for a reference that has it as its last parameter.
struct Carry {
  bool flag = false;
};

struct CheckOptions {
  /// Values to try for each source operand, instead of those that its type suggests (where not empty).
  std::vector<std::vector<Bits>> values;
  /// Whether a result will do; bit for bit if empty.
  std::function<bool(Bits expected, Bits got)> same;
};

/// A scalar reference without its types.
struct Reference {
  struct Type {
    uint8_t bytes = 0;  ///< 0: a predicate
    bool is_float = false;
  };
  std::vector<Type> results, arguments;
  std::function<void(const Bits* arguments, Bits* results, Carry& carry)> run;
};

/// Runs an instruction on edge values of its sources, crossed, and on random ones, with full and partial masks and with
/// the destinations in the sources' registers; compares each executing lane with the reference, and all other
/// registers and lanes (and the carry flag) with what they were.
void check_instruction(std::string_view text, const Reference& reference, const CheckOptions& options = {});

template <class T>
constexpr Reference::Type reference_type() {
  return {uint8_t(std::is_same_v<T, bool> ? 0 : sizeof(T)), std::is_floating_point_v<T>};
}

template <class R>
struct ResultTypes {
  static std::vector<Reference::Type> types() { return {reference_type<R>()}; }
  static void store(const R& result, Bits* to) { *to = to_bits(result); }
};
template <class... R>
struct ResultTypes<std::tuple<R...>> {
  static std::vector<Reference::Type> types() { return {reference_type<R>()...}; }
  static void store(const std::tuple<R...>& result, Bits* to) {
    std::apply([&](auto... value) { ((*to++ = to_bits(value)), ...); }, result);
  }
};

template <class F>
struct ReferenceOf : ReferenceOf<decltype(&F::operator())> {};
template <class F, class R, class... A>
struct ReferenceOf<R (F::*)(A...) const> {
  static constexpr size_t arguments = sizeof...(A) - (0 + ... + size_t(std::is_same_v<A, Carry&>));
  using All = std::tuple<A...>;

  static Reference make(F f) {
    Reference reference;
    reference.results = ResultTypes<R>::types();
    [&]<size_t... i>(std::index_sequence<i...>) {
      reference.arguments = {reference_type<std::tuple_element_t<i, All>>()...};
      reference.run = [f](const Bits* a, Bits* results, Carry& carry) {
        if constexpr (arguments < sizeof...(A))
          ResultTypes<R>::store(f(from_bits<std::tuple_element_t<i, All>>(a[i])..., carry), results);
        else
          ResultTypes<R>::store(f(from_bits<std::tuple_element_t<i, All>>(a[i])...), results);
      };
    }
    (std::make_index_sequence<arguments>{});
    return reference;
  }
};

/// The reference is a lambda of one lane: its parameters are the source registers in their order (immediates are left
/// out, `!` is for it to apply), what it returns are the destinations (a std::tuple of several).
template <class F>
void check_instruction(std::string_view text, F reference, const CheckOptions& options = {}) {
  check_instruction(text, ReferenceOf<F>::make(reference), options);
}

/// That choose() knows no such instruction, or not with these operands.
void check_unknown(std::string_view text);

}  // namespace gpusim
