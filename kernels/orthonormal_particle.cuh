#pragma once
#include "kernels/four_vectors.cuh"
#include "kernels/orthonormal.h"
#include "kernels/orthonormal_math.h"

// A particle's vectors in and out of memory, and the regularisation of degenerate ones: what orthonormal_block.h is on
// the CPU. For orthonormal.cu alone.
namespace lightcone::kernels::cuda::orthonormal {
using namespace orthonormal_math;

using cuda::load;
template <class T>
__device__ void store(const Vec4& v, bool words, T* y) {
  cuda::store({v.t, v.x, v.y, v.z}, words, y);
}
__device__ inline Vec4 vec4(const double* x) { return {x[0], x[1], x[2], x[3]}; }
__device__ inline Vec3 vec3(const double* x) { return {x[0], x[1], x[2]}; }

/// Where degenerate sets begin, and what they get.
struct Regularisation {
  double eps_norm, eps_lightlike, eps_dependent;
  Numbers lightlike, dependent;
  bool shared;
  __device__ int64_t row(int64_t t) const { return shared ? 0 : t; }
};

/// x[place] += change, for an array in registers, where no index can point at.
template <int N>
__device__ void add_at(double (&x)[N], int place, double change) {
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (k == place) x[k] += change;
}
template <int N>
__device__ void add_noise(double (&x)[N], double eps, const Numbers& noise, int64_t first) {
#pragma unroll 1
  for (int k = 0; k < N; ++k) add_at(x, k, eps * noise.normal(first + k));
}

/// N / 4 vectors of particle t; whether one of them is light-like.
template <int N>
__device__ bool regularise_lightlike(const Regularisation& by, int64_t t, double (&x)[N]) {
  unsigned found = 0;
#pragma unroll
  for (int j = 0; j < N / 4; ++j)
    if (std::abs(inner(vec4(x + 4 * j), vec4(x + 4 * j))) < by.eps_lightlike) found |= 1u << j;
  if (!found) return false;
#pragma unroll 1
  for (int j = 0; j < N / 4; ++j) {
    if (!(found >> j & 1)) continue;
    double squares = 0;
#pragma unroll 1
    for (int i = 1; i < 4; ++i) {
      const double n = std::abs(by.lightlike.normal(by.row(t) * N + 4 * j + i));
      squares += n * n;
      add_at(x, 4 * j + i, by.eps_lightlike * n);
    }
    add_at(x, 4 * j, by.eps_lightlike * std::sqrt(2 * squares));
  }
  return true;
}
/// Whether the three vectors are coplanar.
__device__ inline bool regularise_coplanar(const Regularisation& by, int64_t t, double (&x)[12]) {
  const Vec4 c = cross(vec4(x), vec4(x + 4), vec4(x + 8));
  if (!(std::abs(inner(c, c)) < by.eps_dependent)) return false;
  add_noise(x, by.eps_dependent, by.dependent, by.row(t) * 12);
  return true;
}
/// Both references in the boost's rest frame; whether they are collinear there.
__device__ inline bool rest_references(const Regularisation& by, int64_t t, const Boost& boost,
                                       const double (&references)[8], double (&rest)[6]) {
  const Vec3 r0 = boost.spatial(vec4(references)), r1 = boost.spatial(vec4(references + 4)), c = cross(r0, r1);
  rest[0] = r0.x, rest[1] = r0.y, rest[2] = r0.z, rest[3] = r1.x, rest[4] = r1.y, rest[5] = r1.z;
  if (!(dot(c, c) < by.eps_dependent)) return false;
  add_noise(rest, by.eps_dependent, by.dependent, by.row(t) * 6);
  return true;
}

/// The numbers of a FrameNoise, for kernels that are launched while this lives.
class Regulariser {
 public:
  Regulariser(Context& ctx, const Orthonormalisation& how, const FrameNoise& noise)
      : how_(how), lightlike_(ctx, noise.lightlike), dependent_(ctx, noise.dependent), shared_(noise.shared) {}
  operator Regularisation() const {
    return {how_.eps_norm, how_.eps_lightlike, how_.eps_dependent, lightlike_, dependent_, shared_};
  }

 private:
  Orthonormalisation how_;
  DrawnNumbers lightlike_, dependent_;
  bool shared_;
};

}  // namespace lightcone::kernels::cuda::orthonormal
