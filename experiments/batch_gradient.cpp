#include "experiments/batch_gradient.h"

#include <algorithm>

#include "autograd/gradients.h"
#include "autograd/weights.h"

namespace lightcone {

BatchResult PendingBatch::get() {
  struct Sum {
    Observation::Kind kind;
    double value, weight;
  };
  BatchResult result;
  std::map<std::string, Sum> sums;
  for (Part& part : parts_) {
    const std::vector<double>& numbers = part.numbers.values();
    result.loss += numbers[0];
    for (size_t i = 0; i < part.observed.size(); ++i) {
      const Observation& o = part.observed[i];
      const double value = numbers[i + 1] * (o.kind == Observation::mean ? o.weight : 1);
      const auto [it, fresh] = sums.try_emplace(o.name, o.kind, value, o.weight);
      Sum& sum = it->second;
      if (fresh) continue;
      sum.value = o.kind == Observation::max ? std::max(sum.value, value) : sum.value + value;
      sum.weight += o.weight;
    }
  }
  for (const auto& [name, sum] : sums)
    result.observed[name] = sum.kind == Observation::mean ? sum.value / sum.weight : sum.value;
  return result;
}

PendingBatch batch_gradient(Workers& workers, int64_t parts, const std::function<Var(Tape&, int64_t)>& loss) {
  Context& main = workers.main();
  PreparedWeights prepared(main);
  const Draw seeds = main.rng().draw("parts", parts);
  struct Share {
    PendingBatch::Part part;
    GradientSet gradients;
  };
  PendingBatch result;
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
        std::vector<Tensor> numbers = {value.value()};
        for (const Observation& o : tape.observations()) numbers.push_back(o.value);
        share.part = {tape.observations(), ctx.read(numbers)};
        tape.backward(value);
        return share;
      },
      [&](int64_t, Share share) {
        result.parts_.push_back(std::move(share.part));
        share.gradients.add_to_parameters(main);
      });
  return result;
}

}  // namespace lightcone
