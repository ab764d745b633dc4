#include "gpusim/machine/instructions/integer.h"

#include <bit>
#include <limits>

#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

constexpr uint32_t low_half = 0xffff;

/// What PTX calls s16x2 or u16x2: f for each half of a word.
template <class T, class F>
Choice halves(F) {
  return lanewise([](uint32_t a, uint32_t b) {
    const T low = F{}(T(a & low_half), T(b & low_half)), high = F{}(T(a >> 16), T(b >> 16));
    return uint32_t(uint16_t(low)) | uint32_t(uint16_t(high)) << 16;
  });
}

template <class F>
Choice halves_of(std::string_view type, F f) {
  if (type == "s16x2") return halves<int16_t>(f);
  if (type == "u16x2") return halves<uint16_t>(f);
  return {};
}

template <class F>
Choice any_integer(std::string_view type, F&& f) {
  return with_type<uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>(type, f);
}

int32_t saturated(int64_t x) {
  constexpr int64_t low = std::numeric_limits<int32_t>::min(), high = std::numeric_limits<int32_t>::max();
  return int32_t(x < low ? low : x > high ? high : x);
}

template <class T>
T negated(T a) {
  return T(Unsigned<T>{0} - Unsigned<T>(a));
}

Choice add(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const bool sat = m.take("sat");
  const std::string_view type = m.next();
  if (!m.done()) return {};
  if (sat)
    return with_type<int32_t>(type,
                              []<class T>() { return lanewise([](T a, T b) { return saturated(int64_t{a} + b); }); });
  const Choice packed = halves_of(type, [](auto a, auto b) { return decltype(a)(a + b); });
  if (packed.run) return packed;
  return any_integer(type,
                     []<class T>() { return lanewise([](T a, T b) { return T(Unsigned<T>(a) + Unsigned<T>(b)); }); });
}

Choice sub(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const bool sat = m.take("sat");
  const std::string_view type = m.next();
  if (!m.done()) return {};
  if (sat)
    return with_type<int32_t>(type,
                              []<class T>() { return lanewise([](T a, T b) { return saturated(int64_t{a} - b); }); });
  return any_integer(type,
                     []<class T>() { return lanewise([](T a, T b) { return T(Unsigned<T>(a) - Unsigned<T>(b)); }); });
}

Choice mul(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int part = m.take_one_of({"lo", "hi", "wide"});
  const std::string_view type = m.next();
  if (part < 0 || !m.done()) return {};
  if (part == 2)
    return with_type<uint16_t, int16_t, uint32_t, int32_t>(
        type, []<class T>() { return lanewise([](T a, T b) { return Wide<T>(Wide<T>(a) * b); }); });
  return any_integer(type, [&]<class T>() {
    return part ? lanewise([](T a, T b) { return product_high(a, b); })
                : lanewise([](T a, T b) { return product_low(a, b); });
  });
}

Choice mad(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int part = m.take_one_of({"lo", "hi", "wide"});
  const bool sat = m.take("sat");
  const std::string_view type = m.next();
  if (part < 0 || !m.done() || (sat && part != 1)) return {};
  if (part == 2)
    return with_type<uint16_t, int16_t, uint32_t, int32_t>(type, []<class T>() {
      return lanewise([](T a, T b, Wide<T> c) { return Wide<T>(Unsigned<Wide<T>>(Wide<T>(a) * b) + c); });
    });
  if (sat)
    return with_type<int32_t>(type, []<class T>() {
      return lanewise([](T a, T b, T c) { return saturated(int64_t{product_high(a, b)} + c); });
    });
  return any_integer(type, [&]<class T>() {
    return part ? lanewise([](T a, T b, T c) { return T(Unsigned<T>(product_high(a, b)) + Unsigned<T>(c)); })
                : lanewise([](T a, T b, T c) { return T(Unsigned<T>(product_low(a, b)) + Unsigned<T>(c)); });
  });
}

/// The product of the lower 24 bits of a and b; 48 bits.
template <class T>
Wide<T> product_24(T a, T b) {
  constexpr int unused = 8;
  const auto low = [](T x) { return Wide<T>(T(uint32_t(x) << unused) >> unused); };
  return low(a) * low(b);
}

Choice mul24(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int high = m.take_one_of({"lo", "hi"});
  const std::string_view type = m.next();
  if (high < 0 || !m.done()) return {};
  return with_type<uint32_t, int32_t>(type, [&]<class T>() {
    return high ? lanewise([](T a, T b) { return T(product_24(a, b) >> 16); })
                : lanewise([](T a, T b) { return T(product_24(a, b)); });
  });
}

Choice mad24(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int high = m.take_one_of({"lo", "hi"});
  const bool sat = m.take("sat");
  const std::string_view type = m.next();
  if (high < 0 || !m.done() || (sat && !high)) return {};
  if (sat)
    return with_type<int32_t>(type, []<class T>() {
      return lanewise([](T a, T b, T c) { return saturated(int64_t{T(product_24(a, b) >> 16)} + c); });
    });
  return with_type<uint32_t, int32_t>(type, [&]<class T>() {
    return high ? lanewise([](T a, T b, T c) { return T(uint32_t(product_24(a, b) >> 16) + uint32_t(c)); })
                : lanewise([](T a, T b, T c) { return T(uint32_t(product_24(a, b)) + uint32_t(c)); });
  });
}

/// By zero PTX promises nothing; machines give all ones. Quotients of up to 32 bits are exact in double, which has
/// vector instructions.
template <class T>
T quotient(T a, T b) {
  if constexpr (sizeof(T) <= 4) {
    const T divisor = b == 0 ? T(1) : b;
    const T result = T(int64_t(double(a) / double(divisor)));
    return b == 0 ? T(-1) : result;
  } else {
    if (b == 0) return T(-1);
    if (std::is_signed_v<T> && b == T(-1)) return negated(a);  // would trap for the least number
    return a / b;
  }
}

Choice div(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return any_integer(type, []<class T>() { return lanewise([](T a, T b) { return quotient(a, b); }); });
}

Choice rem(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return any_integer(type, []<class T>() {
    return lanewise([](T a, T b) { return T(Unsigned<T>(a) - Unsigned<T>(product_low(quotient(a, b), b))); });
  });
}

Choice abs(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_type<int16_t, int32_t, int64_t>(
      type, []<class T>() { return lanewise([](T a) { return a < 0 ? negated(a) : a; }); });
}

Choice neg(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_type<int16_t, int32_t, int64_t>(type, []<class T>() { return lanewise([](T a) { return negated(a); }); });
}

/// min or max; relu raises what is negative to zero.
template <class F>
Choice extremum(const ptx::Instruction& instruction, F pick) {
  Modifiers m(instruction);
  const bool relu = m.take("relu");
  const std::string_view type = m.next();
  if (!m.done() || (relu && type != "s32" && type != "s16x2")) return {};
  static constexpr auto at_least_0 = [](auto a, auto b) {
    const auto x = F{}(a, b);
    return x < 0 ? decltype(a)(0) : x;
  };
  if (relu && type == "s32") return lanewise([](int32_t a, int32_t b) { return at_least_0(a, b); });
  if (relu) return halves<int16_t>(at_least_0);
  const Choice packed = halves_of(type, pick);
  if (packed.run) return packed;
  return any_integer(type, []<class T>() { return lanewise([](T a, T b) { return F{}(a, b); }); });
}

Choice min(const ptx::Instruction& instruction, std::span<const Shape>) {
  return extremum(instruction, [](auto a, auto b) { return a < b ? a : b; });
}

Choice max(const ptx::Instruction& instruction, std::span<const Shape>) {
  return extremum(instruction, [](auto a, auto b) { return a > b ? a : b; });
}

Choice sad(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return any_integer(type, []<class T>() {
    return lanewise([](T a, T b, T c) {
      const T large = a < b ? b : a, small = a < b ? a : b;
      return T(Unsigned<T>(c) + Unsigned<T>(large) - Unsigned<T>(small));
    });
  });
}

Choice popc(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint32_t, uint64_t>(
      "b", type, []<class T>() { return lanewise([](T a) { return uint32_t(std::popcount(a)); }); });
}

Choice clz(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint32_t, uint64_t>(
      "b", type, []<class T>() { return lanewise([](T a) { return uint32_t(std::countl_zero(a)); }); });
}

template <class T>
T field(T a, uint32_t position, uint32_t length) {
  constexpr uint32_t width = 8 * sizeof(T);
  const uint32_t from = position & 0xff, bits = length & 0xff, last = width - 1;
  const T beyond = std::is_signed_v<T> ? T(a >> last) : T(0);
  const T rest = from < width ? T(a >> (from & last)) : beyond;
  const uint32_t unused = (width - bits) & last;
  const T cut = T(T(Unsigned<T>(rest) << unused) >> unused);
  return bits == 0 ? T(0) : bits < width ? cut : rest;
}

Choice bfe(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_type<uint32_t, int32_t, uint64_t, int64_t>(type, []<class T>() {
    return lanewise([](T a, uint32_t position, uint32_t length) { return field(a, position, length); });
  });
}

template <class T>
T inserted(T a, T b, uint32_t position, uint32_t length) {
  constexpr uint32_t width = 8 * sizeof(T);
  const uint32_t at = position & 0xff, bits = length & 0xff;
  const T ones = bits < width ? T((T{1} << (bits & (width - 1))) - 1) : T(~T{0});
  const T mask = at < width ? T(ones << (at & (width - 1))) : T(0);
  return T((b & ~mask) | (a << (at & (width - 1)) & mask));
}

Choice bfi(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint32_t, uint64_t>("b", type, []<class T>() {
    return lanewise([](T a, T b, uint32_t position, uint32_t length) { return inserted(a, b, position, length); });
  });
}

/// f<A, B>() for the signedness of two words.
template <class F>
Choice with_signs(std::string_view a, std::string_view b, F&& f) {
  return with_type<uint32_t, int32_t>(a, [&]<class A>() {
    return with_type<uint32_t, int32_t>(b, [&]<class B>() { return f.template operator()<A, B>(); });
  });
}

/// The i-th part of x, `bits` wide, with the sign that T has.
template <class T>
uint32_t part(T x, int i, int bits) {
  return uint32_t(T(uint32_t(x) << (32 - bits - i * bits)) >> (32 - bits));
}

Choice dp4a(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view a_type = m.next(), b_type = m.next();
  if (!m.done()) return {};
  return with_signs(a_type, b_type, []<class A, class B>() {
    return lanewise([](A a, B b, uint32_t c) {
      for (int i = 0; i < 4; ++i) c += part(a, i, 8) * part(b, i, 8);
      return c;
    });
  });
}

Choice dp2a(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int high = m.take_one_of({"lo", "hi"});
  const std::string_view a_type = m.next(), b_type = m.next();
  if (high < 0 || !m.done()) return {};
  return with_signs(a_type, b_type, [&]<class A, class B>() {
    return high ? lanewise([](A a, B b, uint32_t c) {
      return c + part(a, 0, 16) * part(b, 2, 8) + part(a, 1, 16) * part(b, 3, 8);
    })
                : lanewise([](A a, B b, uint32_t c) {
                    return c + part(a, 0, 16) * part(b, 0, 8) + part(a, 1, 16) * part(b, 1, 8);
                  });
  });
}

}  // namespace

std::span<const Family> integer_instructions() {
  static const Family families[] = {
      {"add", add},           {"add", select_add_cc}, {"addc", select_addc}, {"sub", sub},
      {"sub", select_sub_cc}, {"subc", select_subc},  {"mul", mul},          {"mad", mad},
      {"mad", select_mad_cc}, {"madc", select_madc},  {"mul24", mul24},      {"mad24", mad24},
      {"div", div},           {"rem", rem},           {"abs", abs},          {"neg", neg},
      {"min", min},           {"max", max},           {"sad", sad},          {"popc", popc},
      {"clz", clz},           {"bfe", bfe},           {"bfi", bfi},          {"dp4a", dp4a},
      {"dp2a", dp2a},
  };
  return families;
}

}  // namespace gpusim
