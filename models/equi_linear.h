#pragma once
#include <memory>
#include <optional>

#include "autograd/equi_linear.h"
#include "autograd/module.h"

namespace lightcone {

/// Channels of an equivariant linear map: multivectors, and scalars where there are any.
struct EquiChannels {
  int64_t mv;
  std::optional<int64_t> s;
};

/// How the initial weights are drawn: the size of the results, relative to that of the inputs, and whether the scalar
/// component of the result is one plus something small (as a factor of products).
enum class EquiInit { standard, small, almost_unit_scalar };

/// An equivariant linear map with the state dict and the initial distribution of the reference; see
/// kernels/equi_linear.h.
struct EquiLinear : Module {
  Parameter weight, bias;
  struct Matrix : Module {
    Parameter weight, bias;
    Matrix(Tensor w, Tensor b);  ///< b: undefined for none
  };
  std::unique_ptr<Matrix> s2mvs, mvs2s, s2s;  ///< where there are such scalars

  /// `duals`: components mix with their duals.
  EquiLinear(Context& ctx, EquiChannels in, EquiChannels out, DType dtype, bool duals = true,
             EquiInit init = EquiInit::standard);

  /// The reference's results run head-fastest, (part, channel, head), ours (part, head, channel): rows of all weights
  /// for `parts` parts of `heads` heads with c.mv and c.s channels.
  void order_heads(int64_t parts, int64_t heads, EquiChannels c);

  EquiLinearParameters parameters(Tape& tape);
  Multivectors operator()(const Multivectors& x, const EquiLinearOptions& options = {});
};

}  // namespace lightcone
