#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "gpusim/error.h"
#include "gpusim/tests/instruction_case.h"

using namespace gpusim;

namespace {

/// f<T>(letter of T's registers, bits) for the widths that most instructions have.
template <class F>
void for_each_width(F&& f) {
  f.template operator()<uint16_t>("h", 16);
  f.template operator()<uint32_t>("r", 32);
  f.template operator()<uint64_t>("d", 64);
}

/// The types of so many bits that instructions which only copy take.
std::vector<std::string> types_of(int bits) {
  std::vector<std::string> types;
  for (const char kind : {'b', 'u', 's', 'f'})
    if (kind != 'f' || bits > 16) types.push_back(fmt::format("{}{}", kind, bits));
  return types;
}

}  // namespace

TEST_CASE("mov copies registers and immediates") {
  for_each_width([]<class T>(const char* r, int bits) {
    for (const std::string& type : types_of(bits))
      check_instruction(fmt::format("mov.{} %{}0, %{}1;", type, r, r), [](T a) { return a; });
    check_instruction(fmt::format("mov.u{} %{}0, 77;", bits, r), [] { return T(77); });
    check_instruction(fmt::format("mov.s{} %{}0, -2;", bits, r), [] { return T(-2); });
  });
  check_instruction("mov.b128 %q0, %q1;", [](uint128_t a) { return a; });
  check_instruction("mov.pred %p0, %p1;", [](bool a) { return a; });
  check_instruction("mov.f32 %r0, 0f3FC00000;", [] { return 1.5f; });
  check_instruction("mov.f64 %d0, 0dC004000000000000;", [] { return -2.5; });
  check_unknown("mov.b32.volatile %r0, %r1;");
}

TEST_CASE("mov packs and unpacks vectors") {
  check_instruction("mov.b16 %h0, {%b8_1, %b8_2};", [](uint8_t a, uint8_t b) { return uint16_t(b * 256 + a); });
  check_instruction("mov.b32 %r0, {%h1, %h2};", [](uint16_t a, uint16_t b) { return uint32_t(b) * 65536 + a; });
  check_instruction("mov.b32 %r0, {%b8_1, %b8_2, %b8_3, %b8_4};", [](uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    return ((uint32_t(d) * 256 + c) * 256 + b) * 256 + a;
  });
  check_instruction("mov.b64 %d0, {%r1, %r2};", [](uint32_t a, uint32_t b) { return uint64_t(b) * (1ull << 32) + a; });
  check_instruction("mov.b64 %d0, {%h1, %h2, %h3, %h4};", [](uint16_t a, uint16_t b, uint16_t c, uint16_t d) {
    return ((uint64_t(d) * 65536 + c) * 65536 + b) * 65536 + a;
  });
  check_instruction("mov.b128 %q0, {%d1, %d2};",
                    [](uint64_t a, uint64_t b) { return uint128_t(b) * (uint128_t(1) << 64) + a; });
  check_instruction("mov.b128 %q0, {%r1, %r2, %r3, %r4};", [](uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    uint128_t all = 0;
    for (const uint32_t part : {d, c, b, a}) all = all * (uint128_t(1) << 32) + part;
    return all;
  });
  check_instruction("mov.b32 %r0, {%h1, 3};", [](uint16_t a) { return uint32_t(3 * 65536 + a); });

  check_instruction("mov.b16 {%b8_1, %b8_2}, %h0;",
                    [](uint16_t a) { return std::tuple(uint8_t(a % 256), uint8_t(a / 256)); });
  check_instruction("mov.b32 {%h1, %h2}, %r0;",
                    [](uint32_t a) { return std::tuple(uint16_t(a % 65536), uint16_t(a / 65536)); });
  check_instruction("mov.b32 {%b8_1, %b8_2, %b8_3, %b8_4}, %r0;", [](uint32_t a) {
    return std::tuple(uint8_t(a), uint8_t(a / 256), uint8_t(a / 65536), uint8_t(a / 16777216));
  });
  check_instruction("mov.b64 {%r1, %r2}, %d0;",
                    [](uint64_t a) { return std::tuple(uint32_t(a % (1ull << 32)), uint32_t(a / (1ull << 32))); });
  check_instruction("mov.b64 {%h1, %h2, %h3, %h4}, %d0;", [](uint64_t a) {
    return std::tuple(uint16_t(a), uint16_t(a / 65536), uint16_t(a / 65536 / 65536),
                      uint16_t(a / 65536 / 65536 / 65536));
  });
  check_instruction("mov.b128 {%d1, %d2}, %q0;",
                    [](uint128_t a) { return std::tuple(uint64_t(a), uint64_t(a >> 64)); });
  check_instruction("mov.b128 {%r1, %r2, %r3, %r4}, %q0;", [](uint128_t a) {
    return std::tuple(uint32_t(a), uint32_t(a >> 32), uint32_t(a >> 64), uint32_t(a >> 96));
  });
  check_instruction("mov.b64 {%r1, _}, %d0;", [](uint64_t a) { return std::tuple(uint32_t(a), 0u); });
  check_instruction("mov.b64 {_, %r1}, %d0;", [](uint64_t a) { return std::tuple(0u, uint32_t(a >> 32)); });
  check_unknown("mov.b64 {%h1, %h2}, {%h3, %h4};");
  check_unknown("mov.b32 %r0, {%b8_1, %b8_2, %b8_3};");
  CHECK_THROWS_AS(InstructionCase("mov.b64 {%h1, %h2}, %d0;"), Error);  // parts too narrow
}

TEST_CASE("selp and slct choose") {
  for_each_width([]<class T>(const char* r, int bits) {
    for (const std::string& type : types_of(bits)) {
      const std::string selp = fmt::format("selp.{} %{}0, %{}1, %{}2, %p3;", type, r, r, r);
      check_instruction(selp, [](T a, T b, bool c) { return c ? a : b; });
      const auto slct = [&](const char* format) { return fmt::format(fmt::runtime(format), type, r, r, r); };
      check_instruction(slct("slct.{}.s32 %{}0, %{}1, %{}2, %r3;"), [](T a, T b, int32_t c) { return c < 0 ? b : a; });
      check_instruction(slct("slct.{}.f32 %{}0, %{}1, %{}2, %r3;"),
                        [](T a, T b, float c) { return std::isnan(c) || c < 0 ? b : a; });
      check_instruction(slct("slct.ftz.{}.f32 %{}0, %{}1, %{}2, %r3;"), [](T a, T b, float c) {
        return std::isnan(c) || (std::isnormal(c) && c < 0) || c == -INFINITY ? b : a;
      });
    }
  });
  check_instruction("selp.b32 %r0, 1, 0, %p1;", [](bool c) { return uint32_t(c); });
  check_instruction("selp.f32 %r0, 0f3F800000, %r1, %p2;", [](float b, bool c) { return c ? 1.0f : b; });
  check_unknown("slct.ftz.b32.s32 %r0, %r1, %r2, %r3;");
}
