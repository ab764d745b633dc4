#include <bit>
#include <cfloat>

#include "gpusim/machine/instructions/half.h"
#include "gpusim/machine/instructions/logic.h"
#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

// A comparison asks whether two values are in one of the relations of a set. All instructions on a type share one
// handler, which finds the relation of each lane's values and looks whether it is in the set.
enum : uint8_t { less = 1, equal = 2, greater = 4, unordered = 8 };

enum class Combine : uint8_t { none, logical_and, logical_or, logical_xor };

/// Op::immediate of set and setp.
struct Comparison {
  uint8_t relations = 0;
  Combine combine = Combine::none;
  bool pair = false;   // setp: p|q
  uint8_t result = 0;  // set: index into results
};

struct Result {
  std::string_view type;
  uint8_t bytes;
  uint32_t yes;
};
constexpr Result results[] = {
    {"u32", 4, ~0u},
    {"s32", 4, ~0u},
    {"f32", 4, 0x3f800000},
    {"u16", 2, 0xffff},
    {"s16", 2, 0xffff},
    {"f16", 2, 0x3c00},
    {"bf16", 2, 0x3f80},
    // of packed comparisons: what each half becomes
    {"u32", 4, 0xffff},
    {"s32", 4, 0xffff},
    {"f16x2", 4, 0x3c00},
    {"bf16x2", 4, 0x3f80},
};
constexpr uint8_t first_packed_result = 7;

// How the values to compare lie in a register.
template <class T>
struct Plain {
  using Register = T;
  static T value(T x) { return x; }
};

struct F32Flushed {
  using Register = float;
  static float value(float x) { return x < FLT_MIN && x > -FLT_MIN ? 0 : x; }
};

template <bool flushed>
struct F16 {
  using Register = uint16_t;
  static float value(uint16_t x) { return f16_to_float(flushed && (x & 0x7c00) == 0 ? 0 : x); }
};

struct Bf16 {
  using Register = uint16_t;
  static float value(uint16_t x) { return bf16_to_float(x); }
};

/// The lower or upper half of a register.
template <class Format, int half>
struct Packed {
  using Register = uint32_t;
  static float value(uint32_t x) { return Format::value(uint16_t(x >> 16 * half)); }
};

template <class Format>
uint32_t compare(const Lanes& w, Slot x, Slot y, uint32_t relations) {
  using Register = typename Format::Register;
  // The unordered relation is what is left, so if it is in the set, ask whether none of the others applies that is not.
  const uint32_t turn = relations & unordered ? 1 : 0, asked = turn ? ~relations : relations;
  const uint32_t below = asked & less ? 1 : 0, same = asked & equal ? 1 : 0, above = asked & greater ? 1 : 0;
  return mask_lanes(
      w,
      [=](Register p, Register q) {
        const auto a = Format::value(p), b = Format::value(q);
        return (((a < b ? below : 0) | (a == b ? same : 0) | (a > b ? above : 0)) ^ turn) != 0;
      },
      w.of<const Register>(x), w.of<const Register>(y));
}

uint32_t combined(const Lanes& w, const Op& op, Combine how, uint32_t bits, int operand) {
  switch (how) {
    case Combine::logical_and:
      return bits & read_predicate(w, op, operand);
    case Combine::logical_or:
      return bits | read_predicate(w, op, operand);
    case Combine::logical_xor:
      return bits ^ read_predicate(w, op, operand);
    default:
      return bits;
  }
}

/// Both results of setp; the combining operand may be one of the destinations, so it is read before either is written.
void set_both(const Lanes& w, const Op& op, const Comparison& how, uint32_t p, uint32_t q) {
  const int last = how.pair ? 4 : 3;
  p = combined(w, op, how.combine, p, last);
  q = combined(w, op, how.combine, q, last);
  if (op.x[0] != no_slot) set_predicate(w, op.x[0], p);
  if (how.pair && op.x[1] != no_slot) set_predicate(w, op.x[1], q);
}

template <class Format>
void setp(Lanes& w, const Op& op) {
  const auto how = std::bit_cast<Comparison>(op.immediate);
  const uint32_t hit = compare<Format>(w, op.x[1 + how.pair], op.x[2 + how.pair], how.relations);
  set_both(w, op, how, hit, ~hit);
}

template <class Format>
void setp_packed(Lanes& w, const Op& op) {
  const auto how = std::bit_cast<Comparison>(op.immediate);
  const uint32_t low = compare<Packed<Format, 0>>(w, op.x[2], op.x[3], how.relations);
  const uint32_t high = compare<Packed<Format, 1>>(w, op.x[2], op.x[3], how.relations);
  set_both(w, op, how, low, high);
}

template <class R>
void write_results(const Lanes& w, const Op& op, uint32_t low, uint32_t high, uint32_t yes) {
  alignas(64) R result[warp_size];
  for (int l = 0; l < warp_size; ++l) {
    result[l] = R(low >> l & 1 ? yes : 0);
    if constexpr (sizeof(R) == 4) result[l] |= (high >> l & 1 ? yes << 16 : 0);
  }
  blend(w.mask, w.of<R>(op.x[0]), result);
}

template <class Format>
void set(Lanes& w, const Op& op) {
  const auto how = std::bit_cast<Comparison>(op.immediate);
  const Result& result = results[how.result];
  const uint32_t hit = combined(w, op, how.combine, compare<Format>(w, op.x[1], op.x[2], how.relations), 3);
  if (result.bytes == 4)
    write_results<uint32_t>(w, op, hit, 0, result.yes);
  else
    write_results<uint16_t>(w, op, hit, 0, result.yes);
}

template <class Format>
void set_packed(Lanes& w, const Op& op) {
  const auto how = std::bit_cast<Comparison>(op.immediate);
  const uint32_t low = compare<Packed<Format, 0>>(w, op.x[1], op.x[2], how.relations);
  const uint32_t high = compare<Packed<Format, 1>>(w, op.x[1], op.x[2], how.relations);
  write_results<uint32_t>(w, op, combined(w, op, how.combine, low, 3), combined(w, op, how.combine, high, 3),
                          results[how.result].yes);
}

uint8_t relations_of(std::string_view name, std::string_view type) {
  struct Named {
    std::string_view name;
    uint8_t relations;
  };
  static constexpr Named relations[] = {
      {"lt", less},    {"le", less | equal},    {"gt", greater}, {"ge", greater | equal},
      {"eq", equal},   {"ne", less | greater},  {"lo", less},    {"ls", less | equal},
      {"hi", greater}, {"hs", greater | equal}, {"num", 7},      {"nan", unordered}};
  const char kind = type[0];
  const bool is_float = kind == 'f' || type.starts_with("bf");
  const bool with_unordered = is_float && name.size() == 3 && name[2] == 'u';
  const std::string_view base = with_unordered ? name.substr(0, 2) : name;
  const bool of_unsigned = base == "lo" || base == "ls" || base == "hi" || base == "hs";
  if ((is_float && of_unsigned) || (!is_float && (name.size() == 3 || (of_unsigned && kind != 'u')))) return 0;
  if (kind == 'b' && !is_float && name != "eq" && name != "ne") return 0;
  for (const Named& named : relations)
    if (named.name == base) return named.relations | (with_unordered ? unordered : 0);
  return 0;
}

/// What set and setp have in common, for operands of this type: .CmpOp{.BoolOp}{.ftz}.
bool read_comparison(Modifiers& m, std::string_view type, Comparison& how, bool& ftz) {
  how.combine = Combine(m.take_one_of({"and", "or", "xor"}) + 1);
  ftz = m.take("ftz");
  how.relations = relations_of(m.next(), type);
  return how.relations != 0 && (!ftz || type == "f32" || type == "f16" || type == "f16x2");
}

/// Which results set has for a type.
bool has_result(std::string_view type, std::string_view result) {
  if (type.ends_with("x2")) return !result.ends_with("x2") || result == type;
  const bool half = type == "f16" || type == "bf16";
  if (result == "u16" || result == "s16") return half;
  return !(half && result == "f32") && !(type == "bf16" && result == "f16");
}

/// make<Format>() for the format of a type; packed ones are apart.
template <class Make>
Handler handler_of(std::string_view type, bool ftz, Make&& make) {
  if (type == "f32") return ftz ? make.template operator()<F32Flushed>() : make.template operator()<Plain<float>>();
  if (type == "f64") return make.template operator()<Plain<double>>();
  if (type == "f16") return ftz ? make.template operator()<F16<true>>() : make.template operator()<F16<false>>();
  if (type == "bf16") return make.template operator()<Bf16>();
  if (type == "u16" || type == "b16") return make.template operator()<Plain<uint16_t>>();
  if (type == "u32" || type == "b32") return make.template operator()<Plain<uint32_t>>();
  if (type == "u64" || type == "b64") return make.template operator()<Plain<uint64_t>>();
  if (type == "s16") return make.template operator()<Plain<int16_t>>();
  if (type == "s32") return make.template operator()<Plain<int32_t>>();
  if (type == "s64") return make.template operator()<Plain<int64_t>>();
  return nullptr;
}

uint8_t bytes_of(std::string_view type) {
  if (type == "f16x2" || type == "bf16x2" || type.ends_with("32")) return 4;
  return type.ends_with("64") ? 8 : 2;
}

}  // namespace

Choice select_setp(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  if (instruction.modifiers.empty()) return {};
  Modifiers m(instruction);
  const std::string_view type = instruction.modifiers.back();
  Comparison how;
  bool ftz = false;
  if (!read_comparison(m, type, how, ftz) || m.next() != type || !m.done()) return {};
  const size_t combining = how.combine != Combine::none;
  how.pair = operands.size() == 4 + combining;
  Choice choice{nullptr, {}, Kind::predicate, std::bit_cast<int32_t>(how)};
  choice.bytes.assign(how.pair ? 2 : 1, 0);
  choice.bytes.insert(choice.bytes.end(), 2, bytes_of(type));
  choice.bytes.insert(choice.bytes.end(), combining, 0);
  const bool packed = type == "f16x2" || type == "bf16x2";
  if (packed || type == "f16" || type == "bf16") {  // p|q is for both halves, and them only
    if (how.pair != packed) return {};
  }
  if (type == "f16x2")
    choice.run = ftz ? setp_packed<F16<true>> : setp_packed<F16<false>>;
  else if (packed)
    choice.run = setp_packed<Bf16>;
  else
    choice.run = handler_of(type, ftz, []<class Format>() -> Handler { return setp<Format>; });
  return choice;
}

Choice select_set(const ptx::Instruction& instruction, std::span<const Shape>) {
  if (instruction.modifiers.empty()) return {};
  Modifiers m(instruction);
  const std::string_view type = instruction.modifiers.back();
  Comparison how;
  bool ftz = false;
  if (!read_comparison(m, type, how, ftz)) return {};
  const std::string_view to = m.next();
  if (m.next() != type || !m.done()) return {};
  const bool packed = type.ends_with("x2");
  const size_t end = packed ? std::size(results) : first_packed_result;
  how.result = packed ? first_packed_result : 0;
  while (how.result < end && results[how.result].type != to) ++how.result;
  if (how.result == end || !has_result(type, to)) return {};
  const uint8_t n = bytes_of(type);
  Choice choice{nullptr, {results[how.result].bytes, n, n}, Kind::predicate, std::bit_cast<int32_t>(how)};
  choice.bytes.insert(choice.bytes.end(), how.combine != Combine::none, 0);
  if (type == "f16x2")
    choice.run = ftz ? set_packed<F16<true>> : set_packed<F16<false>>;
  else if (type == "bf16x2")
    choice.run = set_packed<Bf16>;
  else
    choice.run = handler_of(type, ftz, []<class Format>() -> Handler { return set<Format>; });
  return choice;
}

}  // namespace gpusim
