// The networks with local frames: equivariance, jets that are hard, and nothing of a jet in another jet's score.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/loss.h"
#include "engine/fields.h"
#include "models/registry.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Network {
  std::string frames;
  EmbeddingConfig embedding{};
  Json framesnet = Json::object();  ///< further options
  DType dtype = DType::f64;
  const char* reps = "2x0n+1x1n+1x2n";
  bool checkpoints = false;

  std::unique_ptr<Tagger> make(Context& ctx) const {
    Json json = {{"net",
                  {{"type", "Transformer"},
                   {"attn_reps", reps},
                   {"num_blocks", 2},
                   {"checkpoint_blocks", checkpoints},
                   {"num_heads", 2}}},
                 {"framesnet", framesnet}};
    json["framesnet"]["type"] = frames;
    return make_tagger(ctx, json, {}, embedding, dtype);
  }
};

/// Jets of massive constituents that fly into one direction.
JetSet toy_jets(Context& ctx, const std::vector<int64_t>& lengths, uint64_t seed, double mass = 10) {
  std::vector<double> ptr = {0};
  for (int64_t n : lengths) ptr.push_back(ptr.back() + static_cast<double>(n));
  const auto T = static_cast<int64_t>(ptr.back());
  const Array p = transformed(boost(1, {0.3, 1, 0.5}), momenta(T, seed, mass, 5));
  JetSet jets;
  jets.fourmomenta = to_tensor(ctx, p, DType::f64);
  jets.ptr = ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, ptr);
  return jets;
}

std::vector<double> logits(Context& ctx, Tagger& tagger, const JetSet& jets) {
  Tape tape(ctx, Tape::Mode::evaluate);
  return to_array(tagger(tape, jets).value()).values;
}

/// Logits of the transformed jets, with the reference vectors transformed, too.
std::vector<double> moved_logits(const Network& network, const std::vector<int64_t>& lengths, const Lorentz* lambda) {
  Context ctx(2, 5);
  JetSet jets = toy_jets(ctx, lengths, 3);
  Network there = network;
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, jets);
  if (lambda) {
    there.embedding.laboratory = *lambda;
    jets.fourmomenta = to_tensor(ctx, transformed(*lambda, to_array(jets.fourmomenta)), DType::f64);
  }
  auto same = there.make(ctx);
  const auto state = tagger->state_dict(ctx);
  same->load_state_dict(ctx, [&](const std::string& name) {
    return std::find_if(state.begin(), state.end(), [&](auto& e) { return e.first == name; })->second;
  });
  return logits(ctx, *same, jets);
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::isfinite(a[i]) ? std::abs(a[i] - b[i]) : INFINITY);
  return largest;
}

/// What makes features of the frames network that are the same in all frames of the group.
EmbeddingConfig invariant(std::optional<std::string> features = {}) {
  EmbeddingConfig e;
  e.tagging_features = features;
  return e;
}

const std::vector<int64_t> lengths = {13, 7, 3, 10, 5};

}  // namespace

TEST_CASE("equivariance: frames of all of SO(1,3)") {
  for (const std::string frames : {"LearnedPDFrames", "LearnedSO13Frames", "LearnedRestFrames"})
    for (const std::string method : {"gramschmidt", "cross"})
      for (bool global : {false, true})
        for (bool boosted : {false, true}) {
          // Where jets are not at rest, the others have no accuracy to give: the vectors of a fresh network are nearly
          // parallel, and a constituent in its own rest frame has an angle that is all rounding.
          if (!boosted && frames != "LearnedPDFrames") continue;
          Network network{frames, invariant(), {{"is_global", global}, {"ortho_kwargs", {{"method", method}}}}};
          network.embedding.boost_jet = boosted;
          CAPTURE(frames);
          CAPTURE(method);
          CAPTURE(global);
          CAPTURE(boosted);
          const auto before = moved_logits(network, lengths, nullptr);
          for (double rapidity : {0.1, 1., 2., 5.})
            for (uint64_t seed : {1, 2, 3}) {
              CAPTURE(rapidity);
              const Lorentz lambda = random_rotation(seed) * random_boost(10 + seed, rapidity);
              CHECK(largest_difference(moved_logits(network, lengths, &lambda), before) <=
                    (rapidity <= 2 ? 1e-9 : 1e-6));
            }
        }
}

TEST_CASE("equivariance: vectors of every network") {
  for (const char* vectors : {"LGATrVectors", "PELICANVectors"})
    for (const std::string frames : {"LearnedPDFrames", "LearnedSO13Frames"})
      for (bool global : {false, true}) {
        Network network{frames, invariant(), {{"is_global", global}, {"equivectors", {{"type", vectors}}}}};
        network.embedding.boost_jet = true;
        CAPTURE(vectors);
        CAPTURE(frames);
        CAPTURE(global);
        const auto before = moved_logits(network, lengths, nullptr);
        for (double rapidity : {0.1, 1., 2.})
          for (uint64_t seed : {1, 2, 3}) {
            CAPTURE(rapidity);
            const Lorentz lambda = random_rotation(seed) * random_boost(10 + seed, rapidity);
            CHECK(largest_difference(moved_logits(network, lengths, &lambda), before) <= 1e-9);
          }
      }
}

TEST_CASE("equivariance: frames of subgroups, and of those alone") {
  const std::array<double, 3> z = {0, 0, 1};
  struct Case {
    const char* frames;
    std::optional<std::string> features;
    std::vector<Lorentz> within, beyond;
  };
  for (const Case& c :
       {Case{"LearnedSO3Frames", "so3invariant", {random_rotation(1), random_rotation(2)}, {random_boost(3, 1)}},
        Case{"LearnedSO2Frames", {}, {rotation(0.7, z), rotation(3, z)}, {random_rotation(1), boost(1, z)}},
        Case{"LearnedZFrames",
             {},
             {rotation(0.7, z), boost(1, z), rotation(2, z) * boost(-2, z)},
             {random_rotation(1)}}}) {
    CAPTURE(c.frames);
    const Network network{c.frames, invariant(c.features)};
    const auto before = moved_logits(network, lengths, nullptr);
    for (const Lorentz& lambda : c.within)
      CHECK(largest_difference(moved_logits(network, lengths, &lambda), before) <= 1e-9);
    for (const Lorentz& lambda : c.beyond)
      CHECK(largest_difference(moved_logits(network, lengths, &lambda), before) > 1e-4);
  }
}

TEST_CASE("equivariance is broken by beams that stay in the laboratory, and by features of it") {
  const Lorentz lambda = random_rotation(1) * random_boost(2, 1);
  Network network{"LearnedPDFrames", invariant("all")};
  CHECK(largest_difference(moved_logits(network, lengths, &lambda), moved_logits(network, lengths, nullptr)) > 1e-4);
  network.embedding = invariant();
  Context ctx(2, 5);
  const JetSet jets = toy_jets(ctx, lengths, 3);
  JetSet moved = jets;
  moved.fourmomenta = to_tensor(ctx, transformed(lambda, to_array(jets.fourmomenta)), DType::f64);
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, jets);
  CHECK(largest_difference(logits(ctx, *tagger, moved), logits(ctx, *tagger, jets)) > 1e-4);
}

namespace {

const std::vector<std::string> all_frames = {"IdentityFrames",    "LearnedPDFrames",  "LearnedSO13Frames",
                                             "LearnedRestFrames", "LearnedSO3Frames", "LearnedSO2Frames",
                                             "LearnedZFrames",    "RandomFrames"};

/// Jets that degenerate in every way.
JetSet hard_jets(Context& ctx) {
  std::vector<std::vector<std::array<double, 4>>> jets = {
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
  std::vector<double> p, ptr = {0};
  for (const auto& jet : jets) {
    for (const auto& v : jet) p.insert(p.end(), v.begin(), v.end());
    ptr.push_back(static_cast<double>(p.size() / 4));
  }
  JetSet out;
  out.fourmomenta = ctx.of({static_cast<int64_t>(p.size() / 4), 4}, DType::f64, p);
  out.ptr = ctx.of({static_cast<int64_t>(ptr.size())}, DType::i32, ptr);
  return out;
}

bool all_finite(const Tensor& t) {
  const Array a = to_array(t);
  return std::all_of(a.values.begin(), a.values.end(), [](double v) { return std::isfinite(v); });
}

}  // namespace

namespace {

void check_hard_jets(const Network& network) {
  Context ctx(2, 1);
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, toy_jets(ctx, lengths, 3));
  Tape tape(ctx);
  const Var y = (*tagger)(tape, hard_jets(ctx));
  CHECK(all_finite(y.value()));
  tape.backward(bce_with_logits(y, ctx.zeros(y.shape(), network.dtype)));
  for (const auto& [name, parameter] : tagger->parameters())
    if (parameter->grad.defined()) CHECK_MESSAGE(all_finite(parameter->grad), name);
}

void check_batch_mates(const Network& network) {
  Context ctx(2, 1);
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, toy_jets(ctx, lengths, 3));
  for (const JetSet& jets : {toy_jets(ctx, lengths, 4, 0), hard_jets(ctx)}) {
    const auto together = logits(ctx, *tagger, jets);
    const auto ptr = jets.ptr.span<int32_t>();
    for (int64_t j = jets.size() - 1; j >= 0; --j) {
      JetSet one;
      one.fourmomenta = jets.fourmomenta.narrow(ptr[j], ptr[j + 1] - ptr[j]);
      const double offsets[] = {0, static_cast<double>(ptr[j + 1] - ptr[j])};
      one.ptr = ctx.of({2}, DType::i32, offsets);
      CHECK(logits(ctx, *tagger, one)[0] == together[j]);
    }
  }
}

}  // namespace

TEST_CASE("hard jets give finite logits and gradients") {
  for (const auto& frames : all_frames)
    for (DType dtype : {DType::f64, DType::f32})
      for (bool spurions : {true, false})
        for (bool boosted : {true, false}) {
          // Tensors of second order in frames of gamma 1e5 leave the range of f32.
          Network network{frames, {}, {}, dtype, dtype == DType::f64 ? "2x0n+1x1n+1x2n" : "8x0n+2x1n"};
          network.embedding.boost_jet = boosted;
          if (!spurions) network.embedding.beam_reference = {}, network.embedding.add_time_reference = false;
          CAPTURE(frames);
          CAPTURE(dtype);
          CAPTURE(spurions);
          CAPTURE(boosted);
          check_hard_jets(network);
          if (frames != "LearnedPDFrames" && frames != "LearnedSO13Frames") continue;
          for (const char* vectors : {"LGATrVectors", "PELICANVectors"}) {
            CAPTURE(vectors);
            network.framesnet["equivectors"] = {{"type", vectors}};
            check_hard_jets(network);
          }
        }
}

TEST_CASE("a jet's score depends neither on its batch mates nor on their order") {
  for (const auto& frames : all_frames)
    for (bool global : {false, true}) {
      Network network{frames, {}, {}, DType::f32};
      if (frames != "IdentityFrames") network.framesnet["is_global"] = global;
      CAPTURE(frames);
      check_batch_mates(network);
      if (frames != "LearnedPDFrames") continue;
      for (const char* vectors : {"LGATrVectors", "PELICANVectors"}) {
        CAPTURE(vectors);
        network.framesnet["equivectors"] = {{"type", vectors}};
        check_batch_mates(network);
      }
    }
}

TEST_CASE("gradients are the same with recomputed blocks, those of the frames network among them") {
  std::vector<Array> expected;
  for (bool checkpoints : {false, true}) {
    Network network{"LearnedPDFrames"};
    network.checkpoints = checkpoints;
    Context ctx(2, 1);
    auto tagger = network.make(ctx);
    const JetSet jets = toy_jets(ctx, lengths, 3);
    tagger->standardise(ctx, jets);
    Tape tape(ctx);
    const Var y = (*tagger)(tape, jets);
    tape.backward(bce_with_logits(y, ctx.zeros(y.shape(), DType::f64)));
    size_t i = 0;
    for (const auto& [name, p] : tagger->parameters()) {
      const Array gradient = to_array(p->grad);
      if (!checkpoints) expected.push_back(gradient);
      CHECK_MESSAGE(largest_difference(gradient, expected[i++]) <= 1e-12, name);
    }
  }
}
