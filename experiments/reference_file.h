#pragma once
#include "data/jets.h"
#include "engine/fields.h"
#include "engine/safetensors.h"

namespace lightcone {

/// Reading a reference file: a whole tagging model with its configuration (`config`, JSON, in the metadata), jets
/// (`in/…`), parameters (`param/…`) and the numbers that the PyTorch implementation gave. All of these functions throw
/// Error, one line, for a file that makes no sense.

/// What the file asks for is not in this version: no failure of a comparison.
struct NotThere : Error {
  using Error::Error;
};

/// The file holds something else than a whole model.
struct NotAModel : Error {
  using Error::Error;
};

/// All elements, as double.
std::vector<double> values(Context& ctx, const Tensor& t);

/// A number from the metadata, finite and not negative; `otherwise` where it is missing or None.
double number(const Safetensors& file, const std::string& key, double otherwise);

/// 1e-9 in f64, or 100 times the noise that the file states, whichever is larger; at least 1e-4 for an f32 network.
double tolerance(const Safetensors& file, const std::string& noise, bool float32);

/// The configuration in our form, with an experiment that this version knows and a model that names its network. Throws
/// NotThere or NotAModel where that is the case.
Json config_of(const Safetensors& file);

/// in/fourmomenta, in/ptr, in/label (or in/labels), below `classes`, and in/scalars (none: no columns).
JetSet jets_of(Context& ctx, const Safetensors& file, int64_t classes);

}  // namespace lightcone
