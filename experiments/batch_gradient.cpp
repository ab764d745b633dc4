#include "experiments/batch_gradient.h"

#include <algorithm>

#include "autograd/gradients.h"
#include "autograd/weights.h"

namespace lightcone {

namespace {

/// Observations of the parts, taken in order, and what they make together.
class Observed {
 public:
  void take(const std::vector<Observation>& part) {
    for (const Observation& o : part) {
      auto [it, fresh] = so_far_.try_emplace(o.name, o);
      Observation& all = it->second;
      const bool mean = o.kind == Observation::mean;
      if (fresh)
        all.value *= mean ? o.weight : 1;
      else if (o.kind == Observation::max)
        all.value = std::max(all.value, o.value);
      else
        all.value += o.value * (mean ? o.weight : 1);
      if (!fresh) all.weight += o.weight;
    }
  }
  std::map<std::string, double> result() const {
    std::map<std::string, double> out;
    for (const auto& [name, o] : so_far_) out[name] = o.kind == Observation::mean ? o.value / o.weight : o.value;
    return out;
  }

 private:
  std::map<std::string, Observation> so_far_;
};

}  // namespace

BatchResult batch_gradient(Workers& workers, int64_t parts, const std::function<Var(Tape&, int64_t)>& loss) {
  Context& main = workers.main();
  PreparedWeights prepared(main);
  const Draw seeds = main.rng().draw("parts", parts);
  struct Share {
    double loss;
    GradientSet gradients;
    std::vector<Observation> observed;
  };
  BatchResult result;
  Observed observed;
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
        share.observed = tape.observations();
        tape.backward(value);
        return share;
      },
      [&](int64_t, Share share) {
        result.loss += share.loss;
        observed.take(share.observed);
        share.gradients.add_to_parameters(main);
      });
  result.observed = observed.result();
  return result;
}

}  // namespace lightcone
