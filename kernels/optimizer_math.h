#pragma once
#include <cmath>

#include "kernels/optimizer.h"

/// The updates of optimizer.h for one element, on either device. Products and sums must round one by one, as in the
/// references: who includes this compiles it without contraction, and both devices then give the same bits.
namespace lightcone::kernels {

namespace optim {

inline double power(double beta, int64_t t) { return std::pow(beta, static_cast<double>(t)); }

/// r sqrt(1 - b2^t) of the radam rule, or 0 where it is not rectified: `least` is the least rho that is.
inline double rectification(double beta2, int64_t t, double least) {
  const double decay = power(beta2, t), rho_inf = 2 / (1 - beta2) - 1;
  const double rho = rho_inf - 2 * static_cast<double>(t) * decay / (1 - decay);
  if (!(rho >= least)) return 0;
  return std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) * std::sqrt(1 - decay);
}

// One rule each: the scalars of a parameter's step in S, the type of the arithmetic; operator() updates one element.

template <class S>
struct Averages {
  S keep1, take1, keep2, take2;
  Averages() = default;
  explicit Averages(const UpdateOptions& o)
      : keep1(S(o.beta1)), take1(S(1 - o.beta1)), keep2(S(o.beta2)), take2(S(1 - o.beta2)) {}
  LIGHTCONE_HOST_DEVICE void operator()(S g, S& m, S& v) const {
    m = keep1 * m + take1 * g;
    v = keep2 * v + take2 * g * g;
  }
};

template <class S>
struct Adam {
  using State = S;
  Averages<S> averages;
  S shrink, coupled, rate, root, eps;
  Adam() = default;
  Adam(const ParameterStep& s, const UpdateOptions& o, bool decoupled)
      : averages(o),
        shrink(S(decoupled ? 1 - s.lr * s.weight_decay : 1)),
        coupled(S(decoupled ? 0 : s.weight_decay)),
        rate(S(s.lr / (1 - power(o.beta1, s.t)))),
        root(S(std::sqrt(1 - power(o.beta2, s.t)))),
        eps(S(o.eps)) {}
  LIGHTCONE_HOST_DEVICE void operator()(S& p, S g, S& m, S& v) const {
    p *= shrink;
    averages(g + coupled * p, m, v);
    p -= rate * m / (std::sqrt(v) / root + eps);
  }
};

template <class S>
struct RAdam {
  using State = S;
  Averages<S> averages;
  S shrink, coupled, rate, eps;
  bool rectified;
  RAdam() = default;
  RAdam(const ParameterStep& s, const UpdateOptions& o, bool ranger)
      : averages(o),
        shrink(S(ranger ? s.lr * s.weight_decay : 0)),
        coupled(S(ranger ? 0 : s.weight_decay)),
        eps(S(o.eps)) {
    const double r = rectification(o.beta2, s.t, ranger ? 5. : std::nextafter(5., 6.));
    rectified = r > 0;
    rate = S(s.lr / (1 - power(o.beta1, s.t)) * (rectified ? r : 1));
  }
  LIGHTCONE_HOST_DEVICE void operator()(S& p, S g, S& m, S& v) const {
    averages(g + coupled * p, m, v);
    p -= shrink * p;
    p -= rate * m / (rectified ? std::sqrt(v) + eps : S(1));
  }
};

template <class S>
struct Lion {
  using State = S;
  Averages<S> averages;
  S shrink, rate;
  Lion() = default;
  Lion(const ParameterStep& s, const UpdateOptions& o)
      : averages(o), shrink(S(1 - s.lr * s.weight_decay)), rate(S(s.lr)) {}
  LIGHTCONE_HOST_DEVICE void operator()(S& p, S g, S& m) const {
    const S u = averages.keep1 * m + averages.take1 * g;
    p *= shrink;
    p -= rate * (u > 0 ? S(1) : u < 0 ? S(-1) : u);  // u itself: zero, or NaN
    m = averages.keep2 * m + averages.take2 * g;
  }
};

/// f(make) for parameters of type T, where make(step) gives the rule with the scalars of that step.
template <class T, class F>
void with_rule(UpdateRule rule, const UpdateOptions& o, F&& f) {
  switch (rule) {
    case UpdateRule::adam:
      return f([&](const ParameterStep& s) { return Adam<T>(s, o, false); });
    case UpdateRule::adamw:
      return f([&](const ParameterStep& s) { return Adam<T>(s, o, true); });
    case UpdateRule::radam:
      return f([&](const ParameterStep& s) { return RAdam<T>(s, o, false); });
    case UpdateRule::lion:
      return f([&](const ParameterStep& s) { return Lion<T>(s, o); });
    case UpdateRule::ranger:
      return f([&](const ParameterStep& s) { return RAdam<float>(s, o, true); });
  }
}

template <class T>
struct Lookahead {
  T keep, take;
  Lookahead() = default;
  explicit Lookahead(double alpha) : keep(T(alpha)), take(T(1 - alpha)) {}
  LIGHTCONE_HOST_DEVICE void operator()(T& p, T& slow) const { slow = p = keep * p + take * slow; }
};

template <class T>
struct Ema {
  T take;
  Ema() = default;
  explicit Ema(double decay) : take(T(1 - decay)) {}
  LIGHTCONE_HOST_DEVICE void operator()(const T& p, T& shadow) const { shadow -= take * (shadow - p); }
};

template <class T>
struct ClipByValue {
  T high;
  ClipByValue() = default;
  explicit ClipByValue(double limit) : high(T(limit)) {}
  LIGHTCONE_HOST_DEVICE void operator()(T& g) const { g = g > high ? high : g < -high ? -high : g; }
};

/// What clip_by_norm multiplies by if it is not at least 1, which NaN is not.
LIGHTCONE_HOST_DEVICE inline double clip_factor(double max_norm, double norm) { return max_norm / (norm + 1e-6); }

}  // namespace optim

}  // namespace lightcone::kernels
