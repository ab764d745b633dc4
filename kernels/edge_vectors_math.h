#pragma once
#include <cmath>
#include <limits>

#include "kernels/edge_vectors.h"

// Numbers that edge_vectors.h names, for both devices.
namespace lightcone::kernels::edge {

inline constexpr double least_norm = 1e-6, least_length = 1e-5;
inline constexpr double metric[4] = {1, -1, -1, -1};

/// The signs of p_i and p_j in f_ij.
struct Signs {
  double receiver, sender;
  explicit Signs(EdgeMomentum operation)
      : receiver(operation == EdgeMomentum::single ? 0 : 1), sender(operation == EdgeMomentum::diff ? -1 : 1) {}
};

/// What the perceptron's dtype can square; with more, products in the backward would overflow.
template <class S>
const double largest_gradient = std::sqrt(static_cast<double>(std::numeric_limits<S>::max()));

}  // namespace lightcone::kernels::edge
