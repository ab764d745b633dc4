#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "engine/check.h"
#include "engine/threads.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

// Lets an allocation that is too large return null under the address sanitizer, as it does without.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

TEST_CASE("allocator: a freed block serves the next request of its size class, or of one up to half as large") {
  CpuAllocator a;
  const auto first = a.allocate(1000);
  CHECK(reinterpret_cast<uintptr_t>(first.data) % 64 == 0);
  std::memset(first.data, 1, 1000);
  a.release(first);
  const auto second = a.allocate(1010);
  CHECK(second.data == first.data);
  const auto third = a.allocate(1010);
  CHECK(third.data != second.data);
  CHECK(a.statistics().calls == 3);
  CHECK(a.statistics().system_calls == 2);
  a.release(second);
  const auto smaller = a.allocate(600);
  CHECK(smaller.data == second.data);
  CHECK(a.statistics().in_use == 2 * 1024);
  a.release(smaller);
  const auto small = a.allocate(400);
  CHECK(small.data != smaller.data);
  CHECK(a.statistics().system_calls == 3);
  a.release(small);
  CHECK(a.allocate(1024).data == second.data);  // it is of its own class again
  a.release(second);
  a.release(third);
  CHECK(a.statistics().in_use == 0);
  CHECK(a.statistics().reserved > 0);
  a.trim();
  CHECK(a.statistics().reserved == 0);
}

TEST_CASE("allocator: every size is aligned and costs at most a quarter more") {
  CpuAllocator a;
  for (size_t bytes : {0, 1, 255, 256, 257, 511, 512, 513, 1000, 4097, 65535, 65537, 1000001}) {
    const int64_t before = a.statistics().in_use;
    const auto block = a.allocate(bytes);
    CHECK(reinterpret_cast<uintptr_t>(block.data) % 64 == 0);
    std::memset(block.data, 0, bytes);
    const int64_t taken = a.statistics().in_use - before;
    CHECK(taken >= static_cast<int64_t>(bytes));
    CHECK(taken <= std::max<int64_t>(256, static_cast<int64_t>(bytes) * 5 / 4));
    a.release(block);
  }
}

TEST_CASE("allocator: the peak follows what is held, not what is reserved") {
  Context ctx(1);
  { const Tensor a = ctx.empty({1024}, DType::f32), b = ctx.empty({1024}, DType::f32); }
  CHECK(ctx.allocator().statistics().peak == 2 * 4096);
  ctx.allocator().reset_peak();
  CHECK(ctx.allocator().statistics().peak == 0);
  { const Tensor a = ctx.empty({1024}, DType::f32); }
  CHECK(ctx.allocator().statistics().peak == 4096);
  CHECK(ctx.allocator().statistics().system_calls == 2);
}

TEST_CASE("allocator: guard bands find writes outside, on either side, and fresh memory is NaN") {
  for (int64_t at : {-1, 4, 63, 65}) {  // 4: the rounding to the size class is outside, too
    Context ctx(1);
    ctx.allocator().set_guard(true);
    {
      Tensor t = ctx.empty({4}, DType::i8);
      t.data<int8_t>()[at] = 0;
    }
    CHECK(ctx.allocator().guard_violations() == 1);
  }
  Context ctx(1);
  ctx.allocator().set_guard(true);
  {
    Tensor t = ctx.empty({3, 5}, DType::f32);
    for (float x : t.span<float>()) CHECK(std::isnan(x));
    for (float& x : t.span<float>()) x = 0;
    CHECK_THROWS_AS(ctx.allocator().set_guard(false), Error);
  }
  CHECK(ctx.allocator().guard_violations() == 0);
}

TEST_CASE("allocator: an impossible size is an Error and leaves the statistics alone") {
  Context ctx(1);
  CHECK_THROWS_AS(ctx.empty({int64_t{1} << 60}, DType::i8), Error);
  CHECK(ctx.allocator().statistics().in_use == 0);
}

TEST_CASE("allocator: several threads at once") {
  CpuAllocator a;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 1; i < 300; ++i) {
        const auto block = a.allocate(i * 16);
        auto* data = static_cast<unsigned char*>(block.data);
        std::memset(data, t, i * 16);
        bool mine = true;
        for (int k = 0; k < i * 16; ++k) mine &= data[k] == t;
        if (!mine) std::terminate();
        a.release(block);
      }
    });
  for (auto& t : threads) t.join();
  CHECK(a.statistics().in_use == 0);
  CHECK(a.statistics().calls == 4 * 299);
}

TEST_CASE("shape: extents, negative axes, limits") {
  const Shape s{2, 3, 4};
  CHECK(s.numel() == 24);
  CHECK(s[-1] == 4);
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{0, 5}.numel() == 0);
  CHECK(s == Shape{2, 3, 4});
  CHECK(!(s == Shape{2, 3}));
  CHECK(fmt::format("{}", s) == "[2, 3, 4]");
  CHECK_THROWS_WITH_AS((Shape{1, -1}), "shape: axis 1 has negative extent -1", Error);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
}

TEST_CASE("tensor: views share the storage, which lives as long as any of them") {
  Tensor row;
  {
    Context ctx(1);
    Tensor t = ctx.of({3, 2}, DType::f64, std::vector<double>{0, 1, 2, 3, 4, 5});
    row = t.narrow(1, 2);
    CHECK(!t.unique());
    CHECK(row.reshape({4}).data<double>()[3] == 5);
    t.data<double>()[2] = 7;
  }
  CHECK(row.unique());
  CHECK(row.shape() == Shape{2, 2});
  CHECK(row.data<double>()[0] == 7);
  CHECK(row.narrow(2, 0).numel() == 0);
  CHECK(row.narrow(1, 1).reshape({2}).narrow(1, 1).item() == 5);
}

TEST_CASE("tensor: wrong use is an Error") {
  Context ctx(1);
  const Tensor t = ctx.zeros({3, 2}, DType::f32);
  CHECK_THROWS_WITH_AS(t.reshape({5}), "reshape: [5] has another number of elements than [3, 2]", Error);
  CHECK_THROWS_AS(t.narrow(2, 2), Error);
  CHECK_THROWS_AS(t.narrow(-1, 1), Error);
  CHECK_THROWS_AS(t.narrow(0, -1), Error);
  CHECK_THROWS_AS(t.narrow(1, INT64_MAX), Error);
  CHECK_THROWS_AS(ctx.zeros({}, DType::f32).narrow(0, 0), Error);
  CHECK_THROWS_WITH_AS(t.data<double>(), "tensor: asked for f64 elements of a f32 tensor", Error);
  CHECK_THROWS_AS(t.item(), Error);
  CHECK_THROWS_AS(ctx.of({2}, DType::f32, std::vector<double>{1}), Error);
  CHECK(Tensor().numel() == 0);
  CHECK(!Tensor().defined());
  CHECK(ctx.of({}, DType::boolean, std::vector<double>{1}).item() == 1);
  CHECK(ctx.of({1}, DType::fp8_e4m3, std::vector<double>{-1.5}).item() == -1.5);
  CHECK_THROWS_AS(Context(-1), Error);
}

TEST_CASE("check: messages name the operation, the argument, what was expected and what came") {
  Context ctx(1);
  const Tensor t = ctx.zeros({3, 2}, DType::i32);
  check("norm", "x", t).rank(2).shape({3, 2}).dtype(DType::i32).like(t);
  CHECK_THROWS_WITH_AS(check("norm", "x", t).rank(1), "norm: x has shape [3, 2], expected 1 axes", Error);
  CHECK_THROWS_WITH_AS(check("norm", "x", t).shape({3}), "norm: x has shape [3, 2], expected [3]", Error);
  CHECK_THROWS_WITH_AS(check("norm", "x", t).compute(), "norm: x is i32, expected f64, f32 or bf16", Error);
  CHECK_THROWS_WITH_AS(check("norm", "x", t).dtype(DType::f32), "norm: x is i32, expected f32", Error);
  CHECK_THROWS_WITH_AS(check("norm", "x", Tensor()), "norm: x is not there", Error);
}

TEST_CASE("threads: chunks cover all items once, cut the same for any number of threads") {
  for (int64_t n : {0, 1, 31, 32, 33, 1000})
    for (int threads : {1, 2, 5}) {
      Context ctx(threads);
      std::vector<int> seen(n, 0), chunk(n, -1);
      parallel_chunks(ctx, n, 32, [&](int64_t c, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[i], chunk[i] = static_cast<int>(c);
      });
      for (int64_t i = 0; i < n; ++i) {
        REQUIRE((seen[i] == 1 && chunk[i] == i / 32));
      }
    }
}

TEST_CASE("threads: a sum has the same bits for any number of threads") {
  auto sum = [](int threads) {
    Context ctx(threads);
    return parallel_sum<float>(ctx, 100001, 1000, [](int64_t, int64_t begin, int64_t end) {
      float s = 0;
      for (int64_t i = begin; i < end; ++i) s += 1.0f / static_cast<float>(i + 1);
      return s;
    });
  };
  const float one = sum(1);
  for (int threads : {2, 3, 7}) CHECK(std::bit_cast<uint32_t>(sum(threads)) == std::bit_cast<uint32_t>(one));
  CHECK(one == doctest::Approx(12.0902).epsilon(1e-4));
}

TEST_CASE("threads: the exception of the first chunk that throws arrives") {
  for (int threads : {1, 4})
    for (int repeat = 0; repeat < 20; ++repeat) {
      Context ctx(threads);
      try {
        parallel_chunks(ctx, 64, 1, [](int64_t c, int64_t, int64_t) {
          // The first takes longest, so that later ones throw before it.
          if (c == 3) std::this_thread::sleep_for(std::chrono::milliseconds(2));
          if (c >= 3) fail("chunk", "{}", c);
        });
        FAIL("nothing was thrown");
      } catch (const Error& e) {
        CHECK(std::string(e.what()) == "chunk: 3");
      }
    }
}

TEST_CASE("profiler: rows add up, the table and the trace show them") {
  Profiler p;
  { auto scope = p.scope("unseen"); }
  CHECK(p.rows().empty());
  p.set_on(true);
  for (int i = 0; i < 3; ++i) {
    auto outer = p.scope("outer", 1e9, 2e9);
    auto inner = p.scope("inner");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const auto rows = p.rows();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].name == "outer");
  CHECK(rows[0].calls == 3);
  CHECK(rows[0].bytes == 3e9);
  CHECK(rows[0].flops == 6e9);
  CHECK(rows[0].seconds >= rows[1].seconds);
  CHECK(rows[1].seconds >= 3e-3);
  CHECK(p.table().find("outer") < p.table().find("inner"));
  CHECK(has(p.table(), "GFLOP/s"));
  const auto trace = nlohmann::json::parse(p.chrome_trace())["traceEvents"];
  REQUIRE(trace.size() == 6);
  CHECK(trace[0]["name"] == "inner");  // by end
  CHECK(trace[1]["name"] == "outer");
  CHECK(trace[1]["ts"] == 0.0);
  CHECK(trace[0]["ts"].get<double>() + trace[0]["dur"].get<double>() <=
        trace[1]["ts"].get<double>() + trace[1]["dur"].get<double>() + 0.01);
  p.clear();
  CHECK(p.rows().empty());
  CHECK(nlohmann::json::parse(p.chrome_trace())["traceEvents"].empty());
}

TEST_CASE("philox: known answers of Random123") {
  using Words = std::array<uint32_t, 4>;
  CHECK(philox(0, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox(~0ull, ~0ull, ~0ull) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("rng: uniforms and normals have the right moments and range") {
  const Draw draw = Rng(7).draw("x", 100000);
  double u = 0, u2 = 0, v = 0, n = 0, n2 = 0, n4 = 0, pairs = 0;
  const int64_t count = 100000;
  bool in_range = true;
  for (int64_t i = 0; i < count; ++i) {
    const double a = draw.uniform(i), b = draw.uniform53(i), z = draw.normal(i);
    in_range &= a >= 0 && a < 1 && b >= 0 && b < 1;
    u += a, u2 += a * a, v += b, n += z, n2 += z * z, n4 += z * z * z * z;
    if (i % 2) pairs += z * draw.normal(i - 1);
  }
  CHECK(in_range);
  // Five standard deviations of each mean.
  const double five = 5 / std::sqrt(count);
  CHECK(std::abs(u / count - 0.5) < five * std::sqrt(1.0 / 12));
  CHECK(std::abs(u2 / count - 1.0 / 3) < five * std::sqrt(4.0 / 45));
  CHECK(std::abs(v / count - 0.5) < five * std::sqrt(1.0 / 12));
  CHECK(std::abs(n / count) < five);
  CHECK(std::abs(n2 / count - 1) < five * std::sqrt(2));
  CHECK(std::abs(n4 / count - 3) < five * std::sqrt(96));
  CHECK(std::abs(pairs / count) < five);
}

TEST_CASE("rng: streams, seeds and positions do not share numbers, and one stream never shifts another") {
  std::set<double> all;
  for (uint64_t seed : {0, 1, 2})
    for (const char* stream : {"dropout", "shuffle", "init"}) {
      Rng rng(seed);
      for (int step = 0; step < 3; ++step) {
        const Draw d = rng.draw(stream, 10);
        for (int i = 0; i < 10; ++i) all.insert(d.uniform53(i));
      }
    }
  CHECK(all.size() == 3 * 3 * 3 * 10);

  Rng a(3), b(3);
  b.draw("dropout", 5);
  b.draw("dropout", 5);
  CHECK(a.draw("init", 1).uniform(0) == b.draw("init", 1).uniform(0));
  Rng resumed(3);
  resumed.set_positions(b.positions());
  CHECK(resumed.positions().at("dropout") == 2);
  CHECK(resumed.draw("dropout", 1).normal(0) == b.draw("dropout", 1).normal(0));
}

TEST_CASE("rng: a stream can be replaced by recorded numbers and restored") {
  Rng rng(1), plain(1);
  rng.replace("noise", {0.25, 0.5, 0.75});
  const Draw first = rng.draw("noise", 2);
  CHECK(first.uniform(1) == 0.5);
  CHECK(first.normal(0) == 0.25);
  CHECK(rng.draw("noise", 1).uniform53(0) == 0.75);
  CHECK_THROWS_WITH_AS(rng.draw("noise", 1),
                       "rng: stream 'noise' was replaced by 3 recorded numbers, 3 are used and 1 more are asked for",
                       Error);
  rng.restore("noise");
  plain.set_positions(rng.positions());
  CHECK(rng.draw("noise", 1).uniform(0) == plain.draw("noise", 1).uniform(0));
  CHECK(first.uniform(0) == 0.25);
}
