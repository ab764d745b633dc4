#pragma once
#include "autograd/geometric_algebra.h"
#include "tests/support/op_case.h"

// Multivectors in tests: plain arrays [T, 16, C], components in the order of the references.
namespace lightcone::test {

/// From the references' [..., T, C, 16], and back.
inline Array channel_last(const Array& a) {
  const int64_t C = a.shape[-2], T = a.shape.numel() / (16 * C);
  Array out = zeros({T, 16, C});
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t i = 0; i < 16; ++i) out[(t * 16 + i) * C + c] = a[(t * C + c) * 16 + i];
  return out;
}

/// The sign of e_a e_b for blades as strings of generators ("013"), by sorting: +1 for e0 squared, -1 for the others.
struct NaiveBlade {
  std::string name;
  int sign;
};
inline NaiveBlade naive_product(const std::string& a, const std::string& b) {
  std::string s = a + b;
  int sign = 1;
  for (size_t pass = 0; pass < s.size(); ++pass)
    for (size_t i = 0; i + 1 < s.size(); ++i)
      if (s[i] > s[i + 1]) std::swap(s[i], s[i + 1]), sign = -sign;
  for (size_t i = 0; i + 1 < s.size();)
    if (s[i] == s[i + 1]) {
      if (s[i] != '0') sign = -sign;
      s.erase(i, 2);
      i = 0;
    } else {
      ++i;
    }
  return {s, sign};
}
inline const std::vector<std::string> blade_names = {"",   "0",  "1",  "2",   "3",   "01",  "02",  "03",
                                                     "12", "13", "23", "012", "013", "023", "123", "0123"};
inline int blade_index(const std::string& name) {
  return static_cast<int>(std::find(blade_names.begin(), blade_names.end(), name) - blade_names.begin());
}
/// <e_i, e_i>: the scalar part of (reverse of e_i) e_i.
inline int naive_metric(int i) {
  const std::string name = blade_names[i];
  return naive_product({name.rbegin(), name.rend()}, name).sign;
}

}  // namespace lightcone::test
