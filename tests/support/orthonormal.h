#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "autograd/orthonormal.h"
#include "tests/support/devices.h"
#include "tests/support/lorentz.h"

// What the tests of orthonormal.h share: calls with recorded noise, their frames and gradients as arrays.
namespace lightcone::test {

inline const char* const methods[] = {"gramschmidt", "cross"};

// The eps_norm of all reference numbers, and the eps of the configurations.
inline OrthoKwargs options(const std::string& method, std::optional<double> eps = 1e-16) {
  OrthoKwargs o;
  o.method = method;
  o.eps_norm = 1e-15;
  o.eps_reg = o.eps_reg_coplanar = o.eps_reg_lightlike = eps;
  return o;
}

using Counts = std::array<int64_t, 3>;
struct Outcome {
  Array frames;
  std::vector<Array> gradients;
  Counts counts;
};
using Frames = std::function<RegularisedFrames(std::vector<Var>&)>;
inline Outcome evaluate(Device device, const Frames& f, const std::vector<Array>& inputs, const Array& cotangent = {},
                        const std::map<std::string, Array>& noise = {}, DType dtype = DType::f64, int threads = 1) {
  Context ctx(device, threads);
  for (const auto& [stream, numbers] : noise) ctx.rng().replace(stream, numbers.values);
  Tape tape(ctx);
  std::vector<Var> x;
  for (const Array& a : inputs) x.push_back(tape.variable(to_tensor(ctx, a, dtype)));
  const RegularisedFrames y = f(x);
  Outcome out = {to_array(y.frames.value()), {}, {y.lightlike(), y.dependent(), y.improper()}};
  if (cotangent.values.empty()) return out;
  tape.backward(y.frames, to_tensor(ctx, cotangent, DType::f64));
  for (const Var& v : x) out.gradients.push_back(to_array(tape.gradient(v)));
  return out;
}
inline Frames frames_of(const OrthoKwargs& o) {
  return [o](auto& x) { return orthonormal_frames(x[0], o); };
}
inline Frames polar_of(const OrthoKwargs& o) {
  return [o](auto& x) { return polar_decomposition(x[0], x[1], o); };
}

// One entry of the leading axis.
inline Array row(const Array& a, int64_t t) {
  Array out;
  for (int axis = 1; axis < a.shape.rank(); ++axis) out.shape.append(a.shape[axis]);
  const int64_t n = out.shape.numel();
  out.values.assign(a.values.begin() + t * n, a.values.begin() + (t + 1) * n);
  return out;
}
inline Lorentz matrix_of(const Array& frames, int64_t t) {
  Lorentz m;
  std::copy_n(frames.values.begin() + 16 * t, 16, m.begin());
  return m;
}
inline bool all_finite(const Array& a) {
  return std::all_of(a.values.begin(), a.values.end(), [](double v) { return std::isfinite(v); });
}

}  // namespace lightcone::test
