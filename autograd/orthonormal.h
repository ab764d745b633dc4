#pragma once
#include <optional>
#include <string>

#include "autograd/tape.h"

namespace lightcone {

/// How vectors become frames, under the names of the configuration (`ortho_kwargs`). An eps that is null is the
/// spacing of doubles at 1, 2.2e-16.
struct OrthoKwargs {
  bool use_float64 = true;             ///< accepted: the arithmetic is f64 in any case
  std::string method = "gramschmidt";  ///< or "cross"
  std::optional<double> eps_norm;
  std::optional<double> eps_reg;           ///< collinear references of polar_decomposition
  std::optional<double> eps_reg_coplanar;  ///< sets of orthonormal_frames
  std::optional<double> eps_reg_lightlike;
  bool checks = false;  ///< throw Error if a frame has not one time-like vector
  void fields(auto& f) {
    f("use_float64", use_float64);
    f("method", method);
    f("eps_norm", eps_norm);
    f("eps_reg", eps_reg);
    f("eps_reg_coplanar", eps_reg_coplanar);
    f("eps_reg_lightlike", eps_reg_lightlike);
    f("checks", checks);
  }
};

/// Frames, and how many of the sets that they were made of are degenerate. Numbers stay where they were computed; who
/// asks for one waits for a GPU.
struct RegularisedFrames {
  Var frames;     ///< [T, 4, 4] f64
  Tensor counts;  ///< [3] i64, as in kernels/orthonormal.h
  int64_t lightlike() const { return count(0); }
  int64_t dependent() const { return count(1); }  ///< coplanar or collinear
  int64_t improper() const { return count(2); }   ///< frames without exactly one time-like vector

 private:
  int64_t count(int64_t i) const { return static_cast<int64_t>(counts.narrow(i, 1).item()); }
};

/// A limited boost; its numbers likewise.
struct ClampedBoost {
  Var boost;          ///< [T, 4]
  Tensor statistics;  ///< [3] f64, of gamma before the limit
  double mean() const { return statistics.narrow(0, 1).item(); }
  double largest() const { return statistics.narrow(1, 1).item(); }
  double above() const { return statistics.narrow(2, 1).item(); }  ///< number above gamma_max, -1 without it
};

// Definitions in kernels/orthonormal.h. Noise comes from the random streams "frames_lightlike" (a number per component
// of the vectors or of the boost), "frames_coplanar" (likewise) and "frames_collinear" ([T, 2, 3]); each call draws
// from its two, in training and evaluation, whether the numbers are needed or not.

RegularisedFrames orthonormal_frames(const Var& vectors, const OrthoKwargs& options = {});  ///< [T, 3, 4]
/// [T, 4] and [T, 2, 4]
RegularisedFrames polar_decomposition(const Var& boost, const Var& references, const OrthoKwargs& options = {});
/// [T, 4]; without gamma_max the same Var comes back.
ClampedBoost clamp_boost(const Var& v, std::optional<double> gamma_max, std::optional<double> hardness);

}  // namespace lightcone
