// The networks with local frames: jets that are hard, and recomputed blocks. (Equivariance: test_equivariance.cpp.)
#include <doctest/doctest.h>

#include "autograd/loss.h"
#include "tests/support/taggers.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

const std::vector<int64_t> lengths = {13, 7, 3, 10, 5};

const std::vector<std::string> all_frames = {"IdentityFrames",    "LearnedPDFrames",  "LearnedSO13Frames",
                                             "LearnedRestFrames", "LearnedSO3Frames", "LearnedSO2Frames",
                                             "LearnedZFrames",    "RandomFrames"};

void check_hard_jets(const TaggerCase& network) {
  CAPTURE(network.model.dump());
  Context ctx(1, 1);
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, toy_jets(ctx, lengths, 3, 10));
  Tape tape(ctx);
  const Var y = (*tagger)(tape, hard_jets(ctx));
  CHECK(all_finite(y.value()));
  tape.backward(bce_with_logits(y, ctx.zeros(y.shape(), network.dtype)));
  for (const auto& [name, parameter] : tagger->parameters())
    if (parameter->grad.defined()) CHECK_MESSAGE(all_finite(parameter->grad), name);
}

}  // namespace

TEST_CASE("hard jets give finite logits and gradients") {
  for (const auto& frames : all_frames)
    for (DType dtype : {DType::f64, DType::f32})
      for (bool spurions : {true, false})
        for (bool boosted : {true, false}) {
          CAPTURE(dtype);
          CAPTURE(spurions);
          CAPTURE(boosted);
          for (const bool graphnet : {false, true}) {
            TaggerCase network{graphnet ? small_graphnet(frames) : small_lloca(frames), {}, dtype};
            network.embedding.boost_jet = boosted;
            if (!spurions) network.embedding.beam_reference = {}, network.embedding.add_time_reference = false;
            check_hard_jets(network);
            if (graphnet || (frames != "LearnedPDFrames" && frames != "LearnedSO13Frames")) continue;
            for (const char* vectors : {"LGATrVectors", "PELICANVectors"}) {
              network.model["framesnet"]["equivectors"] = {{"type", vectors}};
              check_hard_jets(network);
            }
          }
        }
}

TEST_CASE("gradients are the same with recomputed blocks, those of the frames network among them") {
  for (TaggerCase network : {TaggerCase{small_lloca("LearnedPDFrames")}, {small_graphnet("LearnedPDFrames")}}) {
    std::vector<Array> expected;
    for (bool checkpoints : {false, true}) {
      network.model["net"]["checkpoint_blocks"] = checkpoints;
      Context ctx(1, 1);
      auto tagger = network.make(ctx);
      const JetSet jets = toy_jets(ctx, lengths, 3, 10);
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
}
