#include "bench/jets.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace lightcone::bench {

std::vector<double> jet_offsets(int64_t jets, int64_t mean) {
  std::mt19937 generator(1);
  std::normal_distribution<double> length(mean, 0.33 * mean);
  std::vector<double> ptr{0};
  if (jets == 1) return {0, static_cast<double>(mean)};
  for (int64_t b = 0; b < jets; ++b) ptr.push_back(ptr.back() + std::max(1., std::round(length(generator))));
  return ptr;
}

Tensor momenta(Runner& run, int64_t T, DType dtype, uint64_t seed) {
  Tensor p = run.normal({T, 4}, DType::f64, seed);
  for (int64_t t = 0; t < T; ++t) {
    double* v = p.data<double>() + 4 * t;
    for (int i = 1; i < 4; ++i) v[i] *= 20;
    v[0] = std::sqrt(25 + v[1] * v[1] + v[2] * v[2] + v[3] * v[3]);
  }
  return converted(run.context(), p, dtype);
}

void naive_jet_features(const double* p, const double* jet, double* y) {
  auto pt = [](const double* v) { return std::hypot(v[1], v[2]); };
  auto phi = [](const double* v) { return std::atan2(v[2], v[1]); };
  auto eta = [&](const double* v) { return std::asinh(v[3] / pt(v)); };
  const double dphi = std::remainder(phi(p) - phi(jet), 2 * M_PI), deta = eta(jet) - eta(p);
  y[0] = (std::log(pt(p)) - 1.7) * 0.7;
  y[1] = (std::log(p[0]) - 2) * 0.7;
  y[2] = (std::log(pt(p) / pt(jet)) + 4.7) * 0.7;
  y[3] = (std::log(p[0] / jet[0]) + 4.7) * 0.7;
  y[4] = dphi;
  y[5] = deta;
  y[6] = (std::hypot(dphi, deta) - 0.2) * 4;
}

}  // namespace lightcone::bench
