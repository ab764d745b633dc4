#pragma once
#include <array>
#include <limits>

#include "kernels/minkowski_math.h"

/// Orthonormalisation of one set of vectors, forward and backward: what the kernels of orthonormal.h (where the
/// definitions stand) do per particle. Branches are selects, so that loops over particles vectorise; NaN passes
/// through.
namespace lightcone::orthonormal_math {

// Functions inside of vectorised loops must be inlined, however large they are; in kernels, so that results stay in
// registers.
#ifdef __CUDACC__
#define LIGHTCONE_INLINE __host__ __device__ __forceinline__
#else
#define LIGHTCONE_INLINE [[gnu::always_inline]] inline
#endif

struct Vec3 {
  double x, y, z;
  LIGHTCONE_INLINE Vec3& operator+=(const Vec3& b) { return x += b.x, y += b.y, z += b.z, *this; }
};
struct Vec4 {
  double t, x, y, z;
  LIGHTCONE_INLINE Vec4& operator+=(const Vec4& b) { return t += b.t, x += b.x, y += b.y, z += b.z, *this; }
};
LIGHTCONE_INLINE Vec3 operator+(Vec3 a, const Vec3& b) { return a += b; }
LIGHTCONE_INLINE Vec3 operator-(const Vec3& a, const Vec3& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
LIGHTCONE_INLINE Vec3 operator*(double s, const Vec3& a) { return {s * a.x, s * a.y, s * a.z}; }
LIGHTCONE_INLINE Vec4 operator+(Vec4 a, const Vec4& b) { return a += b; }
LIGHTCONE_INLINE Vec4 operator-(const Vec4& a, const Vec4& b) { return {a.t - b.t, a.x - b.x, a.y - b.y, a.z - b.z}; }
LIGHTCONE_INLINE Vec4 operator-(const Vec4& a) { return {-a.t, -a.x, -a.y, -a.z}; }
LIGHTCONE_INLINE Vec4 operator*(double s, const Vec4& a) { return {s * a.t, s * a.x, s * a.y, s * a.z}; }

/// Euclidean sums of products, which pair a gradient with a vector.
LIGHTCONE_INLINE double dot(const Vec3& a, const Vec3& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
LIGHTCONE_INLINE double dot(const Vec4& a, const Vec4& b) { return a.t * b.t + a.x * b.x + a.y * b.y + a.z * b.z; }
LIGHTCONE_INLINE Vec3 cross(const Vec3& a, const Vec3& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

LIGHTCONE_INLINE Vec4 lowered(const Vec4& a) { return {a.t, -a.x, -a.y, -a.z}; }
/// Kernels are compiled without the contraction that the CPU's code gets, and need it here: large light-like vectors
/// then have a square of rounding errors on both devices, and not one of 0 to divide by.
LIGHTCONE_INLINE double inner(const Vec4& a, const Vec4& b) {
#ifdef __CUDA_ARCH__
  return std::fma(a.t, b.t, -std::fma(a.z, b.z, std::fma(a.y, b.y, a.x * b.x)));
#else
  return a.t * b.t - (a.x * b.x + a.y * b.y + a.z * b.z);
#endif
}

/// det(w, a, b, c) = <w, covector_cross(a, b, c)>, columns of a matrix.
LIGHTCONE_INLINE Vec4 covector_cross(const Vec4& a, const Vec4& b, const Vec4& c) {
  const double tx = b.t * c.x - b.x * c.t, ty = b.t * c.y - b.y * c.t, tz = b.t * c.z - b.z * c.t;
  const double xy = b.x * c.y - b.y * c.x, xz = b.x * c.z - b.z * c.x, yz = b.y * c.z - b.z * c.y;
  return {a.x * yz - a.y * xz + a.z * xy, -(a.t * yz - a.y * tz + a.z * ty), a.t * xz - a.x * tz + a.z * tx,
          -(a.t * xy - a.x * ty + a.y * tx)};
}
/// The vector orthogonal to a, b and c, in the Minkowski sense.
LIGHTCONE_INLINE Vec4 cross(const Vec4& a, const Vec4& b, const Vec4& c) { return lowered(covector_cross(a, b, c)); }
/// Adds to da, db and dc, given the gradient to cross(a, b, c).
LIGHTCONE_INLINE void cross_backward(const Vec4& dy, const Vec4& a, const Vec4& b, const Vec4& c, Vec4& da, Vec4& db,
                                     Vec4& dc) {
  const Vec4 w = lowered(dy);  // <dy, y> = det(w, a, b, c)
  da += -covector_cross(w, b, c);
  db += covector_cross(w, a, c);
  dc += -covector_cross(w, a, b);
}

/// y = v / (n + eps), n = sqrt|v^2|.
struct Normalised4 {
  Vec4 y;
  double scale, sign_by_n;  ///< 1 / (n + eps); sign(v^2) / n, 0 for n = 0: there n has no gradient
  LIGHTCONE_INLINE Normalised4(const Vec4& v, double eps) {
    const double square = inner(v, v), n = std::sqrt(std::abs(square));
    scale = 1 / (n + eps);
    sign_by_n = square == 0 ? 0.0 : (square < 0 ? -1 : 1) / n;
    y = scale * v;
  }
  LIGHTCONE_INLINE Vec4 backward(const Vec4& dy) const { return scale * dy - dot(dy, y) * sign_by_n * lowered(y); }
};

/// y = v / max(|v|, eps).
struct Normalised3 {
  Vec3 y;
  double scale, moving;  ///< moving: 1, or 0 where the bound is the length and has no gradient
  LIGHTCONE_INLINE Normalised3(const Vec3& v, double eps) {
    const double length = std::sqrt(dot(v, v));
    moving = length < eps ? 0.0 : 1.0;
    scale = 1 / (length < eps ? eps : length);
    y = scale * v;
  }
  LIGHTCONE_INLINE Vec3 backward(const Vec3& dy) const { return scale * (dy - moving * dot(dy, y) * y); }
};

/// v without its part along e, d = <e, e>: twice, as the first time leaves rounding errors of what cancels, which count
/// where v is nearly parallel to e (vectors of a fresh network are).
LIGHTCONE_INLINE Vec4 without(Vec4 v, const Vec4& e, double d) {
  v = v - inner(v, e) / d * e;
  return v - inner(v, e) / d * e;
}

/// Four orthonormal vectors e0 ... e3 from three by the method of Gram and Schmidt.
struct GramSchmidt4 {
  Normalised4 n0, n1, n2;
  double d0, c01, c02;  ///< e0^2 + eps; the parts of the second and the third vector along e0
  Normalised4 n_e1;
  double d1, c12;
  Normalised4 n_e2;

  LIGHTCONE_INLINE GramSchmidt4(const Vec4& v0, const Vec4& v1, const Vec4& v2, double eps)
      : n0(v0, eps),
        n1(v1, eps),
        n2(v2, eps),
        d0(inner(n0.y, n0.y) + eps),
        c01(inner(n1.y, n0.y) / d0),
        c02(inner(n2.y, n0.y) / d0),
        n_e1(without(n1.y, n0.y, d0), eps),
        d1(inner(n_e1.y, n_e1.y) + eps),
        c12(inner(n2.y, n_e1.y) / d1),
        n_e2(without(without(without(n2.y, n0.y, d0), n_e1.y, d1), n0.y, d0), eps) {}
  LIGHTCONE_INLINE const Vec4& e0() const { return n0.y; }
  LIGHTCONE_INLINE const Vec4& e1() const { return n_e1.y; }
  LIGHTCONE_INLINE const Vec4& e2() const { return n_e2.y; }
  LIGHTCONE_INLINE Vec4 e3() const { return cross(n0.y, n_e1.y, n_e2.y); }

  LIGHTCONE_INLINE void backward(Vec4 de0, Vec4 de1, Vec4 de2, const Vec4& de3, Vec4& dv0, Vec4& dv1, Vec4& dv2) const {
    cross_backward(de3, e0(), e1(), e2(), de0, de1, de2);
    const Vec4 du2 = n_e2.backward(de2);
    const double dc12 = -dot(du2, e1()) / d1, dc02 = -dot(du2, e0()) / d0;  // to the numerators of c12 and c02
    de1 += -c12 * du2 + dc12 * lowered(n2.y) - 2 * dc12 * c12 * lowered(e1());
    const Vec4 du1 = n_e1.backward(de1);
    const double dc01 = -dot(du1, e0()) / d0;
    const Vec4 dn1 = du1 + dc01 * lowered(e0()), dn2 = du2 + dc02 * lowered(e0()) + dc12 * lowered(e1());
    de0 += -c02 * du2 - c01 * du1 + lowered(dc01 * n1.y + dc02 * n2.y - 2 * (dc01 * c01 + dc02 * c02) * e0());
    dv0 = n0.backward(de0), dv1 = n1.backward(dn1), dv2 = n2.backward(dn2);
  }
};

/// The same by cross products alone. They do not change with what their arguments have in common, which is left out, as
/// it would cancel.
struct Cross4 {
  Normalised4 n0, n1, n2;
  Vec4 u1, u2;  ///< the second and the third vector, orthogonal to e0
  Normalised4 n_e1, n_e2, n_e3;

  LIGHTCONE_INLINE Cross4(const Vec4& v0, const Vec4& v1, const Vec4& v2, double eps)
      : n0(v0, eps),
        n1(v1, eps),
        n2(v2, eps),
        u1(without(n1.y, n0.y, inner(n0.y, n0.y) + eps)),
        u2(without(n2.y, n0.y, inner(n0.y, n0.y) + eps)),
        n_e1(cross(n0.y, u1, without_direction(u2, u1, eps)), eps),
        n_e2(cross(n0.y, n_e1.y, u2), eps),
        n_e3(cross(n0.y, n_e1.y, n_e2.y), eps) {}
  LIGHTCONE_INLINE const Vec4& e0() const { return n0.y; }
  LIGHTCONE_INLINE const Vec4& e1() const { return n_e1.y; }
  LIGHTCONE_INLINE const Vec4& e2() const { return n_e2.y; }
  LIGHTCONE_INLINE const Vec4& e3() const { return n_e3.y; }
  LIGHTCONE_INLINE static Vec4 without_direction(const Vec4& v, const Vec4& u, double eps) {
    const Vec4 e = Normalised4(u, eps).y;
    return without(v, e, inner(e, e) + eps);
  }

  LIGHTCONE_INLINE void backward(Vec4 de0, Vec4 de1, Vec4 de2, const Vec4& de3, Vec4& dv0, Vec4& dv1, Vec4& dv2) const {
    Vec4 dn1{}, dn2{};
    cross_backward(n_e3.backward(de3), e0(), e1(), e2(), de0, de1, de2);
    cross_backward(n_e2.backward(de2), e0(), e1(), n2.y, de0, de1, dn2);
    cross_backward(n_e1.backward(de1), e0(), n1.y, n2.y, de0, dn1, dn2);
    dv0 = n0.backward(de0), dv1 = n1.backward(dn1), dv2 = n2.backward(dn2);
  }
};

/// Three orthonormal vectors from two: e0 along the first; e1 orthogonal to it, in the plane of both (Gram and Schmidt)
/// or orthogonal to the plane (cross); e2 = e0 x e1.
template <bool by_cross>
struct Orthonormal3 {
  Normalised3 n0, n1;
  double along;
  Normalised3 n_e1;

  LIGHTCONE_INLINE Orthonormal3(const Vec3& v0, const Vec3& v1, double eps)
      : n0(v0, eps), n1(v1, eps), along(dot(n1.y, n0.y)), n_e1(by_cross ? cross(n0.y, apart()) : apart(), eps) {}
  /// The second without its part along the first; twice, as above.
  LIGHTCONE_INLINE Vec3 apart() const {
    const Vec3 u = n1.y - along * n0.y;
    return u - dot(u, n0.y) * n0.y;
  }
  LIGHTCONE_INLINE const Vec3& e0() const { return n0.y; }
  LIGHTCONE_INLINE const Vec3& e1() const { return n_e1.y; }
  LIGHTCONE_INLINE Vec3 e2() const { return cross(n0.y, n_e1.y); }

  LIGHTCONE_INLINE void backward(Vec3 de0, Vec3 de1, const Vec3& de2, Vec3& dv0, Vec3& dv1) const {
    de0 += cross(e1(), de2), de1 += cross(de2, e0());
    const Vec3 du = n_e1.backward(de1);
    if constexpr (by_cross) {
      de0 += cross(n1.y, du);
      dv1 = n1.backward(cross(du, e0()));
    } else {
      const double dalong = -dot(du, e0());
      de0 += dalong * n1.y - along * du;
      dv1 = n1.backward(du + dalong * e0());
    }
    dv0 = n0.backward(de0);
  }
};

/// L = R B: B boosts into the rest frame of p; the rows of R are orthonormal vectors, made of two references there.
struct Boost {
  minkowski_math::RestFrame frame;
  Vec3 beta;
  double gamma, scale;

  LIGHTCONE_INLINE explicit Boost(const Vec4& p) : frame(std::array{p.t, p.x, p.y, p.z}.data()) {
    beta = {frame.beta[0], frame.beta[1], frame.beta[2]}, gamma = frame.gamma, scale = frame.scale;
  }
  /// The spatial part of B r = r + (scale <beta, r> - gamma E) beta.
  LIGHTCONE_INLINE Vec3 spatial(const Vec4& r) const {
    const Vec3 s{r.x, r.y, r.z};
    return s + (scale * dot(beta, s) - gamma * r.t) * beta;
  }
  LIGHTCONE_INLINE Vec4 first_row() const { return {gamma, -gamma * beta.x, -gamma * beta.y, -gamma * beta.z}; }
  /// Another row of L, that of (0, e) in R.
  LIGHTCONE_INLINE Vec4 row(const Vec3& e) const {
    const double b = dot(e, beta);
    const Vec3 s = e + scale * b * beta;
    return {-gamma * b, s.x, s.y, s.z};
  }

  /// The gradient to gamma, scale and beta, gathered from what is made of them.
  struct Gradient {
    double gamma, scale;
    Vec3 beta;
  };
  /// The first row of L, gamma (1, -beta), is the first to be read backwards.
  LIGHTCONE_INLINE Gradient first_row_backward(const Vec4& dy) const {
    const Vec3 ds{dy.x, dy.y, dy.z};
    return {dy.t - dot(ds, beta), 0, -gamma * ds};
  }
  LIGHTCONE_INLINE Vec3 row_backward(const Vec4& dy, const Vec3& e, Gradient& d) const {
    const Vec3 ds{dy.x, dy.y, dy.z};
    const double b = dot(e, beta), along = dot(ds, beta), db = scale * along - gamma * dy.t;
    d.gamma -= b * dy.t;
    d.scale += b * along;
    d.beta += scale * b * ds + db * e;
    return ds + db * beta;
  }
  LIGHTCONE_INLINE Vec4 spatial_backward(const Vec3& dy, const Vec4& r, Gradient& d) const {
    const Vec3 s{r.x, r.y, r.z};
    const double b = dot(beta, s), dfactor = dot(dy, beta);
    d.gamma -= r.t * dfactor;
    d.scale += b * dfactor;
    d.beta += (scale * b - gamma * r.t) * dy + scale * dfactor * s;
    const Vec3 ds = dy + scale * dfactor * beta;
    return {-gamma * dfactor, ds.x, ds.y, ds.z};
  }
  LIGHTCONE_INLINE Vec4 backward(const Gradient& d, double E) const {
    const double dbeta[3] = {d.beta.x, d.beta.y, d.beta.z};
    double dp[4];
    frame.backward(d.gamma, d.scale, dbeta, E, dp);
    return {dp[0], dp[1], dp[2], dp[3]};
  }
};

/// gamma = E / m, infinite without a mass.
LIGHTCONE_INLINE double lorentz_factor(const Vec4& v) {
  const double square = inner(v, v), m = std::sqrt(square < 0 ? 0.0 : square);
  return m == 0 ? std::numeric_limits<double>::infinity() : v.t / m;
}

struct FactorSums {
  double sum = 0, largest = -std::numeric_limits<double>::infinity();
  int64_t above = 0;
  LIGHTCONE_INLINE FactorSums& operator+=(const FactorSums& s) {
    sum += s.sum, above += s.above;
    if (!(s.largest <= largest) && largest == largest) largest = s.largest;  // NaN stays
    return *this;
  }
};

/// y = m c (1, speed beta / |beta|): c is gamma = E / m within its limits, speed = sqrt(1 - 1 / c^2).
template <bool soft>
struct ClampedBoost {
  double m, t, gamma, c, slope;  ///< slope: dc / dgamma
  double speed, length;          ///< length: |beta|
  bool fast, moving;             ///< speed, length are above their bounds, where they have a gradient
  Vec3 beta;

  LIGHTCONE_INLINE ClampedBoost(const Vec4& v, double gamma_max, double hardness) {
    using minkowski_math::at_least, minkowski_math::epsilon;
    m = std::sqrt(at_least(inner(v, v), 0));
    t = at_least(v.t, epsilon);
    beta = {v.x / t, v.y / t, v.z / t};
    gamma = lorentz_factor(v);
    if constexpr (soft) {
      // gamma_max - softplus(room), softplus(x) = log(1 + exp(h x)) / h, which is x for large h x.
      const double room = gamma_max - gamma, hx = hardness * room, e = vector_math::exp(hx > 20 ? 20.0 : hx);
      c = hx > 20 ? gamma : gamma_max - vector_math::log1p(e) / hardness;
      slope = hx > 20 ? 1.0 : e / (e + 1);
    } else {
      c = gamma > gamma_max ? gamma_max : gamma;
      slope = gamma > gamma_max ? 0.0 : 1.0;
    }
    slope = c < 1 ? 0.0 : slope;
    c = at_least(c, 1);
    const double speed2 = 1 - 1 / (c * c), beta2 = dot(beta, beta);
    fast = !(speed2 < epsilon), moving = !(beta2 < epsilon);
    speed = std::sqrt(at_least(speed2, epsilon)), length = std::sqrt(at_least(beta2, epsilon));
  }
  LIGHTCONE_INLINE Vec4 value() const {
    const Vec3 s = speed / length * beta;
    return m * c * Vec4{1, s.x, s.y, s.z};
  }
  /// Without a mass there is no gradient.
  LIGHTCONE_INLINE Vec4 backward(const Vec4& dy, const Vec4& v) const {
    const Vec3 ds{dy.x, dy.y, dy.z};
    const double along = dot(ds, beta) / length, change = dy.t + speed * along;
    const double dgamma = slope * m * (change + (fast ? along / (c * c * speed) : 0.0));
    const double dm = c * change - dgamma * gamma / m;
    const Vec3 dbeta = m * c * speed / length * (ds - (moving ? along / length : 0.0) * beta);
    const Vec4 by_beta = {v.t < minkowski_math::epsilon ? 0.0 : -dot(dbeta, beta) / t, dbeta.x / t, dbeta.y / t,
                          dbeta.z / t};
    const Vec4 dv = dm / m * lowered(v) + by_beta + Vec4{dgamma / m, 0, 0, 0};
    return m == 0 ? Vec4{} : dv;
  }
};

#undef LIGHTCONE_INLINE

}  // namespace lightcone::orthonormal_math
