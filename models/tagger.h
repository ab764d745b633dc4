#pragma once
#include <map>
#include <string>

#include "autograd/module.h"
#include "data/jets.h"
#include "engine/fields.h"

namespace lightcone {

/// What a tagging task demands of its network.
struct TaggingTask {
  /// 1 for signal against background, else the number of classes.
  int64_t num_outputs = 1;
  /// Scalars per constituent that come with the data: particle identification, displacements.
  int64_t extra_scalars = 0;
};

/// Tensors on the way through a network by their names in the reference files ("net_in/inputs", "frames", …).
using Intermediates = std::map<std::string, Tensor>;

/// A network that scores jets, from their four-momenta to logits. State-dict names are those of the references'
/// wrappers: net.… for the network, framesnet.… for its frames network.
class Tagger : public Module {
 public:
  /// Logits [B, num_outputs] of the jets of one batch; a jet's logits depend on that jet alone. Fills `intermediates`
  /// if given.
  virtual Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates = nullptr) = 0;
  /// Fixes what is measured on the first training batch (buffers of the state dict); does nothing once that is done.
  virtual void standardise(Context&, const JetSet& /*batch*/) {}
  /// Comes before every training batch.
  virtual void begin_batch(Context&) {}
  /// For people: "Transformer".
  virtual std::string title() const = 0;
};

}  // namespace lightcone
