#include "tests/support/taggers.h"

#include <cmath>

#include "experiments/compose.h"
#include "experiments/config.h"

namespace lightcone::test {

std::unique_ptr<Tagger> TaggerCase::make(Context& ctx) const {
  auto tagger = make_tagger(ctx, model, {}, embedding, dtype);
  for (auto& [name, parameter] : tagger->parameters()) {
    if (name.find("weight") == std::string::npos) continue;
    Array scaled = to_array(parameter->value);
    for (double& w : scaled.values) w *= name.starts_with("framesnet.") ? frames_weights : net_weights;
    parameter->value = to_tensor(ctx, scaled, dtype);
  }
  return tagger;
}

TaggerCase configured(const std::vector<std::string>& overrides) {
  const ExperimentConfig config = read_config(compose({LIGHTCONE_SOURCE_DIR "/configs", "toptagging", overrides}));
  return {config.model, config.data, DType::f32};
}

Json small_lloca(const std::string& frames, Json framesnet) {
  framesnet["type"] = frames;
  return {{"net", {{"type", "Transformer"}, {"attn_reps", "2x0n+1x1n+1x2n"}, {"num_blocks", 2}, {"num_heads", 2}}},
          {"framesnet", framesnet}};
}
Json small_graphnet(const std::string& frames, Json framesnet) {
  framesnet["type"] = frames;
  return {{"net", {{"type", "GraphNet"}, {"hidden_reps", "2x0n+1x1n+1x2n"}, {"num_blocks", 2}}},
          {"include_edges", true},
          {"framesnet", framesnet}};
}
Json small_slim() {
  return {{"net",
           {{"type", "LGATrSlim"},
            {"hidden_v_channels", 6},
            {"hidden_s_channels", 12},
            {"num_blocks", 2},
            {"num_heads", 2}}}};
}
Json small_lgatr() {
  return {{"net",
           {{"type", "LGATr"},
            {"hidden_mv_channels", 4},
            {"hidden_s_channels", 8},
            {"num_blocks", 2},
            {"attention", {{"num_heads", 2}, {"increase_hidden_channels", 2}}},
            {"mlp", {{"increase_hidden_channels", 2}}}}}};
}

JetSet jet_set(Context& ctx, const Array& fourmomenta, const std::vector<int64_t>& lengths) {
  std::vector<double> ptr = {0};
  for (int64_t n : lengths) ptr.push_back(ptr.back() + static_cast<double>(n));
  JetSet jets;
  jets.fourmomenta = to_tensor(ctx, fourmomenta, DType::f64);
  jets.ptr = ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, ptr);
  return jets;
}

JetSet toy_jets(Context& ctx, const std::vector<int64_t>& lengths, uint64_t seed, double mass) {
  int64_t T = 0;
  for (int64_t n : lengths) T += n;
  return jet_set(ctx, transformed(boost(1, {0.3, 1, 0.5}), momenta(T, seed, mass, 5)), lengths);
}

JetSet hard_jets(Context& ctx) {
  const std::vector<std::vector<std::array<double, 4>>> jets = {
      {{5, 3, 0, 4}},                                                     // alone, light-like
      {{5.1, 3, 0, 4}},                                                   // alone
      {{5, 3, 0, 4}, {10, 6, 0, 8}},                                      // collinear and light-like
      {{5, 3, 0, 4}, {5, 3, 0, 4}, {5, 3, 0, 4}},                         // the same thrice
      {{5, 3, 0, 4}, {5, -3, 0, -4}},                                     // back to back
      {{1, 0, 0, 1}, {1, 0, 0, -1}, {2, 0, 0, 2}},                        // along the beams
      {{1e-4, 0, 0, 1e-4}, {1e4, 1e4, 0, 0}},                             // soft and hard
      {{1, 0, 0, 0}, {2, 0, 0, 0}, {1, 1e-9, 0, 0}},                      // at rest
      {{1e4, 0, 0, std::sqrt(1e8 - 1)}, {1, 0, 0, 0}, {1e4, 0, 1e4, 0}},  // gamma = 1e4
      {{3, 1, 2, 2}, {3, 2, 1, 2}, {3, 2, 2, 1}, {9, 5, 5, 5}},           // light-like, coplanar
  };
  Array p;
  std::vector<int64_t> lengths;
  for (const auto& jet : jets) {
    for (const auto& v : jet) p.values.insert(p.values.end(), v.begin(), v.end());
    lengths.push_back(static_cast<int64_t>(jet.size()));
  }
  p.shape = {static_cast<int64_t>(p.values.size() / 4), 4};
  return jet_set(ctx, p, lengths);
}

JetSet moved(Context& ctx, const Lorentz& lambda, const JetSet& jets) {
  JetSet out = jets;
  out.fourmomenta = to_tensor(ctx, transformed(lambda, to_array(jets.fourmomenta)), DType::f64);
  return out;
}

JetSet one_jet(Context& ctx, const JetSet& jets, int64_t jet) {
  const auto ptr = jets.ptr.span<int32_t>();
  JetSet one;
  const int64_t n = ptr[jet + 1] - ptr[jet];
  one.fourmomenta = jets.fourmomenta.narrow(ptr[jet], n);
  one.ptr = ctx.of({2}, DType::i32, std::vector<double>{0, static_cast<double>(n)});
  return one;
}

std::vector<double> logits(Context& ctx, Tagger& tagger, const JetSet& jets) {
  Tape tape(ctx, Tape::Mode::evaluate);
  return to_array(tagger(tape, jets).value()).values;
}

std::vector<double> moved_logits(Context& ctx, const TaggerCase& network, const JetSet& jets, const Lorentz& lambda) {
  Context same(1, 5);  // the same weights every time
  auto tagger = network.make(same);
  tagger->standardise(same, jets);
  TaggerCase there = network;
  there.embedding.laboratory = lambda;
  auto boosted = there.make(same);
  const auto state = tagger->state_dict(same);
  boosted->load_state_dict(same, [&](const std::string& name) {
    return std::find_if(state.begin(), state.end(), [&](auto& e) { return e.first == name; })->second;
  });
  return logits(ctx, *boosted, moved(ctx, lambda, jets));
}

double deviation(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    largest = std::max(largest, std::isfinite(a[i]) && std::isfinite(b[i]) ? std::abs(a[i] - b[i]) : INFINITY);
    size = std::max(size, std::abs(b[i]));
  }
  return largest / size;
}

bool all_finite(const Tensor& t) {
  const Array a = to_array(t);
  return std::all_of(a.values.begin(), a.values.end(), [](double v) { return std::isfinite(v); });
}

}  // namespace lightcone::test
