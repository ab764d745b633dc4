#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/device.h"

namespace lightcone {

/// One round on a counter of four words; the key grows by philox_key_step between rounds.
LIGHTCONE_HOST_DEVICE inline void philox_round(uint32_t& c0, uint32_t& c1, uint32_t& c2, uint32_t& c3, uint32_t k0,
                                               uint32_t k1) {
  const uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
  c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
  c1 = static_cast<uint32_t>(p1);
  c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
  c3 = static_cast<uint32_t>(p0);
}
inline constexpr int philox_rounds = 10;
inline constexpr uint32_t philox_key_step0 = 0x9E3779B9u, philox_key_step1 = 0xBB67AE85u;

/// Philox4x32-10 (Salmon et al., SC11): four 32-bit words from a 64-bit key and a 128-bit counter. A number depends on
/// nothing else, so any element of any draw can be computed anywhere, in any order, on either device.
LIGHTCONE_HOST_DEVICE inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_high, uint64_t counter_low) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                               static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < philox_rounds; ++round) {
    philox_round(c[0], c[1], c[2], c[3], k0, k1);
    k0 += philox_key_step0;
    k1 += philox_key_step1;
  }
  return c;
}

/// What kernels compute the numbers of a Draw from: element i is a pure function of (key, position, i), on either
/// device. If `recorded` is not null its numbers, in the same memory, are used instead.
struct Numbers {
  uint64_t key, position;
  const double* recorded;

  /// Uniform in [0, 1) with 32 random bits; element i uses word i % 4 of counter i / 4.
  LIGHTCONE_HOST_DEVICE double uniform(int64_t i) const {
    if (recorded) return recorded[i];
    const auto w = philox(key, position, static_cast<uint64_t>(i) >> 2);
    const uint32_t even = i & 2 ? w[2] : w[0], odd = i & 2 ? w[3] : w[1];  // no index: registers of a GPU have none
    return (i & 1 ? odd : even) * 0x1p-32;
  }
  /// Uniform in [0, 1) with 53 random bits.
  LIGHTCONE_HOST_DEVICE double uniform53(int64_t i) const {
    if (recorded) return recorded[i];
    const auto w = philox(key, position, static_cast<uint64_t>(i) >> 1);
    return i & 1 ? bits53(w[2], w[3]) : bits53(w[0], w[1]);
  }
  /// Standard normal (Box-Muller); elements 2k and 2k+1 share a counter.
  LIGHTCONE_HOST_DEVICE double normal(int64_t i) const {
    if (recorded) return recorded[i];
    const auto w = philox(key, position, static_cast<uint64_t>(i) >> 1);
    const double r = std::sqrt(-2 * std::log(bits53(w[0], w[1], 0.5))), turns = bits53(w[2], w[3]);
#ifdef __CUDA_ARCH__
    // sin() has an array, in local memory, for large angles.
    return (i & 1) ? r * sinpi(2 * turns) : r * cospi(2 * turns);
#else
    const double angle = 2 * M_PI * turns;
    return (i & 1) ? r * std::sin(angle) : r * std::cos(angle);
#endif
  }

 private:
  LIGHTCONE_HOST_DEVICE static double bits53(uint32_t high, uint32_t low, double add = 0) {
    return (static_cast<double>((static_cast<uint64_t>(high) << 21) ^ (low >> 11)) + add) * 0x1p-53;
  }
};

/// One draw of random numbers. Cheap to copy; a backward that needs the same numbers again keeps the Draw, not the
/// numbers. If `recorded` is not empty its numbers are used instead (tests, comparisons with PyTorch).
struct Draw {
  uint64_t key = 0;
  uint64_t position = 0;
  std::shared_ptr<const std::vector<double>> recorded;

  /// For the CPU; on a GPU the recorded ones have to be there (kernels/device.cuh).
  Numbers numbers() const { return {key, position, recorded ? recorded->data() : nullptr}; }
  double uniform(int64_t i) const { return numbers().uniform(i); }
  double uniform53(int64_t i) const { return numbers().uniform53(i); }
  double normal(int64_t i) const { return numbers().normal(i); }
};

/// Named random streams of one seed. Everything random names its stream ("dropout", "shuffle", "init", …), so that one
/// stream's use never shifts another's numbers. The whole state is the seed and a position per stream.
class Rng {
 public:
  explicit Rng(uint64_t seed = 0) : seed_(seed) {}
  uint64_t seed() const { return seed_; }

  /// The next draw of `count` numbers from `stream`; advances its position by one. Throws Error if the stream was
  /// replaced and too few recorded numbers are left.
  Draw draw(std::string_view stream, int64_t count);

  /// From now on `stream` gives these numbers, in order, instead of generated ones: uniforms in [0, 1) where a kernel
  /// asks for uniforms, normals where it asks for normals.
  void replace(std::string_view stream, std::vector<double> numbers);
  void restore(std::string_view stream);

  /// Position per stream, for checkpoints.
  std::map<std::string, uint64_t> positions() const;
  void set_positions(const std::map<std::string, uint64_t>& positions);

 private:
  struct Stream {
    uint64_t position = 0;
    std::optional<std::vector<double>> recorded;
    size_t used = 0;
  };
  uint64_t seed_;
  std::map<std::string, Stream, std::less<>> streams_;
};

}  // namespace lightcone
