#pragma once
#include <array>

#include "tests/support/op_case.h"

namespace lightcone::test {

/// A Lorentz transformation, row-major, acting on columns (E, px, py, pz).
using Lorentz = std::array<double, 16>;

Lorentz rotation(double angle, std::array<double, 3> axis);       ///< about any axis, which need not have length one
Lorentz boost(double rapidity, std::array<double, 3> direction);  ///< likewise
Lorentz random_rotation(uint64_t seed);                           ///< uniform over SO(3)
Lorentz random_boost(uint64_t seed, double rapidity);             ///< into a uniform direction
Lorentz operator*(const Lorentz& a, const Lorentz& b);
Lorentz inverse(const Lorentz& a);  ///< g a^T g

/// What covariance is tested with: a rotation, boosts of rapidity 0.1, 1 and 3, and each boost between two rotations.
std::vector<Lorentz> lorentz_transformations(uint64_t seed);

/// Four-momenta in the frame that `a` leads to; p [..., 4].
Array transformed(const Lorentz& a, const Array& p);
/// The same matrix for n tokens, [n, 4, 4].
Array repeated(const Lorentz& a, int64_t n);

/// Momenta of mass `mass` GeV with normal components of this width, [n, 4].
Array momenta(int64_t n, uint64_t seed, double mass = 1, double width = 10);

}  // namespace lightcone::test
