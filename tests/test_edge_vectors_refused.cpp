// What edge_vectors refuse.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/edge_network.h"

using namespace lightcone;
using namespace lightcone::test;
using Network = EdgeNetwork;

TEST_CASE("edge_vectors refuse what does not fit") {
  Context ctx(1);
  Tape tape(ctx);
  Network net;
  auto attempt = [&](const std::function<void(std::vector<Tensor>&, Network&)>& spoil) {
    std::vector<Tensor> t;
    for (const Array& a : Network{}.inputs()) t.push_back(to_tensor(ctx, a, DType::f64));
    Network changed = net;
    spoil(t, changed);
    std::vector<Var> x;
    for (const Tensor& a : t) x.push_back(tape.constant(a));
    fused(changed, x);
  };
  auto zeros = [&](Shape shape, DType dtype = DType::f64) { return ctx.zeros(shape, dtype); };
  CHECK_THROWS_WITH_AS(attempt([&](auto& x, auto&) {
                         x[0] = zeros({16, 3});
                       }),
                       "edge_vectors: fourmomenta has shape [16, 3], expected 4 entries along the last axis", Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto& x, auto&) {
                         x[1] = zeros({15, 3});
                       }),
                       "edge_vectors: scalars has shape [15, 3], expected [16, 3]", Error);
  CHECK_THROWS_WITH_AS(
      attempt([&](auto& x, auto&) {
        x[2] = zeros({4, 8});
      }),
      "edge_vectors: weights[0] has shape [4, 8], expected 6 columns for twice 3 scalars, and one more "
      "to use pair masses",
      Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto& x, auto&) {
                         x[4] = zeros({4, 5});
                       }),
                       "edge_vectors: weights[0] behind the first layer has shape [4, 5], expected [4, 4]", Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto& x, auto&) {
                         x[6] = zeros({3, 4}, DType::f32);
                       }),
                       "edge_vectors: weights[1] behind the first layer is f32, expected f64", Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto& x, auto&) { x[7] = zeros({2}); }),
                       "edge_vectors: biases[1] behind the first layer has shape [2], expected [3]", Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto& x, auto&) { x.resize(4); }),
                       "edge_vectors: 1 weights and 1 biases, expected as many of both and at least two", Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto&, auto& n) {
                         n.jets = {5, 4, 6};
                       }),
                       doctest::Contains("edge_vectors: ptr"), Error);
  CHECK_THROWS_WITH_AS(attempt([&](auto&, auto& n) { n.options.dropout = 1; }),
                       "edge_vectors: dropout is 1, expected 0 <= dropout < 1", Error);
  CHECK_THROWS_WITH_AS(
      attempt([&](auto&, auto& n) { n.options.edge_std = 0; }),
      "edge_vectors: edge_mean is 5 and edge_std is 0, expected finite numbers and a positive edge_std", Error);
}
