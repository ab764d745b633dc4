#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/rng.h"
#include "kernels/orthonormal_math.h"

// Blocks of particles: their vectors in and out of memory, the regularisation of degenerate ones, and the end of
// gradients that overflow.
namespace lightcone::kernels::cpu {
using namespace minkowski_math;
using namespace orthonormal_math;

[[gnu::always_inline]] inline Vec4 at(const Block& b, int64_t k) { return {b.E[k], b.px[k], b.py[k], b.pz[k]}; }
[[gnu::always_inline]] inline Vec3 spatial_at(const Block& b, int64_t k) { return {b.px[k], b.py[k], b.pz[k]}; }
[[gnu::always_inline]] inline void set(Block& b, int64_t k, const Vec4& v) {
  b.E[k] = v.t, b.px[k] = v.x, b.py[k] = v.y, b.pz[k] = v.z;
}

// f(k) for all particles of a block, vectorised. f must be LIGHTCONE_LANE: what it declares is then split into numbers,
// while the compiler keeps objects that a loop under `omp simd` declares itself in arrays.
#define LIGHTCONE_LANE __attribute__((always_inline))
template <class F>
[[gnu::always_inline]] inline void each_lane(F&& f) {
#pragma omp simd
  for (int64_t k = 0; k < block; ++k) f(k);
}

// The vectors of `count` particles, N each.
template <size_t N, class T>
void load(const T* x, int64_t count, Block (&v)[N]) {
  for (size_t j = 0; j < N; ++j) v[j] = Block(x + 4 * j, count, 4 * N);
}
template <size_t N, class T>
void store(const Block (&v)[N], int64_t count, T* x) {
  for (size_t j = 0; j < N; ++j) v[j].store(x + 4 * j, count, 4 * N);
}

// The particles of a block, and the number of the first. The regularisations below are no templates over what reads
// them, and not inlined: forward and backward must decide alike, to the last bit.
struct Particles {
  int64_t first, count;
  bool shared_noise = false;
  /// Whose random numbers particle k of the block takes.
  int64_t noise_row(int64_t k) const { return shared_noise ? 0 : first + k; }
};

[[gnu::noinline]] inline int64_t regularise_lightlike(Particles p, double eps, const Draw& noise, Block* v,
                                                      int vectors) {
  int64_t sets = 0;
  bool found[block] = {};
  for (int j = 0; j < vectors; ++j) {
    double square[block];
    each_lane([&](int64_t k) LIGHTCONE_LANE { square[k] = std::abs(inner(at(v[j], k), at(v[j], k))); });
    for (int64_t k = 0; k < p.count; ++k) {
      if (!(square[k] < eps)) continue;
      const int64_t number = (p.noise_row(k) * vectors + j) * 4;
      double n[3];
      for (int i = 0; i < 3; ++i) n[i] = std::abs(noise.normal(number + 1 + i));
      const double energy = std::sqrt(2 * (n[0] * n[0] + n[1] * n[1] + n[2] * n[2]));
      set(v[j], k, at(v[j], k) + eps * Vec4{energy, n[0], n[1], n[2]});
      sets += !found[k];
      found[k] = true;
    }
  }
  return sets;
}

[[gnu::noinline]] inline int64_t regularise_coplanar(Particles p, double eps, const Draw& noise, Block* v) {
  double square[block];
  each_lane([&](int64_t k) LIGHTCONE_LANE {
    const Vec4 c = cross(at(v[0], k), at(v[1], k), at(v[2], k));
    square[k] = std::abs(inner(c, c));
  });
  int64_t sets = 0;
  for (int64_t k = 0; k < p.count; ++k) {
    if (!(square[k] < eps)) continue;
    ++sets;
    for (int j = 0; j < 3; ++j) {
      const int64_t number = (p.noise_row(k) * 3 + j) * 4;
      const Vec4 n = {noise.normal(number), noise.normal(number + 1), noise.normal(number + 2),
                      noise.normal(number + 3)};
      set(v[j], k, at(v[j], k) + eps * n);
    }
  }
  return sets;
}

// r becomes its spatial part in the rest frame of p.
[[gnu::noinline]] inline int64_t rest_references(Particles p, double eps, const Draw& noise, const Block& boost,
                                                 Block* r) {
  double square[block];
  each_lane([&](int64_t k) LIGHTCONE_LANE {
    const Boost b(at(boost, k));
    const Vec3 r0 = b.spatial(at(r[0], k)), r1 = b.spatial(at(r[1], k)), c = cross(r0, r1);
    set(r[0], k, {0, r0.x, r0.y, r0.z});
    set(r[1], k, {0, r1.x, r1.y, r1.z});
    square[k] = dot(c, c);
  });
  int64_t sets = 0;
  for (int64_t k = 0; k < p.count; ++k) {
    if (!(square[k] < eps)) continue;
    ++sets;
    for (int j = 0; j < 2; ++j) {
      const int64_t number = (p.noise_row(k) * 2 + j) * 3;
      const Vec4 n = {0, noise.normal(number), noise.normal(number + 1), noise.normal(number + 2)};
      set(r[j], k, at(r[j], k) + eps * n);
    }
  }
  return sets;
}

template <class T>
bool all_finite(const T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(x[i])) return false;
  return true;
}

// A particle's gradient that T cannot hold becomes 0 if finite(k): it does not come from its vectors or dframes.
template <class T, size_t N, class F>
void end_overflows(int64_t count, Block (&d)[N], F&& finite) {
  double size[block] = {};
  for (const Block& b : d)
#pragma omp simd
    for (int64_t k = 0; k < block; ++k)
      size[k] += std::abs(b.E[k]) + std::abs(b.px[k]) + std::abs(b.py[k]) + std::abs(b.pz[k]);
  for (int64_t k = 0; k < count; ++k)
    if (!(size[k] <= std::numeric_limits<T>::max()) && finite(k))
      for (Block& b : d) set(b, k, {});
}

}  // namespace lightcone::kernels::cpu
