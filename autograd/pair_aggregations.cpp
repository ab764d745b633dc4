#include "autograd/pair_aggregations.h"

#include "engine/check.h"

namespace lightcone {

namespace {
/// Constituents and jets that ptr counts.
std::pair<int64_t, int64_t> counts(const Context& ctx, const char* where, const Tensor& ptr) {
  Check(where, "ptr", ptr).rank(1).dtype(DType::i32);
  if (ptr.dim(0) == 0) fail(where, "ptr is empty, expected at least one offset, 0");
  const int64_t T = ptr.offsets()[ptr.dim(0) - 1];
  return {T, kernels::check_ptr(ctx, where, "ptr", ptr, T)};
}
}  // namespace

PairPools pair_pool(const Var& x, const Tensor& ptr, Pool pool) {
  Context& ctx = x.context();
  Check("pair_pool", "x", x.value()).rank(2);
  const auto [T, B] = counts(ctx, "pair_pool", ptr);
  Tensor tokens = ctx.empty({T, 3 * x.dim(1)}, x.dtype()), jets = ctx.empty({B, 2 * x.dim(1)}, x.dtype());
  kernels::pair_pool(ctx, x.value(), ptr, pool, tokens, jets);
  const auto y = x.tape().record("pair_pool", std::vector{tokens, jets}, {x.slot()},
                                 [=, to = x.slot()](const std::vector<Tensor>& dy, Grads& grads) {
                                   const Tensor others = grads.take(to);
                                   if (Tensor* dx = grads.want(to))
                                     kernels::pair_pool_backward(grads.context(), dy[0], dy[1], ptr, pool, others, *dx);
                                 });
  return {y[0], y[1]};
}

Var pair_combine(const Var& ab, const Var& tokens, const Tensor& ptr) {
  const char* where = "pair_combine";
  Context& ctx = tokens.context();
  Check(where, "tokens", tokens.value()).rank(2);
  counts(ctx, where, ptr);
  if (tokens.dim(1) % 3) fail(where, "tokens has {} columns, expected a multiple of three", tokens.dim(1));
  Tensor y = ctx.empty({count_all_pairs(ptr), tokens.dim(1) / 3}, tokens.dtype());
  kernels::pair_combine(ctx, ab.value(), tokens.value(), ptr, y);
  return tokens.tape().record(where, y, {ab.slot(), tokens.slot()},
                              [=, ab = ab.slot(), tokens = tokens.slot()](const Tensor& dy, Grads& grads) {
                                Tensor *dab = grads.want(ab), *dtokens = grads.want(tokens);
                                if (dab || dtokens)
                                  kernels::pair_combine_backward(grads.context(), dy, ptr, dab, dtokens);
                              });
}

std::vector<Var> aggregation_matrices(const AggregationParameters& k, const std::vector<MatrixOfMaps>& layout) {
  const Var& first = k.direct.value().defined() ? k.direct : k.c10;
  Check("aggregation_matrices", "coefficients", first.value());
  if (first.shape().rank() < 2)
    fail("aggregation_matrices", "coefficients have shape {}, expected channels in, channels out", first.shape());
  Context& ctx = first.context();
  const int64_t in = first.dim(0), out = first.dim(1);
  const kernels::AggregationCoefficients values{k.direct.value(), k.c00.value(),         k.c01.value(),  k.c10.value(),
                                                k.c11.value(),    k.multipliers.value(), k.scale.value()};
  std::vector<Tensor> matrices;
  for (const MatrixOfMaps& l : layout) matrices.push_back(ctx.empty({l.rows * out, l.columns * in}, first.dtype()));
  kernels::aggregation_matrices(ctx, values, layout, matrices);
  const std::vector<Slot> slots{k.direct.slot(), k.c00.slot(),         k.c01.slot(),  k.c10.slot(),
                                k.c11.slot(),    k.multipliers.slot(), k.scale.slot()};
  return first.tape().record("aggregation_matrices", matrices, slots, [=](const std::vector<Tensor>& dy, Grads& grads) {
    // The kernel writes all gradients; those that nobody wants go to scratch.
    auto place = [&](size_t i, const Tensor& like) {
      if (!like.defined()) return Tensor{};
      Tensor* wanted = grads.want(slots[i]);
      return wanted ? *wanted : grads.context().empty(like.shape(), like.dtype());
    };
    kernels::AggregationCoefficients to{place(0, values.direct), place(1, values.c00), place(2, values.c01),
                                        place(3, values.c10),    place(4, values.c11), place(5, values.multipliers),
                                        place(6, values.scale)};
    kernels::aggregation_matrices_backward(grads.context(), dy, values, layout, to);
  });
}

}  // namespace lightcone
