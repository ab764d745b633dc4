#pragma once
#include <algorithm>

#include "models/registry.h"
#include "tests/support/lorentz.h"

// Whole taggers in tests: jets to feed them, and what becomes of their logits elsewhere.
namespace lightcone::test {

/// A network as its configuration's `model` and `data` groups describe it.
struct TaggerCase {
  Json model;
  EmbeddingConfig embedding{};
  DType dtype = DType::f64;
  /// Factors of the weights (not biases) of frames network and network. At 1, fresh ones hardly tell pairs, or jets,
  /// apart.
  double frames_weights = 1, net_weights = 1;

  std::unique_ptr<Tagger> make(Context& ctx) const;
};

/// A network of configs/ for top tagging, in f32: {"model=tag_slim_1k", …}.
TaggerCase configured(const std::vector<std::string>& overrides);

/// A small LLoCa-Transformer with these frames; further options of the frames.
Json small_lloca(const std::string& frames, Json framesnet = Json::object());
/// The same around a small GraphNet with edges.
Json small_graphnet(const std::string& frames, Json framesnet = Json::object());
Json small_slim();
Json small_lgatr();

JetSet jet_set(Context& ctx, const Array& fourmomenta, const std::vector<int64_t>& lengths);
/// Jets of constituents of `mass` GeV that fly into one direction.
JetSet toy_jets(Context& ctx, const std::vector<int64_t>& lengths, uint64_t seed, double mass);
/// Jets that degenerate in every way: alone, light-like, collinear, equal, back to back, at rest, of gamma 1e4.
JetSet hard_jets(Context& ctx);
JetSet moved(Context& ctx, const Lorentz& lambda, const JetSet& jets);
/// The jet by itself.
JetSet one_jet(Context& ctx, const JetSet& jets, int64_t jet);

std::vector<double> logits(Context& ctx, Tagger& tagger, const JetSet& jets);
/// Logits of `jets` in the laboratory that lambda leads to; the reference vectors move along.
std::vector<double> moved_logits(Context& ctx, const TaggerCase& network, const JetSet& jets, const Lorentz& lambda);
/// The largest |a - b| in units of the largest |b|; infinite with anything that is not finite.
double deviation(const std::vector<double>& a, const std::vector<double>& b);
bool all_finite(const Tensor& t);

}  // namespace lightcone::test
