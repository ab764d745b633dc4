#include "data/toptagging.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <set>
#include <thread>

#include "data/batches.h"
#include "data/prefetcher.h"
#include "engine/npz.h"
#include "tests/support/damage.h"
#include "tests/support/files.h"
#include "tests/support/scratch_folder.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
/// Three jets with 2, 1 and 3 constituents in five slots; padding is zero, small, or has one small component.
const std::vector<double> dense = {
    10, 1,  2,  3,  0,  0, 0, 0,    20, 4, 5,          6,     1e-6, -1e-6, 0, 0, 0,  0, 0, 0,  //
    30, -1, -2, -3, 9,  8, 7, 1e-5, 0,  0, 0,          0,     0,    0,     0, 0, 0,  0, 0, 0,  //
    0,  0,  0,  0,  40, 1, 1, 1,    50, 1, 2.00002e-5, -3e-5, 0,    0,     0, 0, 60, 2, 2, 2};

Tensor kinematics(Context& ctx, DType dtype = DType::f64) { return ctx.of({3, 5, 4}, dtype, dense); }
Tensor labels(Context& ctx, DType dtype = DType::i64) { return ctx.of({3}, dtype, std::vector<double>{1, 0, 1}); }
template <class T>
std::vector<T> values(const Tensor& t) {
  return {t.span<T>().begin(), t.span<T>().end()};
}
}  // namespace

TEST_CASE("top tagging: padding goes, momenta and labels stay, in every type of label") {
  ScratchFolder folder;
  Context ctx(1);
  for (DType type : {DType::i64, DType::i32, DType::boolean, DType::f32, DType::i8})
    for (DType momenta : {DType::f32, DType::f64}) {
      save_npz(folder / "x.npz", {{"kinematics_val", kinematics(ctx, momenta)}, {"labels_val", labels(ctx, type)}});
      const JetSet jets = read_toptagging(ctx, folder / "x.npz", "val");
      CHECK(jets.size() == 3);
      CHECK(values<int32_t>(jets.ptr) == std::vector<int32_t>{0, 2, 3, 6});
      CHECK(values<int64_t>(jets.labels) == std::vector<int64_t>{1, 0, 1});
      CHECK(jets.fourmomenta.dtype() == momenta);
      REQUIRE(jets.fourmomenta.shape() == Shape{6, 4});
      std::vector<int64_t> all = {0, 1, 2};
      CHECK(values<double>(gather_jets(ctx, jets, all, DType::f64).fourmomenta)[4] == 20);
    }
}

TEST_CASE("top tagging: 1e-5 itself is padding, in the precision of the file") {
  ScratchFolder folder;
  Context ctx(1);
  save_npy(folder / "x.npy",
           ctx.of({1, 3, 4}, DType::f64, std::vector<double>{3, 1, 1, 1e-5, 4, 2, 2, -1e-5, 5, 3, 3, 1.0000001e-5}));
  const JetSet jets = read_jets(ctx, folder / "x.npy");
  CHECK(values<double>(jets.fourmomenta) == std::vector<double>{5, 3, 3, 1.0000001e-5});
}

TEST_CASE("top tagging: the small sample that ships") {
  // Constituents, top jets and the sum of E from NumPy. In val one true constituent has a component of zero: the rule
  // drops it, as the reference does.
  struct Expected {
    const char* part;
    int64_t jets, constituents, tops;
    double energy;
  };
  Context ctx(1);
  for (const Expected& e : {Expected{"train", 400, 22713, 209, 368082.77632141113},
                            {"val", 100, 5755, 51, 87603.79858398438},
                            {"test", 200, 11215, 101, 176038.52396392822}}) {
    INFO(e.part);
    const JetSet jets = read_toptagging(ctx, tiny_jets, e.part);
    CHECK(jets.size() == e.jets);
    CHECK(jets.fourmomenta.dim(0) == e.constituents);
    CHECK(jets.ptr.data<int32_t>()[e.jets] == e.constituents);
    const std::vector<int64_t> label = values<int64_t>(jets.labels);
    CHECK(std::accumulate(label.begin(), label.end(), int64_t{0}) == e.tops);
    double energy = 0;
    for (int64_t i = 0; i < e.constituents; ++i) energy += jets.fourmomenta.data<float>()[4 * i];
    CHECK(energy == doctest::Approx(e.energy).epsilon(1e-12));
  }
}

TEST_CASE("top tagging: errors name the file, the array and the jet") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.npz";
  auto rejects = [&](std::vector<std::pair<std::string, Tensor>> arrays, const char* part) {
    save_npz(path, arrays);
    check_error([&] { read_toptagging(ctx, path, "train"); }, part, path.string());
  };
  const std::string k = "kinematics_train", l = "labels_train";
  rejects({{k, kinematics(ctx)}, {"labels", labels(ctx)}},
          "has no array 'labels_train', only kinematics_train, labels");
  rejects({{"x", labels(ctx)}}, "has no array 'kinematics_train', only x");
  rejects({{k, kinematics(ctx).reshape({3, 20})}, {l, labels(ctx)}},
          "has shape [3, 20], expected [jets, constituents, 4]");
  rejects({{k, kinematics(ctx).reshape({3, 4, 5})}, {l, labels(ctx)}}, "expected [jets, constituents, 4]");
  rejects({{k, kinematics(ctx, DType::f16)}, {l, labels(ctx)}}, "kinematics_train is f16, expected f32 or f64");
  rejects({{k, kinematics(ctx)}, {l, labels(ctx).reshape({3, 1})}}, "labels_train has shape [3, 1], expected one axis");
  rejects({{k, kinematics(ctx)}, {l, labels(ctx).narrow(0, 2)}},
          "labels_train has 2 entries, but kinematics_train has 3 jets");
  rejects({{k, kinematics(ctx)}, {l, ctx.of({3}, DType::i64, std::vector<double>{0, 2, 1})}},
          "labels_train: jet 1 has the label 2, expected 0 or 1");
  rejects({{k, kinematics(ctx)}, {l, ctx.of({3}, DType::f32, std::vector<double>{0, 1, NAN})}},
          "jet 2 has the label nan");
  for (double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    std::vector<double> v = dense;
    v[25] = bad;
    rejects({{k, ctx.of({3, 5, 4}, DType::f32, v)}, {l, labels(ctx)}},
            "kinematics_train: jet 1, constituent 1 has the momentum (9, ");
  }
  std::vector<double> v = dense;
  std::fill_n(v.begin() + 20, 20, 0.0);
  rejects({{k, ctx.of({3, 5, 4}, DType::f32, v)}, {l, labels(ctx)}}, "jet 1 has no constituents");
  rejects({{k, ctx.zeros({3, 0, 4}, DType::f32)}, {l, labels(ctx)}}, "jet 0 has no constituents");
  v = dense;
  std::rotate(v.begin() + 20, v.begin() + 21, v.begin() + 24);
  rejects({{k, ctx.of({3, 5, 4}, DType::f32, v)}, {l, labels(ctx)}},
          "less energy than momentum; expected the order (E, px, py, pz)");
  v = dense;
  for (double& x : v) x *= 1e5;
  rejects({{k, ctx.of({3, 5, 4}, DType::f32, v)}, {l, labels(ctx)}}, "expected GeV: divide MeV by 1000");
  save_npz(path, {{k, ctx.zeros({0, 5, 4}, DType::f32)}, {l, ctx.zeros({0}, DType::i64)}});
  CHECK(read_toptagging(ctx, path, "train").size() == 0);
}

TEST_CASE("top tagging: jets to predict, from npy and npz, by key") {
  ScratchFolder folder;
  Context ctx(1);
  const Tensor one = kinematics(ctx).narrow(1, 1), all = kinematics(ctx);
  save_npy(folder / "x.npy", all);
  CHECK(read_jets(ctx, folder / "x.npy").size() == 3);
  CHECK(!read_jets(ctx, folder / "x.npy").labels.defined());
  save_npz(folder / "x.npz", {{"kinematics_test", all}, {"other", one}});
  CHECK(read_jets(ctx, folder / "x.npz").size() == 3);
  CHECK(read_jets(ctx, folder / "x.npz", "other").size() == 1);
  save_npz(folder / "x.npz", {{"kinematics_test", all}, {"kinematics", one}});
  CHECK(read_jets(ctx, folder / "x.npz").size() == 1);
  save_npz(folder / "x.npz", {{"jets", one}});
  CHECK(read_jets(ctx, folder / "x.npz").size() == 1);
  save_npz(folder / "x.npz", {{"a", one}, {"b", one}});
  CHECK(error_of([&] { read_jets(ctx, folder / "x.npz"); }).ends_with("has no array 'kinematics', only a, b"));
  CHECK(error_of([&] { read_jets(ctx, folder / "x.npz", "c"); }).ends_with("has no array 'c', only a, b"));
  check_error([&] { read_jets(ctx, folder / "x.npy", "c"); }, "holds one array");
}

TEST_CASE("top tagging: a set larger than one read is put together in order") {
  ScratchFolder folder;
  Context ctx(1);
  const int64_t jets = 700, slots = 200;  // 560 000 values
  Tensor t = ctx.zeros({jets, slots, 4}, DType::f32);
  auto momentum = [](int64_t jet, int64_t constituent, int c) {
    return static_cast<float>((c == 0 ? 1000 * jet : 0) + 10 * constituent + 5 - c);
  };
  for (int64_t j = 0; j < jets; ++j)
    for (int64_t k = 0; k < 1 + j % 7; ++k)
      for (int c = 0; c < 4; ++c) t.data<float>()[(j * slots + k * 3) * 4 + c] = momentum(j + 1, k, c);
  save_npy(folder / "x.npy", t);
  const JetSet set = read_jets(ctx, folder / "x.npy");
  const int32_t* ptr = set.ptr.data<int32_t>();
  int64_t wrong = 0;
  for (int64_t j = 0; j < jets; ++j) {
    REQUIRE(ptr[j + 1] - ptr[j] == 1 + j % 7);
    for (int64_t k = 0; k < 1 + j % 7; ++k)
      for (int c = 0; c < 4; ++c) wrong += set.fourmomenta.data<float>()[(ptr[j] + k) * 4 + c] != momentum(j + 1, k, c);
  }
  CHECK(wrong == 0);
}

TEST_CASE("top tagging: a damaged file is an Error or valid, never a crash") {
  ScratchFolder folder;
  Context ctx(1);
  const Path path = folder / "x.npz";
  save_npz(path, {{"kinematics_val", kinematics(ctx, DType::f32)}, {"labels_val", labels(ctx)}});
  const std::string bytes = read_file(path);
  auto read = [&] { read_toptagging(ctx, path, "val"); };
  check_truncation(path, bytes, read);
  CHECK(check_damage(path, bytes, read) > 2000);
}

TEST_CASE("gather: the jets asked for, in that order, also none and the same twice") {
  Context ctx(1);
  ScratchFolder folder;
  save_npz(folder / "x.npz", {{"kinematics_val", kinematics(ctx)}, {"labels_val", labels(ctx)}});
  const JetSet jets = read_toptagging(ctx, folder / "x.npz", "val");
  const JetSet batch = gather_jets(ctx, jets, std::vector<int64_t>{2, 1, 2}, DType::f32);
  CHECK(values<int32_t>(batch.ptr) == std::vector<int32_t>{0, 3, 4, 7});
  CHECK(values<int64_t>(batch.labels) == std::vector<int64_t>{1, 0, 1});
  CHECK(batch.fourmomenta.dtype() == DType::f32);
  std::vector<float> energies;
  for (int i = 0; i < 7; ++i) energies.push_back(batch.fourmomenta.data<float>()[4 * i]);
  CHECK(energies == std::vector<float>{40, 50, 60, 30, 40, 50, 60});
  CHECK(gather_jets(ctx, jets, {}, DType::f64).size() == 0);
  CHECK_THROWS_WITH_AS(gather_jets(ctx, jets, std::vector<int64_t>{3}, DType::f64), "gather_jets: jet 3 of 3", Error);
  CHECK_THROWS_AS(gather_jets(ctx, jets, std::vector<int64_t>{-1}, DType::f64), Error);
  CHECK_THROWS_AS(gather_jets(ctx, jets, std::vector<int64_t>{0}, DType::bf16), Error);
}

TEST_CASE("batches: every epoch has all items once, the last batch short, the order from seed and epoch alone") {
  BatchPlan plan(103, 10, 5);
  CHECK(plan.batches() == 11);
  std::set<std::vector<int64_t>> orders;
  BatchPosition p;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t b = 0; b < 11; ++b, p = plan.next(p)) {
      CHECK(p == BatchPosition{epoch, b});
      const auto batch = plan.at(p);
      CHECK(batch.size() == (b < 10 ? 10 : 3));
      order.insert(order.end(), batch.begin(), batch.end());
    }
    // A plan that starts here gives the same.
    BatchPlan resumed(103, 10, 5);
    const auto again = resumed.at({epoch, 7});
    CHECK(std::equal(again.begin(), again.end(), order.begin() + 70));
    orders.insert(order);
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < 103; ++i) CHECK(order[i] == i);
  }
  CHECK(orders.size() == 4);
  BatchPlan reseeded(103, 103, 6), in_order(5, 2, 0, false), one_batch(5, 100, 0);
  const auto other = reseeded.at({0, 0});
  CHECK(!orders.contains(std::vector<int64_t>(other.begin(), other.end())));

  const auto plain = in_order.at({3, 2});
  CHECK(plain.size() == 1);
  CHECK(plain[0] == 4);
  CHECK(one_batch.at({0, 0}).size() == 5);
  CHECK_THROWS_AS(BatchPlan(0, 1, 0), Error);
  CHECK_THROWS_AS(BatchPlan(5, 0, 0), Error);
  CHECK_THROWS_AS(plan.at({0, 11}), Error);
}

TEST_CASE("batches: all orders are equally likely") {
  // 4! orders in 4800 epochs: chi-square with 23 degrees of freedom, beyond 60 with a probability of 4e-5.
  BatchPlan plan(4, 4, 1);
  std::map<std::vector<int64_t>, int> counts;
  for (int64_t epoch = 0; epoch < 4800; ++epoch) {
    const auto order = plan.at({epoch, 0});
    ++counts[{order.begin(), order.end()}];
  }
  CHECK(counts.size() == 24);
  double chi2 = 0;
  for (const auto& [order, count] : counts) chi2 += (count - 200.0) * (count - 200.0) / 200.0;
  CHECK(chi2 < 60);
}

TEST_CASE("prefetcher: items in order, then the end, or the exception") {
  {
    int n = 0;
    Prefetcher<int> numbers([&](Context&) { return n < 100 ? std::optional(n++) : std::nullopt; });
    for (int i = 0; i < 100; ++i) CHECK(numbers.next() == i);
    CHECK(!numbers.next());
    CHECK(!numbers.next());
  }
  {
    int n = 0;
    Prefetcher<int> numbers([&](Context&) -> std::optional<int> {
      if (n == 3) throw Error("bad item");
      return n++;
    });
    for (int i = 0; i < 3; ++i) CHECK(numbers.next() == i);
    CHECK_THROWS_WITH_AS(numbers.next(), "bad item", Error);
    CHECK_THROWS_WITH_AS(numbers.next(), "bad item", Error);
  }
  // Tensors outlive the prefetcher and its Context.
  Tensor t;
  {
    Prefetcher<Tensor> tensors([](Context& ctx) { return std::optional(ctx.zeros({3}, DType::f32)); });
    t = *tensors.next();
  }
  CHECK(t.data<float>()[2] == 0);
}

TEST_CASE("prefetcher: works ahead by one item, and stops when it is not wanted any more") {
  std::atomic<int> made = 0;
  {
    Prefetcher<int> numbers([&](Context&) { return std::optional(made++); });
    CHECK(numbers.next() == 0);
    for (int i = 0; i < 1000 && made < 3; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(made == 3);  // 0 is here, 1 waits, 2 waits for its place
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(made == 3);
  }
  {
    Prefetcher<int> unused([&](Context&) { return std::optional(made++); });
  }
  CHECK(made >= 4);
}

TEST_CASE("parts of a batch: all jets in order, constituents shared evenly") {
  Context ctx;
  // 40 jets of 1 to 100 constituents; momenta say which one they are of.
  JetSet jets;
  std::vector<double> ptr = {0}, momenta;
  for (int64_t i = 0; i < 40; ++i) {
    const int64_t n = 1 + i * 37 % 100;
    ptr.push_back(ptr.back() + static_cast<double>(n));
    momenta.insert(momenta.end(), 4 * n, static_cast<double>(i));
  }
  jets.ptr = ctx.of({41}, DType::i32, ptr);
  jets.fourmomenta = ctx.of({static_cast<int64_t>(momenta.size()) / 4, 4}, DType::f64, momenta);
  std::vector<int64_t> indices(40);
  for (int64_t i = 0; i < 40; ++i) indices[i] = 39 - i;
  for (int64_t per_part : {1, 3, 16, 40, 100}) {
    const auto parts = gather_parts(ctx, jets, indices, DType::f64, per_part);
    CHECK(static_cast<int64_t>(parts.size()) == (40 + per_part - 1) / per_part);
    int64_t next = 39;
    for (const JetSet& part : parts) {
      REQUIRE(part.size() > 0);
      if (per_part > 1) {
        const double share = ptr.back() / static_cast<double>(parts.size());
        CHECK(std::abs(static_cast<double>(part.fourmomenta.dim(0)) - share) <= 100);
      }
      for (int64_t j = 0; j < part.size(); ++j, --next)
        CHECK(part.fourmomenta.data<double>()[4 * part.ptr.data<int32_t>()[j]] == static_cast<double>(next));
    }
    CHECK(next == -1);
  }
  CHECK(gather_parts(ctx, jets, {}, DType::f64, 16).empty());
}
