#pragma once
#include <memory>

#include "models/embedding.h"
#include "models/tagger.h"

namespace lightcone {

/// A network or frames network that this version does not have; the text names those that it has.
struct NotInThisVersion : Error {
  using Error::Error;
};

/// Builds the tagger that a configuration's `model` group names by net.type and framesnet.type, with freshly drawn
/// parameters in `dtype`. Throws Error on unknown keys, bad values, and networks that this version does not have
/// (naming those that it has).
std::unique_ptr<Tagger> make_tagger(Context& ctx, const Json& model, const TaggingTask& task,
                                    const EmbeddingConfig& embedding, DType dtype);

}  // namespace lightcone
