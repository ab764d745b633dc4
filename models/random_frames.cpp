#include "models/random_frames.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "kernels/minkowski_math.h"

namespace lightcone {

namespace {

using Matrix = std::array<double, 16>;

Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix c{};
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      for (int k = 0; k < 4; ++k) c[4 * i + j] += a[4 * i + k] * b[4 * k + j];
  return c;
}

Matrix rotation(const std::array<double, 3>& u) {
  const double r = std::sqrt(1 - u[0]), s = std::sqrt(u[0]), a = 2 * M_PI * u[1], b = 2 * M_PI * u[2];
  const double q0 = s * std::cos(b), q1 = r * std::sin(a), q2 = r * std::cos(a), q3 = s * std::sin(b);
  return {1,
          0,
          0,
          0,  //
          0,
          1 - 2 * (q2 * q2 + q3 * q3),
          2 * (q1 * q2 - q0 * q3),
          2 * (q1 * q3 + q0 * q2),  //
          0,
          2 * (q1 * q2 + q0 * q3),
          1 - 2 * (q1 * q1 + q3 * q3),
          2 * (q2 * q3 - q0 * q1),  //
          0,
          2 * (q1 * q3 - q0 * q2),
          2 * (q2 * q3 + q0 * q1),
          1 - 2 * (q1 * q1 + q2 * q2)};
}

Matrix xyrotation(double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  return {1, 0, 0, 0, 0, c, -s, 0, 0, s, c, 0, 0, 0, 0, 1};
}

Matrix boost(double std_eta, const std::array<double, 3>& n) {
  const double b[3] = {std_eta * n[0], std_eta * n[1], std_eta * n[2]};
  const double p[4] = {1 / std::sqrt(std::max(1 - b[0] * b[0] - b[1] * b[1] - b[2] * b[2], 1e-10)), b[0], b[1], b[2]};
  Matrix out;
  minkowski_math::RestFrame(p).matrix(out.data());
  return out;
}

/// matrix B for the rows of each event.
void start_from_rest_frames(const Tensor& fourmomenta, std::span<const int32_t> rows, Tensor& matrices) {
  check("COMRandomFrames", "fourmomenta", fourmomenta).dtype(DType::f64);
  const double* p = fourmomenta.data<double>();
  for (size_t b = 0; b + 1 < rows.size(); ++b) {
    const int32_t begin = rows[b], end = rows[b + 1];
    if (begin == end) continue;
    if (end - begin < 2)
      fail("COMRandomFrames", "event {} has 1 momentum, expected two incoming ones first, as scattering events have",
           b);
    double sum[4];
    for (int i = 0; i < 4; ++i) sum[i] = p[4 * begin + i] + p[4 * begin + 4 + i];
    Matrix boost;
    minkowski_math::RestFrame(sum).matrix(boost.data());
    for (int64_t t = begin; t < end; ++t) {
      double* m = matrices.data<double>() + 16 * t;
      Matrix random;
      std::copy_n(m, 16, random.data());
      std::copy_n((random * boost).data(), 16, m);
    }
  }
}

const std::vector<std::string> types = {"lorentz", "rotation", "xyrotation", "ztransform"};

}  // namespace

Matrix random_transform(const std::string& type, double std_eta, const std::array<double, 3>& u,
                        const std::array<double, 3>& n) {
  if (type == "rotation") return rotation(u);
  if (type == "xyrotation") return xyrotation(2 * M_PI * u[0]);
  if (type == "lorentz") return rotation(u) * boost(std_eta, n);
  const double c = std::cosh(std_eta * n[0]), s = std::sinh(std_eta * n[0]);
  return Matrix{c, 0, 0, s, 0, 1, 0, 0, 0, 0, 1, 0, s, 0, 0, c} * xyrotation(2 * M_PI * u[0]);
}

RandomFrames::RandomFrames(const Json& options, bool one_for_the_batch) : one_for_the_batch_(one_for_the_batch) {
  read_fields(options, config_, "model.framesnet");
  from_rest_frame_ = config_.type == "COMRandomFrames";
  if (std::find(types.begin(), types.end(), config_.transform_type) == types.end())
    fail("model", "model.framesnet.transform_type has no option '{}'; all: {}", config_.transform_type,
         fmt::join(types, ", "));
  if (!(config_.std_eta > 0 && std::isfinite(config_.std_eta)))
    fail("model", "model.framesnet.std_eta is {}, expected a number above 0", config_.std_eta);
}

Frames RandomFrames::operator()(const Var& fourmomenta, const Var&, const Tensor& ptr, Intermediates*) {
  Tape& tape = fourmomenta.tape();
  if (!tape.training()) return {};
  Context& ctx = tape.context();
  const auto rows = ptr.offsets();
  const int64_t T = fourmomenta.dim(0), B = ptr.dim(0) - 1;
  // Tokens that share a frame are consecutive: those of the batch, of a jet, or each by itself.
  const bool whole_batch = config_.is_global && one_for_the_batch_, by_jets = config_.is_global && !whole_batch;
  const int64_t count = whole_batch ? 1 : by_jets ? B : T;
  const Draw draw = ctx.rng().draw("random_frames", 16 * count);
  Tensor matrices = ctx.host().empty({T, 4, 4}, DType::f64);
  for (int64_t m = 0; m < count; ++m) {
    Matrix matrix;
    if (draw.recorded) {
      for (int64_t i = 0; i < 16; ++i) matrix[i] = draw.uniform(16 * m + i);
    } else {
      std::array<double, 3> u, n;
      for (int64_t i = 0; i < 3; ++i) u[i] = draw.uniform53(16 * m + i), n[i] = draw.normal(16 * m + 8 + i);
      matrix = random_transform(config_.transform_type, config_.std_eta, u, n);
    }
    const int64_t begin = by_jets ? rows[m] : m, end = whole_batch ? T : by_jets ? rows[m + 1] : m + 1;
    for (int64_t t = begin; t < end; ++t) std::copy_n(matrix.data(), 16, matrices.data<double>() + 16 * t);
  }
  if (from_rest_frame_ && !draw.recorded) start_from_rest_frames(ctx.host().here(fourmomenta.value()), rows, matrices);
  return {tape.constant(ctx.here(matrices)), config_.is_global};
}

}  // namespace lightcone
