#include "models/equivectors.h"

#include <fmt/ranges.h>

#include <vector>

#include "models/lgatr_vectors.h"
#include "models/mlp_vectors.h"
#include "models/pelican_vectors.h"
#include "models/registry.h"

namespace lightcone {

namespace {

template <class T>
T option_of(const char* name, const std::string& value, const std::vector<std::pair<std::string, T>>& options) {
  std::vector<std::string> names;
  for (const auto& [text, option] : options) {
    if (text == value) return option;
    names.push_back(text);
  }
  fail("model", "model.framesnet.equivectors.{} has no option '{}'; all: {}", name, value, fmt::join(names, ", "));
}

}  // namespace

EdgeMomentum edge_momentum(const std::string& operation) {
  return option_of<EdgeMomentum>(
      "operation", operation,
      {{"add", EdgeMomentum::add}, {"diff", EdgeMomentum::diff}, {"single", EdgeMomentum::single}});
}

EdgeWeight edge_weight(const std::string& nonlinearity) {
  return option_of<EdgeWeight>(
      "nonlinearity", nonlinearity,
      {{"softmax", EdgeWeight::softmax}, {"exp", EdgeWeight::exp}, {"softplus", EdgeWeight::softplus}});
}

kernels::Pool edge_aggregation(const std::string& aggr) {
  using kernels::Pool;
  return option_of<Pool>("aggr", aggr, {{"sum", Pool::sum}, {"add", Pool::sum}, {"mean", Pool::mean}});
}

PairStandard::PairStandard(Context& ctx) {
  inited.value = ctx.host().of({}, DType::boolean, std::vector<double>{0});
  mean.value = ctx.host().of({}, DType::f64, std::vector<double>{0});
  std.value = ctx.host().of({}, DType::f64, std::vector<double>{1});
}

void PairStandard::measure(Context& ctx, const Tensor& fourmomenta, const Tensor& ptr) {
  if (inited.value.item() != 0) return;
  const EdgeStatistics found = edge_statistics(ctx, fourmomenta, ptr);
  mean.value = ctx.host().of({}, DType::f64, std::vector<double>{found.mean});
  std.value = ctx.host().of({}, DType::f64, std::vector<double>{found.std});
  inited.value = ctx.host().of({}, DType::boolean, std::vector<double>{1});
}

EdgeStatistics PairStandard::statistics(const char* network) const {
  if (inited.value.item() == 0)
    fail(network,
         "mean and spread of the pairs are not known: they are measured on the first training batch; train the "
         "network or load a trained one");
  return {mean.value.item(), std.value.item()};
}

std::unique_ptr<Equivectors> make_equivectors(Context& ctx, const Json& options, int64_t num_vectors,
                                              int64_t num_scalars, DType dtype, bool reference_behaviour) {
  const std::string type = options.contains("type") ? options["type"].get<std::string>() : "MLPVectors";
  if (type == "MLPVectors") return std::make_unique<MlpVectors>(ctx, options, num_vectors, num_scalars, dtype);
  if (type == "LGATrVectors")
    return std::make_unique<LgatrVectors>(ctx, options, num_vectors, num_scalars, dtype, reference_behaviour);
  if (type == "PELICANVectors")
    return std::make_unique<PelicanVectors>(ctx, options, num_vectors, num_scalars, dtype, reference_behaviour);
  throw NotInThisVersion(fmt::format(
      "model: the equivectors network '{}' is not in this version of lightcone; it has: MLPVectors, LGATrVectors, "
      "PELICANVectors",
      type));
}

}  // namespace lightcone
