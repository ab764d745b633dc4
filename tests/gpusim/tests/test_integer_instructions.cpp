#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "gpusim/error.h"
#include "gpusim/tests/instruction_case.h"

using namespace gpusim;

// References compute in 128 bits, where nothing overflows, and cut the result.

namespace {

using Big = int128_t;

/// f<T>(type, letter of its registers).
template <class F>
void for_each_integer(F&& f) {
  f.template operator()<uint16_t>("u16", "h");
  f.template operator()<int16_t>("s16", "h");
  f.template operator()<uint32_t>("u32", "r");
  f.template operator()<int32_t>("s32", "r");
  f.template operator()<uint64_t>("u64", "d");
  f.template operator()<int64_t>("s64", "d");
}

template <class T>
constexpr bool is_signed = std::numeric_limits<T>::is_signed;

/// x cut to T: of x modulo 2^bits what T can hold.
template <class T>
T cut(Big x) {
  const Big modulus = Big{1} << 8 * sizeof(T);
  Big rest = x % modulus;
  if (rest < 0) rest += modulus;
  return T(is_signed<T> && rest >= modulus / 2 ? rest - modulus : rest);
}

int32_t saturated(Big x) { return int32_t(std::clamp<Big>(x, INT32_MIN, INT32_MAX)); }

/// Division that rounds down, of what may be negative.
Big floor_of(Big x, Big by) { return x / by - (x % by < 0 ? 1 : 0); }

/// The upper half of the product of two Ts. For u64 the product does not fit into a signed Big.
template <class T>
T high_product(T a, T b) {
  if constexpr (sizeof(T) == 8 && !is_signed<T>) {
    const uint64_t a0 = a % (1ull << 32), a1 = a >> 32, b0 = b % (1ull << 32), b1 = b >> 32;
    const uint64_t middle = (a0 * b0 >> 32) + a1 * b0 % (1ull << 32) + a0 * b1 % (1ull << 32);
    return a1 * b1 + (a1 * b0 >> 32) + (a0 * b1 >> 32) + (middle >> 32);
  } else {
    return cut<T>(floor_of(Big(a) * b, Big{1} << 8 * sizeof(T)));
  }
}

template <class T>
T low_product(T a, T b) {
  return cut<T>(Big(uint128_t(Big(a)) * uint128_t(Big(b)) & ~uint64_t{0}));
}

std::string op(const char* name, const char* type, const char* r, int sources) {
  std::string text = fmt::format("{}.{} %{}0", name, type, r);
  for (int i = 1; i <= sources; ++i) text += fmt::format(", %{}{}", r, i);
  text += ';';
  return text;
}

/// f on each half of words.
template <class T, class F>
void check_halves(const char* text, F f) {
  check_instruction(text, [f](uint32_t a, uint32_t b) {
    const uint32_t low = uint16_t(f(T(a % 65536), T(b % 65536))), high = uint16_t(f(T(a / 65536), T(b / 65536)));
    return high * 65536 + low;
  });
}

}  // namespace

TEST_CASE("add and sub") {
  for_each_integer([]<class T>(const char* type, const char* r) {
    check_instruction(op("add", type, r, 2), [](T a, T b) { return cut<T>(Big(a) + b); });
    check_instruction(op("sub", type, r, 2), [](T a, T b) { return cut<T>(Big(a) - b); });
    check_instruction(fmt::format("add.{} %{}0, %{}1, -1;", type, r, r), [](T a) { return cut<T>(Big(a) - 1); });
  });
  check_instruction("add.sat.s32 %r0, %r1, %r2;", [](int32_t a, int32_t b) { return saturated(Big(a) + b); });
  check_instruction("sub.sat.s32 %r0, %r1, %r2;", [](int32_t a, int32_t b) { return saturated(Big(a) - b); });
  check_halves<int16_t>("add.s16x2 %r0, %r1, %r2;", [](int16_t a, int16_t b) { return a + b; });
  check_halves<uint16_t>("add.u16x2 %r0, %r1, %r2;", [](uint16_t a, uint16_t b) { return a + b; });
  check_unknown("add.sat.u32 %r0, %r1, %r2;");
  check_unknown("add.b32 %r0, %r1, %r2;");
  check_unknown("add.s32 %r0, %r1;");
  check_instruction("add.s32.sat %r0, %r1, %r2;", [](int32_t a, int32_t b) { return saturated(Big(a) + b); });
  check_unknown("add.sat.sat.s32 %r0, %r1, %r2;");
}

TEST_CASE("mul and mad") {
  for_each_integer([]<class T>(const char* type, const char* r) {
    check_instruction(op("mul.lo", type, r, 2), [](T a, T b) { return low_product(a, b); });
    check_instruction(op("mul.hi", type, r, 2), [](T a, T b) { return high_product(a, b); });
    check_instruction(op("mad.lo", type, r, 3), [](T a, T b, T c) { return cut<T>(Big(low_product(a, b)) + c); });
    check_instruction(op("mad.hi", type, r, 3), [](T a, T b, T c) { return cut<T>(Big(high_product(a, b)) + c); });
  });
  const auto check_wide = []<class T, class W>(const char* type, const char* to, const char* from, T, W) {
    check_instruction(fmt::format("mul.wide.{} %{}0, %{}1, %{}2;", type, to, from, from),
                      [](T a, T b) { return cut<W>(Big(a) * b); });
    check_instruction(fmt::format("mad.wide.{} %{}0, %{}1, %{}2, %{}3;", type, to, from, from, to),
                      [](T a, T b, W c) { return cut<W>(Big(a) * b + c); });
  };
  check_wide("u16", "r", "h", uint16_t{}, uint32_t{});
  check_wide("s16", "r", "h", int16_t{}, int32_t{});
  check_wide("u32", "d", "r", uint32_t{}, uint64_t{});
  check_wide("s32", "d", "r", int32_t{}, int64_t{});
  check_instruction("mad.hi.sat.s32 %r0, %r1, %r2, %r3;",
                    [](int32_t a, int32_t b, int32_t c) { return saturated(Big(high_product(a, b)) + c); });
  check_unknown("mul.s32 %r0, %r1, %r2;");
  check_unknown("mul.wide.s64 %q0, %d1, %d2;");
  check_unknown("mad.lo.sat.s32 %r0, %r1, %r2, %r3;");
  CHECK_THROWS_AS(InstructionCase("mul.wide.s32 %r0, %r1, %r2;"), Error);  // the result is too narrow
}

TEST_CASE("mul24 and mad24 take 24 bits of each factor") {
  const auto low24 = []<class T>(T x) {
    const Big rest = Big(uint32_t(x) % (1u << 24));
    return is_signed<T> && rest >= 1 << 23 ? rest - (1 << 24) : rest;
  };
  const auto check = [&]<class T>(const char* type, T) {
    const auto low = [=](T a, T b) { return cut<T>(low24(a) * low24(b)); };
    const auto high = [=](T a, T b) { return cut<T>(floor_of(low24(a) * low24(b), 1 << 16)); };
    check_instruction(op("mul24.lo", type, "r", 2), low);
    check_instruction(op("mul24.hi", type, "r", 2), high);
    check_instruction(op("mad24.lo", type, "r", 3), [=](T a, T b, T c) { return cut<T>(Big(low(a, b)) + c); });
    check_instruction(op("mad24.hi", type, "r", 3), [=](T a, T b, T c) { return cut<T>(Big(high(a, b)) + c); });
    if (is_signed<T>)
      check_instruction(op("mad24.hi.sat", type, "r", 3),
                        [=](T a, T b, T c) { return T(saturated(Big(high(a, b)) + c)); });
  };
  check("u32", uint32_t{});
  check("s32", int32_t{});
  check_unknown("mad24.hi.sat.u32 %r0, %r1, %r2, %r3;");
  check_unknown("mul24.lo.u16 %h0, %h1, %h2;");
}

TEST_CASE("div and rem") {
  for_each_integer([]<class T>(const char* type, const char* r) {
    check_instruction(op("div", type, r, 2), [](T a, T b) { return b == 0 ? T(-1) : cut<T>(Big(a) / b); });
    check_instruction(op("rem", type, r, 2), [](T a, T b) { return b == 0 ? a : cut<T>(Big(a) % b); });
  });
}

TEST_CASE("abs, neg, min, max and sad") {
  for_each_integer([]<class T>(const char* type, const char* r) {
    if (is_signed<T>) {
      check_instruction(op("abs", type, r, 1), [](T a) { return cut<T>(a < 0 ? -Big(a) : Big(a)); });
      check_instruction(op("neg", type, r, 1), [](T a) { return cut<T>(-Big(a)); });
    } else {
      check_unknown(op("abs", type, r, 1));
      check_unknown(op("min.relu", type, r, 2));
    }
    check_instruction(op("min", type, r, 2), [](T a, T b) { return std::min(a, b); });
    check_instruction(op("max", type, r, 2), [](T a, T b) { return std::max(a, b); });
    check_instruction(op("sad", type, r, 3), [](T a, T b, T c) {
      const Big difference = Big(a) - b;
      return cut<T>(Big(c) + (difference < 0 ? -difference : difference));
    });
  });
  for (const char* text : {"min.relu.s32 %r0, %r1, %r2;", "min.s32.relu %r0, %r1, %r2;"})
    check_instruction(text, [](int32_t a, int32_t b) { return std::max(std::min(a, b), 0); });
  for (const char* text : {"max.relu.s32 %r0, %r1, %r2;", "max.s32.relu %r0, %r1, %r2;"})
    check_instruction(text, [](int32_t a, int32_t b) { return std::max({a, b, 0}); });
  const auto least = [](auto a, auto b) { return std::min(a, b); };
  const auto most = [](auto a, auto b) { return std::max(a, b); };
  check_halves<int16_t>("min.s16x2 %r0, %r1, %r2;", least);
  check_halves<int16_t>("max.s16x2 %r0, %r1, %r2;", most);
  check_halves<uint16_t>("min.u16x2 %r0, %r1, %r2;", least);
  check_halves<uint16_t>("max.u16x2 %r0, %r1, %r2;", most);
  const auto not_negative = [](auto f) { return [f](int16_t a, int16_t b) { return std::max<int16_t>(f(a, b), 0); }; };
  check_halves<int16_t>("min.relu.s16x2 %r0, %r1, %r2;", not_negative(least));
  check_halves<int16_t>("max.s16x2.relu %r0, %r1, %r2;", not_negative(most));
  check_unknown("min.relu.s64 %d0, %d1, %d2;");
  check_unknown("max.relu.u16x2 %r0, %r1, %r2;");
}

TEST_CASE("popc and clz") {
  const auto ones = [](auto a) {
    uint32_t count = 0;
    for (; a != 0; a /= 2) count += a % 2;
    return count;
  };
  const auto zeros = [](auto a) {
    uint32_t count = 8 * sizeof(a);
    for (; a != 0; a /= 2) --count;
    return count;
  };
  check_instruction("popc.b32 %r0, %r1;", [=](uint32_t a) { return ones(a); });
  check_instruction("popc.b64 %r0, %d1;", [=](uint64_t a) { return ones(a); });
  check_instruction("clz.b32 %r0, %r1;", [=](uint32_t a) { return zeros(a); });
  check_instruction("clz.b64 %r0, %d1;", [=](uint64_t a) { return zeros(a); });
  check_unknown("popc.u32 %r0, %r1;");
}

TEST_CASE("bfe and bfi take and put bit fields") {
  const auto check_extract = []<class T>(const char* type, const char* r, T) {
    check_instruction(fmt::format("bfe.{} %{}0, %{}1, %r2, %r3;", type, r, r),
                      [](T a, uint32_t position, uint32_t length) {
                        const int last = 8 * sizeof(T) - 1, from = position % 256, bits = length % 256;
                        const int sign_at = std::min(from + bits - 1, last);
                        const bool sign = is_signed<T> && bits > 0 && (a >> sign_at & 1);
                        Big result = 0;
                        for (int i = 0; i <= last; ++i)
                          if (i < bits && from + i <= last ? bool(a >> (from + i) & 1) : sign) result |= Big{1} << i;
                        return cut<T>(result);
                      });
  };
  check_extract("u32", "r", uint32_t{});
  check_extract("s32", "r", int32_t{});
  check_extract("u64", "d", uint64_t{});
  check_extract("s64", "d", int64_t{});
  const auto check_insert = []<class T>(const char* type, const char* r, T) {
    check_instruction(fmt::format("bfi.{} %{}0, %{}1, %{}2, %r3, %r4;", type, r, r, r),
                      [](T a, T b, uint32_t position, uint32_t length) {
                        const uint32_t at = position % 256, bits = length % 256;
                        for (uint32_t i = 0; i < bits && at + i < 8 * sizeof(T); ++i)
                          b = T((b & ~(T{1} << (at + i))) | (a >> i & 1) << (at + i));
                        return b;
                      });
  };
  check_insert("b32", "r", uint32_t{});
  check_insert("b64", "d", uint64_t{});
}

TEST_CASE("dp4a and dp2a") {
  const auto part = [](uint32_t x, int i, int bits, bool with_sign) {
    const int64_t value = x / (1ull << i * bits) % (1ull << bits);
    return with_sign && value >= 1 << (bits - 1) ? value - (1 << bits) : value;
  };
  for (const char a_kind : {'u', 's'})
    for (const char b_kind : {'u', 's'}) {
      const bool a_signed = a_kind == 's', b_signed = b_kind == 's';
      check_instruction(fmt::format("dp4a.{}32.{}32 %r0, %r1, %r2, %r3;", a_kind, b_kind),
                        [=](uint32_t a, uint32_t b, uint32_t c) {
                          int64_t sum = c;
                          for (int i = 0; i < 4; ++i) sum += part(a, i, 8, a_signed) * part(b, i, 8, b_signed);
                          return uint32_t(sum);
                        });
      for (const bool high : {false, true})
        check_instruction(fmt::format("dp2a.{}.{}32.{}32 %r0, %r1, %r2, %r3;", high ? "hi" : "lo", a_kind, b_kind),
                          [=](uint32_t a, uint32_t b, uint32_t c) {
                            int64_t sum = c;
                            for (int i = 0; i < 2; ++i)
                              sum += part(a, i, 16, a_signed) * part(b, i + 2 * high, 8, b_signed);
                            return uint32_t(sum);
                          });
    }
  check_unknown("dp4a.s32 %r0, %r1, %r2, %r3;");
  check_unknown("dp2a.s32.s32 %r0, %r1, %r2, %r3;");
}

TEST_CASE("sums, differences and products with a carry") {
  const auto check = []<class T>(const char* type, const char* r, T) {
    // The flag is what does not fit: above for a sum, below for a difference.
    const auto give = [](Big x, Carry& carry) {
      carry.flag = x < 0 || x >> 8 * sizeof(T) != 0;
      return cut<T>(x);
    };
    using U = std::make_unsigned_t<T>;
    const auto plain = [](T x) { return Big(U(x)); };
    check_instruction(op("add.cc", type, r, 2), [=](T a, T b, Carry& c) { return give(plain(a) + plain(b), c); });
    check_instruction(op("sub.cc", type, r, 2), [=](T a, T b, Carry& c) { return give(plain(a) - plain(b), c); });
    check_instruction(op("addc", type, r, 2), [=](T a, T b, Carry& c) { return cut<T>(plain(a) + plain(b) + c.flag); });
    check_instruction(op("subc", type, r, 2), [=](T a, T b, Carry& c) { return cut<T>(plain(a) - plain(b) - c.flag); });
    check_instruction(op("addc.cc", type, r, 2),
                      [=](T a, T b, Carry& c) { return give(plain(a) + plain(b) + c.flag, c); });
    check_instruction(op("subc.cc", type, r, 2),
                      [=](T a, T b, Carry& c) { return give(plain(a) - plain(b) - c.flag, c); });
    for (const bool high : {false, true}) {
      const auto product = [=](T a, T b) { return plain(high ? high_product(a, b) : low_product(a, b)); };
      const char* half = high ? "hi" : "lo";
      check_instruction(op(fmt::format("mad.{}.cc", half).c_str(), type, r, 3),
                        [=](T a, T b, T x, Carry& c) { return give(product(a, b) + plain(x), c); });
      check_instruction(op(fmt::format("madc.{}", half).c_str(), type, r, 3),
                        [=](T a, T b, T x, Carry& c) { return cut<T>(product(a, b) + plain(x) + c.flag); });
      check_instruction(op(fmt::format("madc.{}.cc", half).c_str(), type, r, 3),
                        [=](T a, T b, T x, Carry& c) { return give(product(a, b) + plain(x) + c.flag, c); });
    }
  };
  check("u32", "r", uint32_t{});
  check("s32", "r", int32_t{});
  check("u64", "d", uint64_t{});
  check("s64", "d", int64_t{});
  check_unknown("add.cc.u16 %h0, %h1, %h2;");
  check_unknown("sub.sat.cc.s32 %r0, %r1, %r2;");
  check_unknown("mad.wide.cc.u32 %d0, %r1, %r2, %d3;");
}
