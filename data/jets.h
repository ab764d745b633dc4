#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "engine/context.h"
#include "engine/npy.h"

namespace lightcone {

/// Jets as ragged rows: the constituents of jet i are rows ptr[i] to ptr[i + 1] of `fourmomenta`. A whole data set and
/// a batch of it have this same form.
struct JetSet {
  Tensor fourmomenta;  ///< [T, 4] f32 or f64, (E, px, py, pz) in GeV
  Tensor ptr;          ///< [N + 1] i32
  Tensor labels;       ///< [N] i64; undefined for jets without labels
  Tensor scalars;      ///< [T, S] f32 or f64, more about each constituent; undefined where there is nothing more
  int64_t size() const { return ptr.defined() ? ptr.numel() - 1 : 0; }
};

/// Drops the padding from a dense array of jets, [N, P, 4] in f32 or f64, as it is read: the array is never in memory
/// as a whole. A constituent is padding if any of its components has |x| <= 1e-5, the rule of the reference data
/// loader. `name` is the array's, for errors. Throws Error for another shape or dtype, a component that is not
/// finite, an energy below the momentum (another order of the components), a jet above 10^5 GeV (MeV), or one of which
/// nothing is left: networks average over constituents, and such a jet has no prediction.
JetSet read_jets(Context& ctx, NpyReader& kinematics, std::string_view name);

/// The jets of these indices, in that order, with momenta in `dtype` (f32 or f64).
JetSet gather_jets(Context& ctx, const JetSet& jets, std::span<const int64_t> indices, DType dtype);

/// A batch as gather_jets() gives it, in parts: as many as there are times `jets_per_part` jets (the last rounded up),
/// cut where constituents, the measure of work, are shared evenly.
std::vector<JetSet> gather_parts(Context& ctx, const JetSet& jets, std::span<const int64_t> indices, DType dtype,
                                 int64_t jets_per_part);

}  // namespace lightcone
