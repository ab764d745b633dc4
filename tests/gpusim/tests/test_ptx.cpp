#include <doctest/doctest.h>

#include <string>

#include "gpusim/error.h"
#include "gpusim/ptx/parser.h"

using namespace gpusim::ptx;
using gpusim::Error;
using Kind = Operand::Kind;

namespace {

const std::string head = ".version 8.4\n.target sm_90a, debug\n.address_size 64\n";  // three lines

Module module_of(const std::string& text) { return parse(head + text); }

/// The only function of a module, with a few registers to use; its body begins in the text's line 5.
Function body_of(const std::string& text) {
  const std::string declarations = ".reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<4>; .reg .pred %p<4>;\n";
  return module_of(".global .b32 g[8]; .entry k(.param .u64 p0) { " + declarations + text + "\nret; }").functions[0];
}

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// What is wrong with a body, without "PTX line 5: ".
std::string refusal(const std::string& text) {
  try {
    body_of(text);
  } catch (const Error& e) {
    const std::string what = e.what();
    CHECK(what.starts_with("PTX line 5: "));
    return what.substr(12);
  }
  return "no error";
}

const std::string& name(const Function& f, const Operand& o) { return f.registers.at(size_t(o.reg)).name; }

// A text with nearly every construct; what it means is checked below.
const std::string sample = head + R"(
	.file	1 "/src/a.cu"
	.file	2 "/src/b.h", 1700000000, 512
.extern .func (.param .b32 func_retval0) vprintf
(
	.param .b64 vprintf_param_0,
	.param .b64 vprintf_param_1
)
;
.weak .func  (.param .align 8 .b8 func_retval0[24]) make(.param .align 8 .b8 make_param_0[24], .param .b32 n);
.const .align 4 .b8 table[16] = {0, 0, 128, 63};
.visible .global .attribute(.managed) .align 4 .u32 counter = 7;
.extern .shared .align 16 .b8 dynamic[];
.func (.reg .b32 %out) twice(.reg .b32 %in, .reg .pred %flag) { add.s32 %out, %in, %in; ret; }
.weak .func  (.param .align 8 .b8 func_retval0[24]) make(.param .align 8 .b8 make_param_0[24], .param .b32 n)
{
	.reg .b32 %r<2>;
	ld.param.b32 %r1, [n];
	ret;
}
	// .globl	kernel
.visible .entry kernel(
	.param .u64 .ptr .global .align 4 kernel_param_0,
	.param .align 8 .b8 kernel_param_1[40]
)
.maxntid 128, 2, 1
.minnctapersm 2
.maxnreg 64
.reqnctapercluster 2, 1, 1
{
	.local .align 16 .b8 	__local_depot0[28];
	.reg .b64 	%SP, %rd<9>;
	.reg .pred 	%p<3>;
	.reg .b32 	%r<10>;
	.shared .align 4 .b8 tile[512];
	.loc	1 13 0
	mov.u64 	%SP, __local_depot0;
	ld.param.u64 	%rd1, [kernel_param_1+8];
	.loc	1 19 3
	.loc	2 364 5, function_name $L__info_string0, inlined_at 1 19 3
	.loc	2 269 13, function_name $L__info_string1+4, inlined_at 2 364 5
	@!%p1 bra 	$L__BB0_2;
	.pragma "nounroll";
	{ // callseq 0, 0
	.reg .b32 temp_param_reg;
	.param .b64 param0;
	st.param.b64 	[param0+0], %rd1;
	.param .b32 retval0;
	call.uni (retval0),
	vprintf,
	(
	param0,
	param0
	);
	ld.param.b32 	%r1, [retval0+0];
	} // callseq 0
	{ .param .b64 param0; .param .b32 retval0;
	prototype_1 : .callprototype (.param .b32 _) _ (.param .b64 _) .noreturn;
	call (retval0), %rd3, (param0), prototype_1;
	}
$L__BB0_2:
	.loc	1 20 1
	$L_brx_0: .branchtargets $L__BB0_2, $L__BB0_3;
	brx.idx %r1, $L_brx_0;
$L__BB0_3:
	ret;
}
	.section	.debug_str
	{
$L__info_string0:
.b8 95,90,78,0
	}
)";

}  // namespace

TEST_CASE("ptx: a module") {
  const Module m = parse(sample);
  CHECK(m.version == 84);
  CHECK(m.target == 90);
  REQUIRE(m.variables.size() == 3);
  CHECK(m.variables[0].space == Space::constant);
  CHECK(m.variables[0].align == 4);
  CHECK(m.variables[0].bytes == 16);
  CHECK(m.variables[0].initial[2] == 128);
  CHECK(m.variables[0].initial.size() == 16);
  CHECK(m.variables[1].initial == std::vector<uint8_t>{7, 0, 0, 0});
  CHECK(m.variables[2].is_extern);
  CHECK(m.variables[2].space == Space::shared);
  CHECK(m.variables[2].bytes == 0);

  REQUIRE(m.functions.size() == 4);
  CHECK(m.find("nothing") == nullptr);
  const Function& printf_ = *m.find("vprintf");
  CHECK_FALSE(printf_.has_body);
  CHECK(printf_.parameters.size() == 2);
  CHECK(printf_.returns[0].bytes == 4);
  const Function& make = *m.find("make");  // declared, then defined
  CHECK(make.has_body);
  CHECK(make.returns[0].bytes == 24);
  CHECK(make.returns[0].align == 8);
  CHECK(make.instructions[0].operands[1].name == "n");
  const Function& twice = *m.find("twice");
  CHECK(twice.return_registers == std::vector<int32_t>{0});
  CHECK(twice.parameter_registers == std::vector<int32_t>{1, 2});
  CHECK(twice.registers[2].bytes == 0);
  CHECK(twice.instructions[0].operands[2].reg == 1);

  const Function& k = *m.find("kernel");
  CHECK(k.is_entry);
  CHECK(k.max_threads == 256);
  CHECK(k.min_blocks == 2);
  CHECK(k.cluster_blocks == 2);
  CHECK(k.required_threads == 0);
  CHECK(k.parameters[0].align == 8);
  CHECK(k.parameters[1].bytes == 40);
  CHECK(k.parameter_registers == std::vector<int32_t>{-1, -1});
  CHECK(k.registers.size() == 1 + 9 + 3 + 10 + 1);
  REQUIRE(k.variables.size() == 6);
  CHECK(k.variables[0].space == Space::local);
  CHECK(k.variables[1].name == "tile");
}

TEST_CASE("ptx: source lines") {
  const Module m = parse(sample);
  const Function& k = *m.find("kernel");
  CHECK(k.location.line == 13);
  CHECK(k.instructions[0].location.line == 13);
  CHECK(k.instructions[0].location.inlined_at == nullptr);
  CHECK(k.instructions[2].opcode == "bra");
  const Location& where = k.instructions[2].location;
  CHECK(where.line == 269);
  CHECK(m.file(where) == "/src/b.h");
  REQUIRE(where.inlined_at != nullptr);
  CHECK(where.inlined_at->line == 364);
  REQUIRE(where.inlined_at->inlined_at != nullptr);
  CHECK(where.inlined_at->inlined_at->line == 19);
  CHECK(m.file(*where.inlined_at->inlined_at) == "/src/a.cu");
  CHECK(where.inlined_at->inlined_at->inlined_at == nullptr);
  CHECK(k.instructions.back().location.line == 20);
  CHECK(k.instructions.back().location.inlined_at == nullptr);
  CHECK(m.file(Location{}) == "");
  CHECK(m.find("make")->instructions[0].location.line == 0);
  CHECK(module_of(".entry k() {\n/* two\nlines */ ret; }").functions[0].instructions[0].ptx_line == 6);
}

TEST_CASE("ptx: calls, and call sequences with variables of the same name") {
  const Module m = parse(sample);
  const Function& k = *m.find("kernel");
  const auto at = [&](size_t i) -> const Instruction& { return k.instructions.at(i); };
  CHECK(at(4).variant() == "call.uni");
  CHECK(at(4).operands.size() == 1);
  CHECK(at(4).operands[0].name == "vprintf");
  CHECK(at(4).call_returns[0].name == "retval0");
  CHECK(at(4).call_arguments.size() == 2);
  CHECK(at(4).prototype.empty());
  CHECK(at(6).operands[0].kind == Kind::reg);
  CHECK(at(6).prototype == "prototype_1");
  const std::string second = at(6).call_arguments[0].name;
  CHECK(second != "param0");
  CHECK(k.variables[4].name == second);
  CHECK(k.variables[4].bytes == 8);

  const Function f = body_of("call k; call k, (); call k, (%r1, 5); call (%r2), k;");
  CHECK(f.instructions[1].call_arguments.empty());
  CHECK(f.instructions[2].call_arguments[1].value == 5);
  CHECK(f.instructions[3].call_returns[0].kind == Kind::reg);
}

TEST_CASE("ptx: branches") {
  const Module m = parse(sample);
  const Function& k = *m.find("kernel");
  const Instruction& bra = k.instructions[2];
  CHECK(bra.guard_negated);
  CHECK(k.registers[size_t(bra.guard)].name == "%p1");
  CHECK(bra.operands[0].kind == Kind::label);
  CHECK(bra.operands[0].target == 7);
  const Instruction& brx = k.instructions[7];
  REQUIRE(brx.operands.size() == 3);
  CHECK(name(k, brx.operands[0]) == "%r1");
  CHECK(brx.operands[1].target == 7);
  CHECK(brx.operands[2].target == 8);

  // A scope's label hides that of the scope around it, wherever they stand.
  const Function f = body_of("L: { bra L; L: ret; } { bra.uni L; } { { bra M; } M: ret; } M: bra M; bra F; F:");
  const auto target = [&](size_t i) { return f.instructions.at(i).operands.at(0).target; };
  CHECK(target(0) == 1);
  CHECK(target(2) == 0);
  CHECK(target(3) == 4);
  CHECK(target(5) == 5);
  CHECK(target(6) == 7);
  CHECK(f.labels.size() == 5);
  CHECK(f.labels.at("F") == 7);
  CHECK(module_of(".func f { bra E; E: }").functions[0].labels.at("E") == 1);  // one past the end

  CHECK(refusal("{ Q: } bra Q;") == "no label Q in k");
  CHECK(refusal("Q: Q:") == "label Q is declared twice");
  CHECK(refusal("brx.idx %r1, T; T: .branchtargets T;") == "no list of labels T");
}

TEST_CASE("ptx: scopes of registers and variables") {
  const Function f = body_of(
      ".reg .b16 t<3>; mov.b16 t2, 0; { .reg .b32 t2; mov.b32 t2, 1; mov.b16 t1, 2; } mov.b16 t2, 3;"
      ".shared .b32 s; { .shared .b64 s; mov.b32 %r1, s; } mov.b32 %r1, s;"
      "{ .shared .b8 g; mov.b32 %r1, g; } mov.b32 %r1, g;");
  const auto bytes = [&](size_t i) { return f.registers.at(size_t(f.instructions.at(i).operands[0].reg)).bytes; };
  CHECK(bytes(0) == 2);
  CHECK(bytes(1) == 4);
  CHECK(bytes(2) == 2);
  CHECK(f.instructions[0].operands[0].reg == f.instructions[3].operands[0].reg);
  const auto symbol = [&](size_t i) { return f.instructions.at(i).operands.at(1).name; };
  CHECK(symbol(4) == f.variables[1].name);
  CHECK(symbol(5) == f.variables[0].name);
  CHECK(symbol(4) != symbol(5));
  CHECK(symbol(6) == f.variables[2].name);
  CHECK(symbol(6) != "g");  // hides the module's
  CHECK(symbol(7) == "g");

  CHECK(refusal(".reg .b32 %r1;") == "register %r1 is declared twice");
  CHECK(refusal("mov.b32 %r1, nothing;") == "nothing is not declared");
  CHECK(refusal(".reg .v2 .f32 v;") == "registers of a vector type");
  CHECK(refusal(".reg .b32 %q<99999999>;") == "99999999 is more than 1048576");
}

TEST_CASE("ptx: operands") {
  const Function f = body_of(
      "shfl.sync.bfly.b32 %r1|%p2, %r3, %r4, 31, -1;"
      "setp.eq.and.s32 %p1|_, %r1, %tid.x, !%p3;"
      "ld.global.L1::no_allocate.v4 .f32 {%f1, _, %f2, %f3}, [%rd1+-4];"
      "st.shared.b32 [g+4*2], %r1; st.local.b32 [64], %r1; ld.b32 %r1, [%rd2-4];"
      "mov.b64 %rd1, g-4; mov.b64 %rd2, p0; mov.b64 {%r1, %r2}, %rd1;"
      "cp.tensor [%rd1], [%rd2+8, {%r1, %r2}], 5; barrier.cluster.wait;");
  const auto operand = [&](size_t i, size_t j) -> const Operand& { return f.instructions.at(i).operands.at(j); };
  CHECK(operand(0, 0).kind == Kind::pair);
  CHECK(name(f, operand(0, 0).elements[1]) == "%p2");
  CHECK(operand(0, 4).value == -1);
  CHECK(operand(1, 0).elements[1].kind == Kind::ignored);
  CHECK(operand(1, 2).kind == Kind::special);
  CHECK(operand(1, 2).name == "tid.x");
  CHECK(operand(1, 3).negated);
  CHECK(name(f, operand(1, 3)) == "%p3");
  CHECK(f.instructions[2].variant() == "ld.global.L1::no_allocate.v4.f32");
  CHECK(f.instructions[2].has("L1::no_allocate"));
  CHECK_FALSE(f.instructions[2].has("L1"));
  CHECK(operand(2, 0).kind == Kind::vector);
  CHECK(operand(2, 0).elements.size() == 4);
  CHECK(operand(2, 0).elements[1].kind == Kind::ignored);
  CHECK(operand(2, 1).kind == Kind::address);
  CHECK(operand(2, 1).offset == -4);
  CHECK(name(f, operand(2, 1)) == "%rd1");
  CHECK(operand(3, 0).name == "g");
  CHECK(operand(3, 0).reg == -1);
  CHECK(operand(3, 0).offset == 8);
  CHECK(operand(4, 0).name.empty());
  CHECK(operand(4, 0).offset == 64);
  CHECK(operand(5, 1).offset == -4);
  CHECK(operand(6, 1).kind == Kind::symbol);
  CHECK(operand(6, 1).offset == -4);
  CHECK(operand(7, 1).name == "p0");
  CHECK(operand(9, 1).offset == 8);
  CHECK(operand(9, 1).elements.at(0).elements.size() == 2);
  CHECK(f.instructions[10].operands.empty());

  CHECK(refusal("ld.shared.b32 %r1, [g+%r2];") == "expected a constant, found '%r2'");
  CHECK(refusal("@%r1 ret;") == "%r1 is not a predicate");
  CHECK(refusal("mov.b32 %r1, !g;") == "g is not a predicate");
  CHECK(refusal("call 5;") == "a call of neither a function nor a register");
}

TEST_CASE("ptx: declarations and definitions") {
  const Module m = module_of(
      ".extern .global .b32 a; .visible .global .b32 a, b; .extern .global .b32 a;"
      ".func f; .func f { ret; } .func f;");
  CHECK(m.variables.size() == 2);
  CHECK_FALSE(m.variables[0].is_extern);
  CHECK(m.functions.size() == 1);
  CHECK(m.functions[0].has_body);
  CHECK_THROWS_AS(module_of(".global .b32 a; .global .b32 a;"), Error);
  CHECK_THROWS_AS(module_of(".func f { ret; } .func f { ret; }"), Error);
  CHECK_THROWS_AS(module_of(".global .b32 f; .func f { ret; }"), Error);
  CHECK(module_of(".func f .noreturn { exit; }").functions[0].noreturn);
  CHECK(module_of(".entry f .reqntid 8, 4 { exit; }").functions[0].required_threads == 32);
  CHECK(module_of(".func f(.param .align 8 .b8 rest[]) { ret; }").functions[0].parameters[0].bytes == 0);
}

TEST_CASE("ptx: errors name the line") {
  CHECK(error_of("") == "PTX line 1: expected .version, found the end of the text");
  CHECK(error_of(head + "\n\n.alias a, b;") == "PTX line 6: expected a declaration, found '.alias'");
  CHECK(error_of(head + ".entry k .blocksareclusters { }").starts_with("PTX line 4: "));
  CHECK(error_of(head + "\n/* \n\n */ ?").starts_with("PTX line 7: unexpected character"));
  CHECK(error_of(head + "/* ").starts_with("PTX line 4: a comment"));
  CHECK(error_of(head + ".file 1 \"a\n\"").starts_with("PTX line 4: a string"));
  CHECK(error_of(".version 8.0 .target sm_80 .address_size 32").find("64-bit") != std::string::npos);
  CHECK(error_of(head + ".entry k() {\nmov x,y z\n}") == "PTX line 5: x is not declared");
  CHECK(error_of(head + ".entry k() {\nbra x y\n}") == "PTX line 5: expected ;, found 'y'");
  CHECK(error_of(head + ".entry k() {\nX: X:\nret; }") == "PTX line 5: label X is declared twice");
  CHECK(error_of(head + ".entry k() {" + std::string(1000, '{')) == "PTX line 4: scopes nested too deeply");
}

TEST_CASE("ptx: a text cut short anywhere gives an error or a module") {
  size_t modules = 0;
  for (size_t size = 0; size < sample.size(); ++size) {
    const std::string part = sample.substr(0, size);  // of its own, so that reading beyond it is found
    try {
      parse(part);
      ++modules;
    } catch (const Error& e) {
      REQUIRE(std::string(e.what()).starts_with("PTX line "));
    }
  }
  CHECK(modules > 0);
  CHECK(modules < sample.size() / 2);
}

TEST_CASE("ptx: a text with any byte replaced gives an error or a module") {
  std::string changed = sample;
  for (const char replacement : {'\0', '{', '}', ';', '(', '9', '%', '.', '"', '-', 'x'})
    for (size_t at = 0; at < sample.size(); ++at) {
      changed[at] = replacement;
      try {
        parse(changed);
      } catch (const Error& e) {
        REQUIRE(std::string(e.what()).starts_with("PTX line "));
      }
      changed[at] = sample[at];
    }
}
