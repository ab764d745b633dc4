#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "gpusim/error.h"
#include "gpusim/tests/instruction_case.h"

using namespace gpusim;

// References go bit by bit, or byte by byte.

namespace {

template <class F>
void for_each_width(F&& f) {
  f.template operator()<uint16_t>("h", 16);
  f.template operator()<uint32_t>("r", 32);
  f.template operator()<uint64_t>("d", 64);
}

template <class T>
bool bit(T x, int i) {
  return x >> i & 1;
}

/// The number whose i-th bit is f(i).
template <class T, class F>
T number(F&& f) {
  T x = 0;
  for (int i = 0; i < int(8 * sizeof(T)); ++i)
    if (f(i)) x |= T(T{1} << i);
  return x;
}

/// Selectors, modes' codes and everything around them.
std::vector<Bits> selectors() {
  std::vector<Bits> values{0, 1, 2, 3, 4, 7, 0x3210, 0x7654, 0xfedc, 0x8888, 0x0123, 0xffff3210, ~0u};
  for (uint32_t i = 0; i < 50; ++i) values.push_back(i * 2654435761u);
  return values;
}

}  // namespace

TEST_CASE("and, or, xor, not and cnot") {
  for_each_width([]<class T>(const char* r, int bits) {
    const auto two = [&](const char* op) { return fmt::format("{}.b{} %{}0, %{}1, %{}2;", op, bits, r, r, r); };
    check_instruction(two("and"), [](T a, T b) { return number<T>([=](int i) { return bit(a, i) && bit(b, i); }); });
    check_instruction(two("or"), [](T a, T b) { return number<T>([=](int i) { return bit(a, i) || bit(b, i); }); });
    check_instruction(two("xor"), [](T a, T b) { return number<T>([=](int i) { return bit(a, i) != bit(b, i); }); });
    check_instruction(fmt::format("not.b{} %{}0, %{}1;", bits, r, r),
                      [](T a) { return number<T>([=](int i) { return !bit(a, i); }); });
    check_instruction(fmt::format("cnot.b{} %{}0, %{}1;", bits, r, r), [](T a) { return T(a ? 0 : 1); });
  });
  check_instruction("and.pred %p0, %p1, !%p2;", [](bool a, bool b) { return a && !b; });
  check_instruction("or.pred %p0, !%p1, %p2;", [](bool a, bool b) { return !a || b; });
  check_instruction("xor.pred %p0, %p1, %p2;", [](bool a, bool b) { return a != b; });
  check_instruction("not.pred %p0, %p1;", [](bool a) { return !a; });
  check_instruction("mov.pred %p0, !%p1;", [](bool a) { return !a; });
  check_instruction("and.b32 %r0, %r1, 255;", [](uint32_t a) { return a % 256; });
  check_instruction("and.pred %p0, %p1, 1;", [](bool a) { return a; });
  check_instruction("xor.pred %p0, %p1, 1;", [](bool a) { return !a; });
  check_unknown("and.u32 %r0, %r1, %r2;");
  check_unknown("cnot.pred %p0, %p1;");
}

TEST_CASE("lop3 has a table of all functions of three bits") {
  for (int table = 0; table < 256; ++table) {
    const auto reference = [table](uint32_t a, uint32_t b, uint32_t c) {
      return number<uint32_t>([=](int i) { return bit(table, 4 * bit(a, i) + 2 * bit(b, i) + bit(c, i)); });
    };
    check_instruction(fmt::format("lop3.b32 %r0, %r1, %r2, %r3, {};", table), reference,
                      {{{0, 1, ~0u, 0x0f0f0f0f}, {0, 2, ~0u, 0x33333333}, {0, 3, ~0u, 0x55555555}}, {}});
    if (table % 50 != 0) continue;
    const std::vector<Bits> few{0, 1, ~0u};
    const CheckOptions options{{few, few, few, {}}, {}};
    check_instruction(
        fmt::format("lop3.or.b32 %r0|%p1, %r2, %r3, %r4, {}, %p5;", table),
        [=](uint32_t a, uint32_t b, uint32_t c, bool q) {
          return std::tuple(reference(a, b, c), reference(a, b, c) != 0 || q);
        },
        options);
    check_instruction(
        fmt::format("lop3.and.b32 _|%p1, %r2, %r3, %r4, {}, !%p5;", table),
        [=](uint32_t a, uint32_t b, uint32_t c, bool q) { return std::tuple(0u, reference(a, b, c) != 0 && !q); },
        options);
  }
  check_unknown("lop3.b32 %r0, %r1, %r2, %r3, 256;");
  check_unknown("lop3.b32 %r0, %r1, %r2, %r3, %r4;");
  check_unknown("lop3.xor.b32 %r0|%p1, %r2, %r3, %r4, 128, %p5;");
}

TEST_CASE("shl and shr clamp what they shift by") {
  for_each_width([]<class T>(const char* r, int bits) {
    using Signed = std::make_signed_t<T>;
    check_instruction(fmt::format("shl.b{} %{}0, %{}1, %r2;", bits, r, r), [=](T a, uint32_t by) {
      return number<T>([=](int i) { return uint32_t(i) >= by && bit(a, i - int(by)); });
    });
    for (const char kind : {'b', 'u'})
      check_instruction(fmt::format("shr.{}{} %{}0, %{}1, %r2;", kind, bits, r, r), [=](T a, uint32_t by) {
        return number<T>([=](int i) { return int64_t{i} + by < bits && bit(a, i + int(by)); });
      });
    check_instruction(fmt::format("shr.s{} %{}0, %{}1, %r2;", bits, r, r), [=](Signed a, uint32_t by) {
      return number<T>([=](int i) { return bit(T(a), int(std::min<int64_t>(int64_t{i} + by, bits - 1))); });
    });
    check_instruction(fmt::format("shl.b{} %{}0, %{}1, 5;", bits, r, r), [](T a) { return T(a * 32); });
  });
  check_instruction("shr.u32 %r0, 1000, %r1;", [](uint32_t by) { return by < 32 ? 1000u >> by : 0; });
  check_unknown("shl.u32 %r0, %r1, %r2;");
}

TEST_CASE("shf shifts through two words") {
  const auto bit_of_both = [](uint32_t a, uint32_t b, int64_t i) {
    return i < 32 ? bit(a, int(i)) : bit(b, int(i - 32));
  };
  for (const bool wrap : {false, true}) {
    const char* mode = wrap ? "wrap" : "clamp";
    const auto amount = [=](uint32_t c) { return wrap ? c % 32 : std::min(c, 32u); };
    check_instruction(fmt::format("shf.l.{}.b32 %r0, %r1, %r2, %r3;", mode), [=](uint32_t a, uint32_t b, uint32_t c) {
      return number<uint32_t>([=](int i) { return bit_of_both(a, b, 32 + i - int(amount(c))); });
    });
    check_instruction(fmt::format("shf.r.{}.b32 %r0, %r1, %r2, %r3;", mode), [=](uint32_t a, uint32_t b, uint32_t c) {
      return number<uint32_t>([=](int i) { return i + amount(c) < 64 && bit_of_both(a, b, i + amount(c)); });
    });
  }
  check_unknown("shf.l.b32 %r0, %r1, %r2, %r3;");
}

TEST_CASE("prmt picks bytes") {
  const auto byte = [](uint32_t a, uint32_t b, int i) { return (i < 4 ? a >> 8 * i : b >> 8 * (i - 4)) % 256; };
  const auto permuted = [=](uint32_t a, uint32_t b, std::array<int, 4> from) {  // from the highest byte down
    uint32_t result = 0;
    for (const int i : from) result = result * 256 + byte(a, b, i);
    return result;
  };
  const std::vector<Bits> words{0x00000000, 0x80808080, 0x7f7f7f7f, 0x03020100, 0x87868584, 0x12fe8001, ~0u};
  const CheckOptions options{{words, words, selectors()}, {}};
  check_instruction(
      "prmt.b32 %r0, %r1, %r2, %r3;",
      [=](uint32_t a, uint32_t b, uint32_t c) {
        uint32_t result = 0;
        for (int i = 3; i >= 0; --i) {
          const int nibble = c >> 4 * i & 15;
          const uint32_t picked = byte(a, b, nibble % 8);
          result = result * 256 + (nibble < 8 ? picked : picked >= 128 ? 255 : 0);
        }
        return result;
      },
      options);
  using Table = std::array<std::array<int, 4>, 4>;
  const std::pair<const char*, Table> modes[] = {
      {"f4e", {{{3, 2, 1, 0}, {4, 3, 2, 1}, {5, 4, 3, 2}, {6, 5, 4, 3}}}},
      {"b4e", {{{5, 6, 7, 0}, {6, 7, 0, 1}, {7, 0, 1, 2}, {0, 1, 2, 3}}}},
      {"rc8", {{{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}}},
      {"ecl", {{{3, 2, 1, 0}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 3, 3, 3}}}},
      {"ecr", {{{0, 0, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}}}},
      {"rc16", {{{1, 0, 1, 0}, {3, 2, 3, 2}, {1, 0, 1, 0}, {3, 2, 3, 2}}}},
  };
  for (const auto& [mode, table] : modes)
    check_instruction(
        fmt::format("prmt.b32.{} %r0, %r1, %r2, %r3;", mode),
        [permuted, table = table](uint32_t a, uint32_t b, uint32_t c) { return permuted(a, b, table[c % 4]); },
        options);
  check_instruction("prmt.b32 %r0, %r1, 0, 0x7770;", [](uint32_t a) { return a % 256; });
  check_unknown("prmt.b32.f8e %r0, %r1, %r2, %r3;");
}

TEST_CASE("bmsk and szext") {
  check_instruction("bmsk.clamp.b32 %r0, %r1, %r2;", [](uint32_t a, uint32_t b) {
    return number<uint32_t>([=](uint32_t i) { return a <= i && uint64_t{i} < uint64_t{a} + b; });
  });
  check_instruction("bmsk.wrap.b32 %r0, %r1, %r2;", [](uint32_t a, uint32_t b) {
    return number<uint32_t>([=](uint32_t i) { return a % 32 <= i && i < a % 32 + b % 32; });
  });
  for (const bool wrap : {false, true}) {
    const char* mode = wrap ? "wrap" : "clamp";
    const auto width = [=](uint32_t b) { return wrap ? b % 32 : std::min(b, 32u); };
    check_instruction(fmt::format("szext.{}.u32 %r0, %r1, %r2;", mode), [=](uint32_t a, uint32_t b) {
      return number<uint32_t>([=](uint32_t i) { return i < width(b) && bit(a, int(i)); });
    });
    check_instruction(fmt::format("szext.{}.s32 %r0, %r1, %r2;", mode), [=](uint32_t a, uint32_t b) {
      const uint32_t n = width(b);
      return number<uint32_t>([=](uint32_t i) { return n > 0 && bit(a, int(std::min(i, n - 1))); });
    });
  }
  check_unknown("bmsk.b32 %r0, %r1, %r2;");
  check_unknown("szext.clamp.b32 %r0, %r1, %r2;");
}

TEST_CASE("brev, bfind and fns") {
  check_instruction("brev.b32 %r0, %r1;",
                    [](uint32_t a) { return number<uint32_t>([=](int i) { return bit(a, 31 - i); }); });
  check_instruction("brev.b64 %d0, %d1;",
                    [](uint64_t a) { return number<uint64_t>([=](int i) { return bit(a, 63 - i); }); });
  const auto highest = [](auto a) {  // the highest bit that is not as the sign
    for (int i = int(8 * sizeof(a)) - 1; i >= 0; --i)
      if (bit(a, i) != (a < 0)) return uint32_t(i);
    return ~0u;
  };
  const auto check = [&]<class T>(const char* type, const char* r, T) {
    check_instruction(fmt::format("bfind.{} %r0, %{}1;", type, r), [=](T a) { return highest(a); });
    check_instruction(fmt::format("bfind.shiftamt.{} %r0, %{}1;", type, r),
                      [=](T a) { return highest(a) == ~0u ? ~0u : uint32_t(8 * sizeof(T) - 1) - highest(a); });
  };
  check("u32", "r", uint32_t{});
  check("s32", "r", int32_t{});
  check("u64", "d", uint64_t{});
  check("s64", "d", int64_t{});

  std::vector<Bits> bases, offsets;
  for (uint32_t i = 0; i < 32; ++i) bases.push_back(i);
  for (int i = -34; i <= 34; ++i) offsets.push_back(uint32_t(i));
  const auto nth = [](uint32_t mask, uint32_t base, int32_t offset) {
    if (base > 31) return ~0u;  // PTX promises nothing
    if (offset == 0) return bit(mask, int(base)) ? base : ~0u;
    std::vector<uint32_t> set;  // in the order of the search
    for (int i = int(base); i >= 0 && i<32; i += offset> 0 ? 1 : -1)
      if (bit(mask, i)) set.push_back(uint32_t(i));
    const int64_t n = offset > 0 ? offset : -int64_t{offset};
    return n <= int64_t(set.size()) ? set[size_t(n) - 1] : ~0u;
  };
  check_instruction("fns.b32 %r0, %r1, %r2, %r3;", nth,
                    {{{0, 1, 0xaaaaaaaa, 0x80000000, ~0u, 0x12345678}, bases, offsets}, {}});
}
