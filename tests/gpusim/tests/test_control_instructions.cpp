// Branches, calls, barriers, fences, address spaces, matrices and asynchronous copies: instructions that need a whole
// kernel.
#include <doctest/doctest.h>

#include <bit>
#include <cstring>

#include "gpusim/error.h"
#include "gpusim/tests/kernel_case.h"

using namespace gpusim;

namespace {

std::vector<uint32_t> words(const std::vector<uint8_t>& bytes) {
  std::vector<uint32_t> w(bytes.size() / 4);
  std::memcpy(w.data(), bytes.data(), bytes.size());
  return w;
}

/// Runs a body that leaves its result in %r0, and answers it for each thread.
std::vector<uint32_t> result_of(KernelCase kernel, const std::vector<uint8_t>& in = random_bytes(4096, 1)) {
  kernel.body += "\nmul.wide.u32 %d31, %lane, 4;\nadd.s64 %d31, %out, %d31;\nst.global.u32 [%d31], %r0;\n";
  return words(run_kernel(kernel, in, 4 * kernel.threads));
}

template <class F>
int wrong_in(const std::vector<uint32_t>& got, F&& expected) {
  int wrong = 0;
  for (uint32_t t = 0; t < got.size(); ++t) wrong += got[t] != static_cast<uint32_t>(expected(t));
  return wrong;
}

}  // namespace

TEST_CASE("branches") {
  // Every lane takes another number of turns, and parts with the others twice in each.
  const std::vector<uint32_t> got = result_of({.module = "",
                                               .body = R"(
    mov.u32 %r0, 0;
    mov.u32 %r1, 0;
    loop:
    setp.ge.u32 %p0, %r1, %lane;
    @%p0 bra done;
    and.b32 %r2, %r1, 1;
    setp.eq.u32 %p1, %r2, 0;
    @!%p1 bra odd;
    add.u32 %r0, %r0, 3;
    bra.uni next;
    odd:
    add.u32 %r0, %r0, 5;
    next:
    add.u32 %r1, %r1, 1;
    bra loop;
    done:)",
                                               .parameter = {}});
  CHECK(wrong_in(got, [](uint32_t t) { return (t + 1) / 2 * 3 + t / 2 * 5; }) == 0);
  // A table.
  const std::vector<uint32_t> table = result_of({.module = "",
                                                 .body = R"(
    and.b32 %r1, %lane, 3;
    targets: .branchtargets a, b, c, d;
    brx.idx %r1, targets;
    a: mov.u32 %r0, 10; bra end;
    b: mov.u32 %r0, 11; bra end;
    c: mov.u32 %r0, 12; bra end;
    d: mov.u32 %r0, 13;
    end:)",
                                                 .parameter = {}});
  CHECK(wrong_in(table, [](uint32_t t) { return 10 + t % 4; }) == 0);
}

TEST_CASE("lanes that end leave the others") {
  const std::vector<uint8_t> out = run_kernel({.module = "",
                                               .body = R"(
    mul.wide.u32 %d31, %lane, 4;
    add.s64 %d31, %out, %d31;
    st.global.u32 [%d31], 1;
    setp.lt.u32 %p0, %lane, 10;
    @%p0 exit;
    setp.lt.u32 %p0, %lane, 20;
    @%p0 ret;
    bar.sync 0;
    bar.warp.sync 0xffffffff;
    st.global.u32 [%d31], 2;)",
                                               .parameter = {}},
                                              random_bytes(16, 1), 128);
  CHECK(wrong_in(words(out), [](uint32_t t) { return t < 20 ? 1 : 2; }) == 0);
}

TEST_CASE("calls") {
  KernelCase kernel{.module = R"(
    .func (.param .b32 result) twice(.param .b32 x)
    { .reg .b32 %r<4>; .reg .pred %p<2>;
      ld.param.u32 %r1, [x];
      setp.gt.u32 %p1, %r1, 20;
      @%p1 bra large;
      add.u32 %r1, %r1, %r1;
      st.param.b32 [result+0], %r1;
      ret;
      large: st.param.b32 [result+0], 1000;
      ret; })",
                    .body = R"(
    mov.u32 %r0, 7;
    setp.ne.u32 %p0, %lane, 3;
    @!%p0 bra around;
    { .param .b32 a; st.param.b32 [a+0], %lane; .param .b32 r; call.uni (r), twice, (a); ld.param.b32 %r0, [r+0]; }
    around:
    { .param .b32 a; st.param.b32 [a+0], %lane; .param .b32 r; call (r), twice, (a); ld.param.b32 %r1, [r+0]; }
    add.u32 %r0, %r0, %r1;)",
                    .parameter = {}};
  CHECK(wrong_in(result_of(kernel), [](uint32_t t) {
          return (t == 3 ? 7 : t > 20 ? 1000 : 2 * t) + (t > 20 ? 1000 : 2 * t);
        }) == 0);
}

TEST_CASE("calls that cannot be simulated are refused by name") {
  const char* recursive = R"(.func f() { call f, (); ret; })";
  CHECK_THROWS_WITH_AS(
      run_kernel({.module = recursive, .body = "call f, ();", .parameter = {}}, random_bytes(16, 1), 16),
      doctest::Contains("recursion"), Error);
  const char* pointer = R"(.func f() { ret; })";
  CHECK_THROWS_WITH_AS(run_kernel({.module = pointer,
                                   .body = "mov.u64 %d0, f; prototype: .callprototype _ (); call %d0, (), prototype;",
                                   .parameter = {}},
                                  random_bytes(16, 1), 16),
                       doctest::Contains("address of the function f"), Error);
}

TEST_CASE("barriers") {
  // 96 threads hand over to their neighbour in a ring, in every spelling.
  for (const char* barrier : {"bar.sync 0;", "barrier.sync 0;", "barrier.sync.aligned 0;", "bar.sync 3, 96;",
                              "bar.cta.sync 0;", "barrier.cta.sync.aligned 1, 96;"}) {
    INFO(barrier);
    const std::string body = fmt::format(R"(
      mov.u64 %d0, mem;
      mad.wide.u32 %d1, %lane, 4, %d0;
      st.shared.u32 [%d1], %lane;
      {}
      add.u32 %r1, %lane, 1;
      rem.u32 %r1, %r1, 96;
      mad.wide.u32 %d1, %r1, 4, %d0;
      ld.shared.u32 %r0, [%d1];)",
                                         barrier);
    CHECK(
        wrong_in(result_of({.module = ".shared .align 4 .b8 mem[384];", .body = body, .parameter = {}, .threads = 96}),
                 [](uint32_t t) { return (t + 1) % 96; }) == 0);
  }
  // Producers arrive, consumers wait.
  CHECK(wrong_in(result_of({.module = ".shared .align 4 .b8 mem[128];",
                            .body = R"(
      mov.u64 %d0, mem;
      and.b32 %r1, %lane, 31;
      mad.wide.u32 %d1, %r1, 4, %d0;
      mov.u32 %r0, 0;
      setp.lt.u32 %p0, %lane, 32;
      @%p0 bra consume;
      st.shared.u32 [%d1], %lane;
      bar.arrive 1, 64;
      bra end;
      consume:
      bar.sync 1, 64;
      ld.shared.u32 %r0, [%d1];
      end:)",
                            .parameter = {},
                            .threads = 64}),
                 [](uint32_t t) { return t < 32 ? t + 32 : 0; }) == 0);
}

TEST_CASE("barriers that reduce") {
  struct Case {
    const char* instruction;
    uint32_t expected;
  };
  for (const Case& c : {Case{"bar.red.popc.u32 %r0, 0, %p0;", 70},
                        {"bar.red.popc.u32 %r0, 0, 96, %p0;", 70},
                        {"barrier.red.popc.u32 %r0, 0, !%p0;", 26},
                        {"bar.red.or.pred %p1, 0, %p0; selp.u32 %r0, 1, 0, %p1;", 1},
                        {"bar.red.and.pred %p1, 0, %p0; selp.u32 %r0, 1, 0, %p1;", 0},
                        {"bar.red.or.pred %p1, 0, %p2; selp.u32 %r0, 1, 0, %p1;", 0},
                        {"bar.red.and.pred %p1, 0, !%p2; selp.u32 %r0, 1, 0, %p1;", 1},
                        {"barrier.cta.red.or.pred %p1, 0, %p0; selp.u32 %r0, 1, 0, %p1;", 1}}) {
    INFO(c.instruction);
    CHECK(wrong_in(result_of({.module = "",
                              .body = std::string("setp.lt.u32 %p0, %lane, 70; setp.gt.u32 %p2, %lane, 200;\n") +
                                      c.instruction,
                              .parameter = {},
                              .threads = 96}),
                   [&](uint32_t) { return c.expected; }) == 0);
  }
}

TEST_CASE("fences and what has no effect here") {
  CHECK(wrong_in(result_of({.module = "",
                            .body = R"(
    membar.cta; membar.gl; membar.sys; fence.acq_rel.gpu; fence.acq_rel.cta; fence.sc.gpu; fence.sc.cta; fence.sc.sys; fence.acq_rel.sys;
    nanosleep.u32 20; prefetch.global.L2 [%in]; prefetch.global.L1 [%in];
    griddepcontrol.wait; griddepcontrol.launch_dependents; pmevent 1;
    bar.warp.sync 0xffffffff;
    mov.u32 %r0, %laneid;)",
                            .parameter = {}}),
                 [](uint32_t t) { return t; }) == 0);
}

TEST_CASE("a trap ends the launch") {
  const std::vector<uint8_t> out = run_kernel({.module = "",
                                               .body = R"(
    st.global.u32 [%out], 1;
    setp.eq.u32 %p0, %lane, 7;
    @%p0 trap;
    st.global.u32 [%out+4], 1;)",
                                               .parameter = {}},
                                              random_bytes(16, 1), 8, true);
  CHECK(words(out) == std::vector<uint32_t>{1, 0});
}

TEST_CASE("special registers") {
  struct Case {
    const char* name;
    uint32_t (*expected)(uint32_t);
  };
  for (const Case& c : {Case{"%tid.x", [](uint32_t t) { return t; }},
                        {"%tid.y", [](uint32_t) { return 0u; }},
                        {"%ntid.x", [](uint32_t) { return 64u; }},
                        {"%ctaid.x", [](uint32_t) { return 0u; }},
                        {"%nctaid.z", [](uint32_t) { return 1u; }},
                        {"%laneid", [](uint32_t t) { return t % 32; }},
                        {"%warpid", [](uint32_t t) { return t / 32; }},
                        {"%lanemask_eq", [](uint32_t t) { return 1u << t % 32; }},
                        {"%lanemask_lt", [](uint32_t t) { return (1u << t % 32) - 1; }},
                        {"%lanemask_ge", [](uint32_t t) { return ~((1u << t % 32) - 1); }},
                        {"%lanemask_gt", [](uint32_t t) { return ~(((1u << t % 32) - 1) * 2 + 1); }},
                        {"%lanemask_le", [](uint32_t t) { return ((1u << t % 32) - 1) * 2 + 1; }},
                        {"WARP_SZ", [](uint32_t) { return 32u; }}}) {
    INFO(c.name);
    CHECK(wrong_in(result_of(
                       {.module = "", .body = fmt::format("mov.u32 %r0, {};", c.name), .parameter = {}, .threads = 64}),
                   c.expected) == 0);
  }
  // Time passes, and only forwards.
  CHECK(wrong_in(result_of({.module = "",
                            .body = R"(
    mov.u32 %r1, %clock; mov.u64 %d1, %clock64; mov.u64 %d3, %globaltimer;
    add.u32 %r3, %r1, %r1;
    mov.u32 %r2, %clock; mov.u64 %d2, %clock64; mov.u64 %d4, %globaltimer;
    setp.gt.u32 %p0, %r2, %r1; setp.gt.and.u64 %p0, %d2, %d1, %p0; setp.gt.and.u64 %p0, %d4, %d3, %p0;
    selp.u32 %r0, 1, 0, %p0;)",
                            .parameter = {}}),
                 [](uint32_t) { return 1; }) == 0);
}

TEST_CASE("address spaces") {
  // Each space's address made generic is of that space and no other, reads the same, and comes back.
  for (const char* space : {"shared", "local", "global", "param", "const"}) {
    INFO(space);
    const std::string s = space;
    KernelCase kernel{
        .module = s == "shared"   ? ".shared .align 8 .b8 mem[256];"
                  : s == "global" ? ".global .align 8 .b8 mem[256];"
                  : s == "const"  ? ".const .align 8 .b32 mem[64] = {77};"
                                  : "",
        .body = s == "local" ? ".local .align 8 .b8 mem[256];\n" : "",
        .parameter = s == "param" ? std::vector<uint8_t>{77, 0, 0, 0, 0, 0, 0, 0} : std::vector<uint8_t>{}};
    kernel.body += fmt::format("mov.u64 %d0, {};\n", s == "param" ? "extra" : "mem");
    if (s == "shared" || s == "local" || s == "global")
      kernel.body += fmt::format("st.{}.u32 [%d0], 77;\nbar.warp.sync 0xffffffff;\n", s);
    kernel.body += fmt::format(
        "cvta.{}.u64 %d1, %d0;\nld.u32 %r1, [%d1];\ncvta.to.{}.u64 %d2, %d1;\nsetp.eq.u64 %p0, %d0, "
        "%d2;\nsetp.eq.and.u32 %p0, %r1, 77, %p0;\n",
        s, s);
    for (const char* other : {"shared", "local", "global"}) {
      const bool is = s == other || (s == "const" && std::string(other) == "global");
      kernel.body +=
          fmt::format("isspacep.{} %p1, %d1;\n{}and.pred %p0, %p0, %p1;\n", other, is ? "" : "not.pred %p1, %p1;\n");
    }
    kernel.body += "selp.u32 %r0, 1, 0, %p0;";
    CHECK(wrong_in(result_of(kernel), [](uint32_t) { return 1; }) == 0);
  }
}

TEST_CASE("ldmatrix and stmatrix") {
  // Element (i, j) of matrix m is the half 64 m + 8 i + j. Lane l gets (l / 4, 2 (l % 4)) and its neighbour.
  const std::string fill = R"(
    mov.u64 %d0, mem;
    mul.lo.u32 %r1, %lane, 8;
    mad.wide.u32 %d1, %lane, 16, %d0;
    cvt.u16.u32 %h0, %r1; add.u16 %h1, %h0, 1; add.u16 %h2, %h0, 2; add.u16 %h3, %h0, 3;
    st.shared.v4.u16 [%d1], {%h0, %h1, %h2, %h3};
    add.u16 %h0, %h0, 4; add.u16 %h1, %h1, 4; add.u16 %h2, %h2, 4; add.u16 %h3, %h3, 4;
    st.shared.v4.u16 [%d1+8], {%h0, %h1, %h2, %h3};
    bar.warp.sync 0xffffffff;
    cvt.u32.u64 %r30, %d1;
)";
  auto element = [](uint32_t m, uint32_t t, bool transposed) {
    const uint32_t i = t / 4, j = 2 * (t % 4);
    return transposed ? (64 * m + 8 * j + i) | (64 * m + 8 * (j + 1) + i) << 16
                      : (64 * m + 8 * i + j) | (64 * m + 8 * i + j + 1) << 16;
  };
  for (int count : {1, 2, 4})
    for (bool transposed : {false, true})
      for (uint32_t m = 0; m < static_cast<uint32_t>(count); ++m) {
        const std::string registers = count == 1 ? "{%r4}" : count == 2 ? "{%r4, %r5}" : "{%r4, %r5, %r6, %r7}";
        const std::string load =
            fmt::format("ldmatrix.sync.aligned.m8n8.x{}{}.shared.b16 {}, [%r30];\nmov.u32 %r0, %r{};", count,
                        transposed ? ".trans" : "", registers, 4 + m);
        INFO(load);
        CHECK(wrong_in(result_of({.module = ".shared .align 16 .b8 mem[512];", .body = fill + load, .parameter = {}}),
                       [&](uint32_t t) { return element(m, t, transposed); }) == 0);
        // What is stored comes back as it was, transposed if that was asked for once.
        const std::string store = fmt::format(
            "ldmatrix.sync.aligned.m8n8.x{}.shared.b16 {}, [%r30];\nbar.warp.sync 0xffffffff;\n"
            "stmatrix.sync.aligned.m8n8.x{}{}.shared.b16 [%r30], {};\nbar.warp.sync 0xffffffff;\n"
            "ldmatrix.sync.aligned.m8n8.x{}.shared.b16 {}, [%r30];\nmov.u32 %r0, %r{};",
            count, registers, count, transposed ? ".trans" : "", registers, count, registers, 4 + m);
        CHECK(wrong_in(result_of({.module = ".shared .align 16 .b8 mem[512];", .body = fill + store, .parameter = {}}),
                       [&](uint32_t t) { return element(m, t, transposed); }) == 0);
      }
}

TEST_CASE("fragments of wmma") {
  // What is loaded from one layout and stored in the other is the transposed matrix.
  struct Case {
    const char *what, *shape, *type;
    int rows, columns, bytes, registers;
  };
  for (const Case& c : {Case{"c", "m16n16k16", "f32", 16, 16, 4, 8},
                        {"c", "m32n8k16", "f32", 32, 8, 4, 8},
                        {"c", "m8n32k16", "f16", 8, 32, 2, 4},
                        {"c", "m16n16k16", "f16", 16, 16, 2, 4},
                        {"c", "m8n8k4", "f64", 8, 8, 8, 2}})
    for (const char* space : {"global", "shared", ""})
      for (bool by_column : {false, true}) {
        INFO(c.shape, " ", c.type, " ", space, " ", by_column);
        const int n = c.rows * c.columns, out_stride = by_column ? c.columns : c.rows;
        std::string registers;
        for (int r = 0; r < c.registers; ++r)
          registers += fmt::format("{}%{}{}", r ? ", " : "", c.bytes == 8 ? "d" : "r", r);
        std::string body = "mov.u64 %d20, %in;\n";
        const std::string s = *space ? std::string(".") + space : "";
        if (std::string(space) == "shared") {
          body += "mov.u64 %d20, mem;\nmad.wide.u32 %d21, %lane, 4, %d20;\nmad.wide.u32 %d22, %lane, 4, %in;\n";
          for (int k = 0; k < n * c.bytes; k += 128)
            body += fmt::format("ld.global.u32 %r20, [%d22+{}];\nst.shared.u32 [%d21+{}], %r20;\n", k, k);
          body += "bar.warp.sync 0xffffffff;\n";
        }
        body += fmt::format("wmma.load.c.sync.aligned.{}.{}{}.{} {{{}}}, [%d20];\n", by_column ? "col" : "row", c.shape,
                            s, c.type, registers);
        body += fmt::format("wmma.store.d.sync.aligned.{}.{}.global.{} [%out], {{{}}}, {};\n",
                            by_column ? "row" : "col", c.shape, c.type, registers, out_stride);
        const std::vector<uint8_t> in = random_bytes(n * c.bytes, 11);
        const std::vector<uint8_t> out =
            run_kernel({.module = ".shared .align 32 .b8 mem[2048];", .body = body, .parameter = {}}, in, n * c.bytes);
        int wrong = 0;
        for (int i = 0; i < c.rows; ++i)
          for (int j = 0; j < c.columns; ++j) {
            const int row_major = i * c.columns + j, column_major = j * c.rows + i;
            wrong += std::memcmp(&in[(by_column ? column_major : row_major) * c.bytes],
                                 &out[(by_column ? row_major : column_major) * c.bytes], c.bytes) != 0;
          }
        CHECK(wrong == 0);
      }
  // A product of matrices: small integers, so that every order of sums gives the same.
  std::vector<uint8_t> in(3 * 256 * 4);
  float a[16][16], b[16][16];
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      a[i][j] = static_cast<float>((3 * i + 5 * j) % 7 - 3), b[i][j] = static_cast<float>((2 * i + j) % 5 - 2);
      // bf16 is the upper half of f32.
      const uint16_t bits_a = static_cast<uint16_t>(std::bit_cast<uint32_t>(a[i][j]) >> 16),
                     bits_b = static_cast<uint16_t>(std::bit_cast<uint32_t>(b[i][j]) >> 16);
      std::memcpy(&in[2 * (16 * i + j)], &bits_a, 2);
      std::memcpy(&in[512 + 2 * (16 * j + i)], &bits_b, 2);  // by columns
    }
  const std::vector<uint8_t> out = run_kernel({.module = "",
                                               .body = R"(
    wmma.load.a.sync.aligned.row.m16n16k16.global.bf16 {%r0, %r1, %r2, %r3}, [%in], 16;
    add.s64 %d0, %in, 512;
    wmma.load.b.sync.aligned.col.m16n16k16.global.bf16 {%r4, %r5, %r6, %r7}, [%d0], 16;
    mov.b32 %r10, 0f00000000;
    wmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f32 {%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27},
      {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r10, %r10, %r10, %r10, %r10, %r10, %r10, %r10};
    wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%out], {%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27}, 16;)",
                                               .parameter = {}},
                                              in, 1024);
  int wrong = 0;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) {
      float expected = 0, got = 0;
      for (int k = 0; k < 16; ++k) expected += a[i][k] * b[k][j];
      std::memcpy(&got, &out[4 * (16 * i + j)], 4);
      wrong += got != expected;
    }
  CHECK(wrong == 0);
}

TEST_CASE("asynchronous copies") {
  const std::vector<uint8_t> in = random_bytes(1024, 9);
  const std::vector<uint32_t> from = words(in);
  for (int bytes : {4, 8, 16})
    for (const char* kind : {"ca", "cg"})
      for (const char* wait : {"cp.async.wait_all;", "cp.async.commit_group;\ncp.async.wait_group 0;"}) {
        if (std::string(kind) == "cg" && bytes < 16) continue;
        const std::string body = fmt::format(R"(
          mov.u64 %d0, mem;
          mad.wide.u32 %d1, %lane, {0}, %d0;
          mad.wide.u32 %d2, %lane, {0}, %in;
          cp.async.{1}.shared.global [%d1], [%d2], {0};
          {2}
          ld.shared.u32 %r0, [%d1+{3}];)",
                                             bytes, kind, wait, bytes - 4);
        INFO(body);
        CHECK(wrong_in(result_of({.module = ".shared .align 16 .b8 mem[512];", .body = body, .parameter = {}}, in),
                       [&](uint32_t t) { return from[(t + 1) * bytes / 4 - 1]; }) == 0);
      }
  // Fewer bytes than asked for: the rest are zeros. And of two groups only the older one has to have come.
  CHECK(wrong_in(result_of({.module = ".shared .align 16 .b8 mem[1024];",
                            .body = R"(
      mov.u64 %d0, mem;
      mad.wide.u32 %d1, %lane, 16, %d0;
      mad.wide.u32 %d2, %lane, 16, %in;
      mov.u32 %r1, 8;
      cp.async.cg.shared.global [%d1], [%d2], 16, %r1;
      cp.async.commit_group;
      cp.async.ca.shared.global.L2::128B [%d1+512], [%d2], 16;
      cp.async.commit_group;
      cp.async.wait_group 1;
      ld.shared.u32 %r2, [%d1+4];
      ld.shared.u32 %r3, [%d1+8];
      cp.async.wait_group 0;
      add.u32 %r0, %r2, %r3;)",
                            .parameter = {}},
                           in),
                 [&](uint32_t t) { return from[4 * t + 1]; }) == 0);
  // Nobody waited: the memory was never written.
  run_kernel({.module = ".shared .align 16 .b8 mem[512];",
              .body = R"(
      mov.u64 %d0, mem;
      mad.wide.u32 %d1, %lane, 4, %d0;
      mad.wide.u32 %d2, %lane, 4, %in;
      cp.async.ca.shared.global [%d1], [%d2], 4;
      ld.shared.u32 %r0, [%d1];)",
              .parameter = {}},
             in, 128, true);
}
