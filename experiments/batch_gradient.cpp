#include "experiments/batch_gradient.h"

#include "autograd/gradients.h"
#include "autograd/weights.h"

namespace lightcone {

double batch_gradient(Workers& workers, int64_t parts, const std::function<Var(Tape&, int64_t)>& loss) {
  Context& main = workers.main();
  PreparedWeights prepared(main);
  const Draw seeds = main.rng().draw("parts", parts);
  struct Share {
    double loss;
    GradientSet gradients;
  };
  double sum = 0;
  workers.run(
      parts,
      [&](Context& ctx, int64_t part) {
        if (&ctx != &main) {
          const auto words = philox(seeds.key, seeds.position, static_cast<uint64_t>(part));
          ctx.rng() = Rng(uint64_t{words[1]} << 32 | words[0]);
        }
        Tape tape(ctx);
        Share share;
        tape.share(prepared);
        tape.collect(share.gradients);
        const Var value = loss(tape, part);
        share.loss = value.value().item();
        tape.backward(value);
        return share;
      },
      [&](int64_t, Share share) {
        sum += share.loss;
        share.gradients.add_to_parameters(main);
      });
  return sum;
}

}  // namespace lightcone
