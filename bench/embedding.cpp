#include "models/embedding.h"

#include <algorithm>
#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

// A batch of 128 jets with the default configuration, all but its spurions by the text of embedding.h.
const Family embedding([](Runner& run) {
  Context& ctx = run.context();
  const int64_t B = 128, F = 7;
  const EmbeddingConfig config;
  const auto S = static_cast<int64_t>(spurions(config).size());
  const std::vector<double> offsets = jet_offsets(B, 55);
  const auto T = static_cast<int64_t>(offsets.back());
  const Tensor ptr = ctx.of({B + 1}, DType::i32, offsets), no_scalars = ctx.empty({T, 0}, DType::f32);
  for (DType dtype : {DType::f64, DType::f32}) {
    auto embed = [&ctx, ptr, no_scalars, config](const Tensor& p) {
      return embed_jets(ctx, config, p, no_scalars, ptr, DType::f32);
    };
    run({.name = fmt::format("embed_jets {} {} tokens", dtype, T + B * S),
         .dtype = dtype,
         .bytes = static_cast<double>((2 * T + B * S) * 4 * size_of(dtype) + (T + B * S) * (F * 4 + 5)),
         .error =
             [&] {
               Tensor p = momenta(run, T, dtype, 1);
               const Embedding e = embed(p);
               p = converted(ctx, p, DType::f64);
               Tensor tokens = converted(ctx, e.fourmomenta, DType::f64);
               Tensor features = ctx.zeros({T + B * S, F}, DType::f64);
               for (int64_t b = 0; b < B; ++b) {
                 const auto begin = static_cast<int64_t>(offsets[b]), end = static_cast<int64_t>(offsets[b + 1]);
                 double jet[4] = {};
                 for (int64_t i = 4 * begin; i < 4 * end; ++i) jet[i % 4] += p.data<double>()[i];
                 for (int64_t t = begin, token = begin + (b + 1) * S; t < end; ++t, ++token) {
                   const double* v = p.data<double>() + 4 * t;
                   std::copy_n(v, 4, tokens.data<double>() + 4 * token);
                   naive_jet_features(v, jet, features.data<double>() + F * token);
                 }
               }
               return std::max(relative_error(e.fourmomenta, tokens), relative_error(e.tagging_features, features));
             },
         .tolerance = tolerance(DType::f32),
         .make = [&]() -> std::function<void()> {
           return [p = momenta(run, T, dtype, 1), embed, e = Embedding{}]() mutable { e = embed(p); };
         }});
  }
});

}  // namespace
}  // namespace lightcone::bench
