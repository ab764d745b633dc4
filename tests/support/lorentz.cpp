#include "tests/support/lorentz.h"

#include <cmath>

namespace lightcone::test {

static std::array<double, 3> unit(std::array<double, 3> v) {
  const double length = std::hypot(v[0], v[1], v[2]);
  for (double& x : v) x /= length;
  return v;
}

static std::array<double, 3> random_direction(uint64_t seed) {
  const Array v = normal({3}, seed);
  return {v[0], v[1], v[2]};
}

Lorentz rotation(double angle, std::array<double, 3> axis) {
  const auto n = unit(axis);
  const double c = std::cos(angle), s = std::sin(angle);
  // Rodrigues: R = c 1 + (1 - c) n n^T + s [n]x
  const double cross[3][3] = {{0, -n[2], n[1]}, {n[2], 0, -n[0]}, {-n[1], n[0], 0}};
  Lorentz out{1};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) out[5 + 4 * i + j] = (i == j) * c + (1 - c) * n[i] * n[j] + s * cross[i][j];
  return out;
}

Lorentz boost(double rapidity, std::array<double, 3> direction) {
  const auto n = unit(direction);
  const double c = std::cosh(rapidity), s = std::sinh(rapidity);
  Lorentz out{c};
  for (int i = 0; i < 3; ++i) {
    out[1 + i] = out[4 + 4 * i] = s * n[i];
    for (int j = 0; j < 3; ++j) out[5 + 4 * i + j] = (i == j) + (c - 1) * n[i] * n[j];
  }
  return out;
}

Lorentz random_rotation(uint64_t seed) {
  // A normal four-vector, normalised, is a uniform unit quaternion (w, x, y, z).
  const Array q = normal({4}, seed);
  return rotation(2 * std::atan2(std::hypot(q[1], q[2], q[3]), q[0]), {q[1], q[2], q[3]});
}

Lorentz random_boost(uint64_t seed, double rapidity) { return boost(rapidity, random_direction(seed)); }

Lorentz operator*(const Lorentz& a, const Lorentz& b) {
  Lorentz out{};
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      for (int k = 0; k < 4; ++k) out[4 * i + j] += a[4 * i + k] * b[4 * k + j];
  return out;
}

Lorentz inverse(const Lorentz& a) {
  Lorentz out;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) out[4 * i + j] = a[4 * j + i] * ((i == 0) == (j == 0) ? 1 : -1);
  return out;
}

std::vector<Lorentz> lorentz_transformations(uint64_t seed) {
  std::vector<Lorentz> out = {random_rotation(seed)};
  for (double rapidity : {0.1, 1.0, 3.0}) {
    const Lorentz b = random_boost(++seed, rapidity);
    out.push_back(b);
    out.push_back(random_rotation(seed + 100) * b * random_rotation(seed + 200));
  }
  return out;
}

Array transformed(const Lorentz& a, const Array& p) {
  Array out = zeros(p.shape);
  for (int64_t t = 0; t < p.shape.numel() / 4; ++t)
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) out[4 * t + i] += a[4 * i + j] * p[4 * t + j];
  return out;
}

Array repeated(const Lorentz& a, int64_t n) {
  Array out = zeros({n, 4, 4});
  for (int64_t i = 0; i < 16 * n; ++i) out[i] = a[i % 16];
  return out;
}

Array momenta(int64_t n, uint64_t seed, double mass, double width) {
  Array p = normal({n, 4}, seed, width);
  for (int64_t t = 0; t < n; ++t)
    p.at(t, 0) = std::sqrt(mass * mass + std::pow(p.at(t, 1), 2) + std::pow(p.at(t, 2), 2) + std::pow(p.at(t, 3), 2));
  return p;
}

}  // namespace lightcone::test
