#pragma once
#include <array>

#include "models/framesnet.h"

namespace lightcone {

struct RandomFramesConfig {
  std::string type = "RandomFrames";       ///< or COMRandomFrames
  std::string transform_type = "lorentz";  ///< lorentz, rotation, xyrotation or ztransform
  bool is_global = true;                   ///< one frame for each jet, else for each token
  double std_eta = 0.1;                    ///< of the rapidity of boosts
  double n_max_std_eta = 3;                ///< of the reference, where it has no effect
  void fields(auto& f) {
    f("type", type), f("transform_type", transform_type), f("is_global", is_global), f("std_eta", std_eta);
    f("n_max_std_eta", n_max_std_eta);
  }
};

/// A random Lorentz transformation, row-major, from uniform numbers u in [0, 1) and standard normal ones n:
///
///     rotation     R(u), uniform over SO(3): the quaternion (sqrt(u0) cos 2 pi u2, sqrt(1-u0) sin 2 pi u1,
///                  sqrt(1-u0) cos 2 pi u1, sqrt(u0) sin 2 pi u2) (Shoemake, Graphics Gems III)
///     xyrotation   by 2 pi u0 about the z axis
///     lorentz      R(u) B, B the boost to the rest frame of (1 / sqrt(1 - b^2), b), b = std_eta n
///     ztransform   a boost along z with rapidity std_eta n0 after an xyrotation
std::array<double, 16> random_transform(const std::string& type, double std_eta, const std::array<double, 3>& u,
                                        const std::array<double, 3>& n);

/// Data augmentation: random frames L while training, the identity in evaluation. They come from the stream
/// "random_frames", 16 numbers for each; recorded numbers there are the matrices themselves. COMRandomFrames, made for
/// scattering events, are L B with the boost B to the rest frame of the sum of the first two momenta, the incoming
/// ones.
class RandomFrames : public FramesNet {
 public:
  RandomFrames(const Json& options, bool one_for_the_batch);
  Frames operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr,
                    Intermediates* intermediates) override;

 private:
  RandomFramesConfig config_;
  bool one_for_the_batch_, from_rest_frame_;
};

}  // namespace lightcone
