// Tensors, Contexts and their memory, on every device that this program computes on.
#include <doctest/doctest.h>

#include "engine/check.h"
#include "engine/graph.h"
#include "engine/threads.h"
#include "kernels/elementwise.h"
#include "kernels/random.h"
#include "tests/support/bits.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("devices: a tensor goes to a device and comes back with its bits") {
  Context cpu(1);
  for (Device device : devices()) {
    Context ctx(device, 1), other(device, 1);
    // 5 MB: several pieces of what copies go through.
    for (int64_t n : {0, 1, 3, 1000, 5'000'003}) {
      Tensor x = cpu.empty({n}, DType::i8);
      for (int64_t i = 0; i < n; ++i) x.data<int8_t>()[i] = static_cast<int8_t>(i * 7 % 251);
      const Tensor there = ctx.copy(x), again = ctx.copy(there), elsewhere = other.copy(again);
      CHECK(there.device() == device);
      CHECK(same_bits(cpu.copy(elsewhere), x));
      if (n) {
        CHECK(again.raw() != there.raw());
      }
    }
    CHECK_THROWS_WITH_AS(ctx.copy(Tensor()), "tensor: it is not there", Error);
  }
}

TEST_CASE("devices: zeros, values, a single element") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    CHECK(to_array(ctx.zeros({2, 3}, DType::f64)).values == std::vector<double>(6, 0.0));
    for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::i8})
      CHECK(to_array(ctx.of({3}, dtype, std::vector<double>{1, -2, 3})).values == std::vector<double>{1, -2, 3});
    CHECK(to_array(ctx.of({2}, DType::boolean, std::vector<double>{1, 0})).values == std::vector<double>{1, 0});
    const Tensor x = ctx.of({3}, DType::bf16, std::vector<double>{1, -2, 3});
    CHECK(x.narrow(1, 1).item() == -2);
    CHECK_THROWS_WITH_AS(x.item(), "tensor: item() of a tensor of shape [3]", Error);
  }
}

TEST_CASE("devices: row offsets keep their numbers") {
  const std::vector<int32_t> numbers = {0, 3, 3, 7};
  for (Device device : devices()) {
    Context ctx(device, 1);
    const Tensor ptr = ctx.offsets(numbers), none = ctx.offsets({});
    CHECK(ptr.device() == device);
    CHECK(to_array(ptr).values == std::vector<double>{0, 3, 3, 7});
    CHECK(std::vector<int32_t>(ptr.offsets().begin(), ptr.offsets().end()) == numbers);
    CHECK(none.offsets().empty());
    CHECK_THROWS_WITH_AS(ctx.zeros({2}, DType::f32).offsets(), "tensor: asked for i32 elements of a f32 tensor", Error);
    CHECK_THROWS_WITH_AS(ctx.zeros({2, 2}, DType::i32).offsets(),
                         "tensor: row offsets were asked for of a tensor of shape [2, 2]", Error);
    if (device == Device::cpu) continue;
    for (const Tensor& other : {ctx.zeros({4}, DType::i32), ptr.narrow(1, 3), ctx.copy(ptr)})
      CHECK_THROWS_WITH_AS(other.offsets(), "tensor: row offsets on cuda are made by Context::offsets()", Error);
  }
}

TEST_CASE("devices: numbers that are read later are those of the time when they were asked for") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    const double first[] = {1.5}, second[] = {-2};
    Tensor x = ctx.of({1}, DType::f64, first);
    const Tensor count = ctx.of({}, DType::i64, second);
    auto early = ctx.read({x, count});
    kernels::scale(ctx, x, 2, x);
    auto late = ctx.read({x}), nothing = ctx.read({});
    CHECK(early.values() == std::vector<double>{1.5, -2});
    CHECK(late.values() == std::vector<double>{3});
    CHECK(late.values() == std::vector<double>{3});
    CHECK(nothing.values().empty());
    CHECK_THROWS_WITH_AS(ctx.read({ctx.zeros({2}, DType::f32)}),
                         "context: a number was to be read from a tensor of shape [2]", Error);
  }
}

TEST_CASE("devices: the CPU's side of a Context") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Context& host = ctx.host();
    CHECK(host.device() == Device::cpu);
    CHECK(&ctx.host() == &host);
    const Tensor x = host.of({2}, DType::f32, std::vector<double>{1, 2}), there = ctx.here(x);
    CHECK(there.device() == device);
    CHECK((there.raw() == x.raw()) == (device == Device::cpu));
    CHECK(same_bits(host.here(there), x));
  }
}

TEST_CASE("devices: many copies of all sizes arrive, in order with the kernels") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    // More than the ring of pinned memory holds, small ones between large ones; sources change as soon as they may.
    std::vector<float> source(700000);
    Tensor sum = ctx.zeros({static_cast<int64_t>(source.size())}, DType::f32);
    for (int i = 0; i < 24; ++i) {
      const int64_t n = i % 3 == 0 ? 700000 : i % 3 == 1 ? 5 : 20000 + i;
      std::fill(source.begin(), source.end(), static_cast<float>(1 << i % 8));
      Tensor x = ctx.empty({n}, DType::f32);
      ctx.allocator().copy_in(x.raw(), source.data(), x.bytes());
      Tensor head = sum.narrow(0, n);
      kernels::add(ctx, head, x, head);
    }
    const Tensor there = ctx.host().copy(sum);
    double large = 0, middle = 0, small = 0;
    for (int i = 0; i < 24; ++i) (i % 3 == 0 ? large : i % 3 == 1 ? small : middle) += 1 << i % 8;
    CHECK(there.data<float>()[0] == large + middle + small);
    CHECK(there.data<float>()[5] == large + middle);
    CHECK(there.data<float>()[699999] == large);
  }
}

TEST_CASE("devices: a graph does its work again with other numbers in the same tensors") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Tensor x = ctx.zeros({300}, DType::f64), y = ctx.zeros({300}, DType::f64), made;
    const std::vector<double> ones(300, 1.0);
    Graph graph(ctx, [&] {
      const Tensor one = ctx.of({300}, DType::f64, ones);
      made = ctx.empty({300}, DType::f64);
      kernels::add(ctx, x, one, made);
      kernels::add(ctx, y, made, y);
    });
    // Memory that others take now is none of the graph's.
    const Tensor other = ctx.zeros({300}, DType::f64);
    for (double value : {2.0, 3.0}) {
      kernels::cast(ctx, ctx.of({300}, DType::f64, std::vector<double>(300, value)), x);
      graph.replay();
      CHECK(ctx.host().copy(made).data<double>()[299] == value + 1);
    }
    CHECK(ctx.host().copy(y).data<double>()[0] == 1 + 3 + 4);
    CHECK(ctx.host().copy(other).data<double>()[7] == 0);
    if (device == Device::cpu) continue;
    CHECK_THROWS_WITH_AS(Graph(ctx, [&] { ctx.host().copy(x); }),
                         "graph: numbers were to be read from the GPU while its work is recorded; read them afterwards",
                         Error);
    CHECK_THROWS_WITH_AS(Graph(ctx, [&] { kernels::dropout(ctx, ctx.rng().draw("dropout", 300), 0.5, x, y); }),
                         "graph: random numbers would be the same in every replay; leave out dropout", Error);
    CHECK(!ctx.recording());
    graph.replay();
    CHECK(ctx.host().copy(made).data<double>()[0] == 4);
  }
}

TEST_CASE("devices: memory is reused, counted and returned") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Allocator& memory = ctx.allocator();
    const void* place = ctx.empty({1000}, DType::i8).raw();
    CHECK(ctx.empty({1010}, DType::i8).raw() == place);
    CHECK(ctx.empty({600}, DType::i8).raw() == place);
    CHECK(ctx.empty({400}, DType::i8).raw() != place);
    CHECK(memory.statistics().calls == 4);
    CHECK(memory.statistics().system_calls == 2);
    CHECK(memory.statistics().peak == 1024);
    CHECK(memory.statistics().in_use == 0);
    CHECK(memory.statistics().reserved > 0);
    memory.trim();
    CHECK(memory.statistics().reserved == 0);
    CHECK_THROWS_AS(ctx.empty({int64_t{1} << 60}, DType::i8), Error);
    CHECK(memory.statistics().in_use == 0);

    memory.set_guard(true);
    {
      const Tensor exact = ctx.zeros({33}, DType::i8), none = ctx.zeros({0}, DType::f32);
      CHECK(to_array(exact).values == std::vector<double>(33, 0.0));
      CHECK_THROWS_AS(memory.set_guard(false), Error);
    }
    memory.set_guard(false);
    CHECK(memory.statistics().in_use == 0);
    CHECK(memory.guard_violations() == 0);
  }
}

TEST_CASE("devices: tensors outlive their context") {
  for (Device device : devices()) {
    Tensor x;
    {
      Context ctx(device, 1);
      x = ctx.of({2}, DType::f32, std::vector<double>{1, 2});
    }
    CHECK(to_array(x).values == std::vector<double>{1, 2});
  }
}

TEST_CASE("devices: a profile counts the work itself") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    ctx.profiler().set_on(true);
    const Tensor x = ctx.zeros({100}, DType::f32);
    Tensor y = ctx.empty({100}, DType::f32);
    kernels::add(ctx, x, x, y);
    REQUIRE(ctx.profiler().rows().size() == 1);
    CHECK(ctx.profiler().rows()[0].bytes == 1200);
  }
}

TEST_CASE("devices: what is on another device is refused") {
  Context cpu(1);
  for (Device device : devices()) {
    if (device == Device::cpu) continue;
    Context ctx(device, 1);
    const Tensor here = cpu.zeros({2, 3}, DType::f32);
    Tensor there = ctx.zeros({2, 3}, DType::f32);
    CHECK_THROWS_WITH_AS(kernels::add(ctx, there, here, there), "add: b is on cpu, expected it on cuda as the context",
                         Error);
    CHECK_THROWS_WITH_AS(kernels::add(cpu, here, here, there), "add: y is on cuda, expected it on cpu as the context",
                         Error);
    CHECK_THROWS_WITH_AS(kernels::slice(ctx, here, 0, there), "slice: x is on cpu, expected it on cuda as the context",
                         Error);
    CHECK_THROWS_WITH_AS(check("f", "x", there),
                         "f: x is on cuda, where this version has no kernel for it; use device=cpu", Error);
    CHECK_THROWS_WITH_AS(there.span<float>(), "tensor: elements on cuda were asked for, copy them to the CPU first",
                         Error);
    CHECK_THROWS_WITH_AS(parallel_chunks(ctx, 3, 1, [](int64_t, int64_t, int64_t) {}),
                         "context: a function that has a kernel for the CPU alone was called on cuda; use device=cpu",
                         Error);
  }
}

TEST_CASE("devices: the device that a configuration names") {
  std::string text;
  auto say = [&](const std::string& line) { text += line; };
  CHECK(choose_device("cpu", say) == Device::cpu);
  CHECK_THROWS_WITH_AS(choose_device("gpu", say), "device: 'gpu' is none; expected cpu, cuda or auto", Error);
  CHECK(text.empty());
  const std::string why = why_no_cuda();
  if (why.empty()) {
    CHECK(choose_device("cuda", say) == Device::cuda);
    CHECK(choose_device("auto", say) == Device::cuda);
    CHECK(text.empty());
    CHECK(gpu_text().find("compute capability") != std::string::npos);
  } else {
    CHECK(gpu_text().empty());
    CHECK(choose_device("auto", say) == Device::cpu);
    CHECK(text.find("computing on the CPU, as " + why) != std::string::npos);
    CHECK_THROWS_AS(choose_device("cuda", say), Error);
    CHECK_THROWS_AS(Context(Device::cuda), Error);
  }
}
