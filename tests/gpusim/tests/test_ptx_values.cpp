#include <doctest/doctest.h>

#include <bit>
#include <string>

#include "gpusim/error.h"
#include "gpusim/ptx/parser.h"

using namespace gpusim::ptx;
using gpusim::Error;
using Kind = Operand::Kind;
using Bytes = std::vector<uint8_t>;

namespace {

const std::string head = ".version 8.4 .target sm_80 .address_size 64 .global .b32 g; ";

Function body_of(const std::string& text) {
  return parse(head + ".entry k { .reg .b64 %rd<2>; .reg .f32 %f<2>; " + text + " }").functions[0];
}

int64_t immediate(const std::string& text) {
  const Operand o = body_of("mov.b64 %rd0, " + text + ";").instructions[0].operands.at(1);
  CHECK(o.kind == Kind::immediate);
  CHECK(o.literal == Operand::Literal::integer);
  return o.value;
}

Variable variable(const std::string& text) { return parse(head + text + ";").variables.at(1); }

}  // namespace

TEST_CASE("ptx: constants") {
  CHECK(immediate("42") == 42);
  CHECK(immediate("-1") == -1);
  CHECK(immediate("0x1FU") == 31);
  CHECK(immediate("0X1f") == 31);
  CHECK(immediate("0b101") == 5);
  CHECK(immediate("0777") == 511);
  CHECK(immediate("0") == 0);
  CHECK(immediate("18446744073709551615") == -1);
  CHECK(immediate("0x8000000000000000U") == INT64_MIN);
  CHECK(immediate("WARP_SZ-1") == 31);
  CHECK(immediate("(0xF0 & 0xCC) ^ 0xAA | 1") == 0x6b);
  CHECK(immediate("2+3*4-(10-4)/2") == 11);
  CHECK(immediate("1<<4>>2") == 4);
  CHECK(immediate("-8>>1") == -4);
  CHECK(immediate("-7 %  4") == -3);
  CHECK(immediate("~5") == -6);
  CHECK(immediate("(1<<63)/-1") == INT64_MIN);

  const Function f =
      body_of("mov.f32 %f1, 0f3F800000; mov.f64 %rd1, -0d3FF0000000000000; mov.f64 %rd1, 1.5e-3; mov.f64 %rd1, 2.;");
  const auto value = [&](size_t i) -> const Operand& { return f.instructions.at(i).operands.at(1); };
  CHECK(value(0).literal == Operand::Literal::f32);
  CHECK(value(0).value == 0x3F800000);
  CHECK(value(1).literal == Operand::Literal::f64);
  CHECK(std::bit_cast<double>(value(1).value) == -1.0);
  CHECK(std::bit_cast<double>(value(2).value) == 1.5e-3);
  CHECK(std::bit_cast<double>(value(3).value) == 2.0);

  for (const char* text : {"09", "0b2", "0xFFu", "12a", "0f3F80", "18446744073709551616", "1.5x", "1/0", "1 % 0", "(1",
                           "-", "1.0+2", "(1<2)", "", "--", "0x"})
    CHECK_THROWS_AS_MESSAGE(immediate(text), Error, text);
  CHECK_THROWS_WITH_AS(immediate(std::string(1000, '(')), "PTX line 1: a constant nested too deeply", Error);
}

TEST_CASE("ptx: variables with values") {
  CHECK(variable(".global .b16 a").align == 2);
  CHECK(variable(".global .b64 a[3][5]").bytes == 120);
  CHECK(variable(".global .v4 .f32 a[2]").bytes == 32);
  CHECK(variable(".global .v4 .f32 a[2]").align == 16);
  CHECK(variable(".global .b16 a[2][2] = {{1}, {-1, 0x1234}}").initial == Bytes{1, 0, 0, 0, 255, 255, 0x34, 0x12});
  CHECK(variable(".global .b16 a[] = {1, 2}").initial == Bytes{1, 0, 2, 0});
  CHECK(variable(".global .b16 a[][2] = {{1}, {2}, {3}}").bytes == 12);
  CHECK(variable(".global .f32 a = 1.5").initial == Bytes{0, 0, 0xc0, 0x3f});
  CHECK(variable(".global .f32 a = 0f3FC00000").initial == Bytes{0, 0, 0xc0, 0x3f});
  CHECK(variable(".global .f64 a = 0dBFF8000000000000").initial == Bytes{0, 0, 0, 0, 0, 0, 0xf8, 0xbf});
  CHECK(variable(".global .f64 a = 1").initial[7] == 0x3f);

  const Variable a = variable(".global .u64 a[4] = {generic(g)+8, g-4, 0, generic(g+4)}");
  REQUIRE(a.pointers.size() == 3);
  CHECK(a.initial == Bytes(32));
  CHECK(a.pointers[0].generic);
  CHECK(a.pointers[0].symbol == "g");
  CHECK(a.pointers[0].offset == 8);
  CHECK(a.pointers[0].bytes == 8);
  CHECK_FALSE(a.pointers[1].generic);
  CHECK(a.pointers[1].at == 8);
  CHECK(a.pointers[1].offset == -4);
  CHECK(a.pointers[2].at == 24);
  CHECK(a.pointers[2].offset == 4);

  // A packed structure: an address byte by byte, where it is not aligned.
  const Variable packed = variable(
      ".global .align 1 .u8 a[10] = {3, 0XFF(generic(g)+4), 0xFF00(generic(g)+4), 0xFF0000(generic(g)+4),"
      "0xFF000000(generic(g)+4), 0xFF00000000(generic(g)+4), 0xFF0000000000(generic(g)+4),"
      "0xFF000000000000(generic(g)+4), 0xFF00000000000000(generic(g)+4), 9}");
  REQUIRE(packed.pointers.size() == 1);
  CHECK(packed.pointers[0].at == 1);
  CHECK(packed.pointers[0].bytes == 8);
  CHECK(packed.pointers[0].offset == 4);
  CHECK(packed.initial[0] == 3);
  CHECK(packed.initial[9] == 9);

  for (const char* text :
       {"b32 a[2] = {1, 2, 3}", "b32 a = {1}", "b8 a[2] = {0xFF00(g), 0}", "b8 a = 0xF0(g)", "b8 a = g", "b32 a = 1.5",
        "pred a", "b32 a[2][]", "b32 a[-1]", "b64 a[0x10000000000]", "b31 a", "align 3 .b32 a"})
    CHECK_THROWS_AS_MESSAGE(variable(".global ." + std::string(text)), Error, text);
}
