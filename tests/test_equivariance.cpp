// Logits of jets in another laboratory: every network that promises to be equivariant, and no others beyond their
// group.
#include <doctest/doctest.h>

#include "tests/support/taggers.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

const std::vector<int64_t> lengths = {13, 7, 3, 10, 5};
const std::array<double, 3> z = {0, 0, 1};
const Lorentz identity = rotation(0, z);

/// The frames network sees features that are the same in all frames of the group.
EmbeddingConfig invariant(const std::optional<std::string>& features = {}) {
  EmbeddingConfig e;
  e.tagging_features = features;
  return e;
}

/// Jets of massive constituents: light ones would lose their masses to rounding.
double largest_deviation(const TaggerCase& network, const std::vector<Lorentz>& transformations) {
  Context ctx(1, 5);
  const JetSet jets = toy_jets(ctx, lengths, 3, 1);
  const auto before = moved_logits(ctx, network, jets, identity);
  double largest = 0;
  for (const Lorentz& lambda : transformations)
    largest = std::max(largest, deviation(moved_logits(ctx, network, jets, lambda), before));
  return largest;
}

std::vector<Lorentz> boosts(double rapidity) {
  std::vector<Lorentz> out;
  for (uint64_t seed : {1, 2, 3}) out.push_back(random_rotation(seed) * random_boost(10 + seed, rapidity));
  return out;
}

/// Components grow as e^rapidity and squares cancel down to masses: a relative error of e^(2 rapidity) epsilon at
/// least, what a network's own condition multiplies.
void check_equivariant(const TaggerCase& network) {
  for (double rapidity : {0.1, 1., 2., 3., 5.}) {
    CAPTURE(rapidity);
    CHECK(largest_deviation(network, boosts(rapidity)) <= (rapidity <= 2 ? 1e-9 : 1e-6));
  }
}

}  // namespace

TEST_CASE("equivariance: frames of all of SO(1,3)") {
  for (const std::string frames : {"LearnedPDFrames", "LearnedSO13Frames", "LearnedRestFrames"})
    for (const std::string method : {"gramschmidt", "cross"})
      for (bool global : {false, true})
        for (bool at_rest : {false, true}) {
          CAPTURE(frames);
          CAPTURE(method);
          CAPTURE(global);
          CAPTURE(at_rest);
          TaggerCase network{small_lloca(frames, {{"is_global", global}, {"ortho_kwargs", {{"method", method}}}}),
                             invariant()};
          network.embedding.boost_jet = at_rest;
          network.frames_weights = 3;
          check_equivariant(network);
          // The vectors of a fresh network are parallel up to parts in ten thousand, and so much less sure.
          network.frames_weights = 1;
          CHECK(largest_deviation(network, boosts(2)) <= 1e-9);
        }
}

TEST_CASE("equivariance: frames from vectors of other networks") {
  for (const char* vectors : {"LGATrVectors", "PELICANVectors"})
    for (const std::string frames : {"LearnedPDFrames", "LearnedSO13Frames"})
      for (bool global : {false, true})
        for (bool at_rest : {false, true}) {
          CAPTURE(vectors);
          CAPTURE(frames);
          CAPTURE(global);
          CAPTURE(at_rest);
          TaggerCase network{small_lloca(frames, {{"is_global", global}, {"equivectors", {{"type", vectors}}}}),
                             invariant()};
          network.embedding.boost_jet = at_rest;
          check_equivariant(network);
        }
}

TEST_CASE("equivariance: the GraphNet, whose edges know masses") {
  for (const char* reps : {"2x0n+1x1n+1x2n", "3x1n", "1x0p+2x0n+1x1p", "6x0n"})
    for (bool global : {false, true}) {
      CAPTURE(std::string(reps));
      CAPTURE(global);
      TaggerCase network{small_graphnet("LearnedPDFrames", {{"is_global", global}}), invariant()};
      network.model["net"]["hidden_reps"] = reps;
      network.frames_weights = 3;
      check_equivariant(network);
    }
}

TEST_CASE("equivariance: L-GATr-slim and L-GATr, with and without reference vectors") {
  for (const Json& model : {small_slim(), small_lgatr()})
    for (bool mean : {false, true})
      for (bool references : {true, false}) {
        CAPTURE(model.dump());
        CAPTURE(mean);
        CAPTURE(references);
        TaggerCase network{model, invariant()};
        network.net_weights = 4;
        network.model["mean_aggregation"] = mean;
        if (!references) network.embedding.beam_reference = {}, network.embedding.add_time_reference = false;
        check_equivariant(network);
        // Not because they do not look.
        Context ctx(1, 5);
        CHECK(deviation(moved_logits(ctx, network, toy_jets(ctx, lengths, 4, 1), identity),
                        moved_logits(ctx, network, toy_jets(ctx, lengths, 3, 1), identity)) > 1e-2);
      }
}

TEST_CASE("equivariance: frames of subgroups, and of those alone") {
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
             {random_rotation(1), boost(1, {1, 0, 0})}},
        Case{"IdentityFrames", {}, {}, {rotation(0.7, {1, 0, 0}), random_boost(1, 1)}}})
    for (const std::string method : {"gramschmidt", "cross"}) {
      CAPTURE(c.frames);
      CAPTURE(method);
      TaggerCase network{small_lloca(c.frames), invariant(c.features)};
      if (c.frames != std::string("IdentityFrames")) network.model["framesnet"]["ortho_kwargs"]["method"] = method;
      for (double weights : {1, 3}) {
        network.frames_weights = weights;
        CHECK(largest_deviation(network, c.within) <= 1e-9);
        if (c.frames == std::string("LearnedZFrames"))
          CHECK(largest_deviation(network, {boost(5, z), boost(-5, z)}) <= 1e-6);
        for (const Lorentz& lambda : c.beyond) CHECK(largest_deviation(network, {lambda}) > 1e-4);
      }
    }
}

TEST_CASE("equivariance is broken by beams that stay in the laboratory, and by features of it") {
  const Lorentz lambda = random_rotation(1) * random_boost(2, 1);
  CHECK(largest_deviation({small_lloca("LearnedPDFrames"), invariant("all")}, {lambda}) > 1e-4);
  for (const Json& model : {small_lloca("LearnedPDFrames"), small_slim(), small_lgatr()}) {
    TaggerCase network{model, invariant()};
    network.net_weights = 4;
    Context ctx(1, 5);
    const JetSet jets = toy_jets(ctx, lengths, 3, 1);
    auto tagger = network.make(ctx);
    tagger->standardise(ctx, jets);
    CHECK(deviation(logits(ctx, *tagger, moved(ctx, lambda, jets)), logits(ctx, *tagger, jets)) > 1e-3);
  }
}
