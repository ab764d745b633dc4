#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gpusim {

inline constexpr int warp_size = 32;
inline constexpr uint32_t all_lanes = ~0u;

/// Byte offset of a register in its warp's registers. A register is an array of 32 lanes; a predicate is 32 bits, one
/// per lane. Immediates and special registers are registers that nothing writes.
using Slot = uint32_t;

/// The carry flag of add.cc, addc, …: a predicate that every warp has.
inline constexpr Slot carry_slot = 0;

/// What arithmetic sees of a warp: its registers, and the lanes that execute the instruction at hand.
struct Lanes {
  std::byte* registers = nullptr;  // aligned to 64 bytes, as every slot is
  uint32_t mask = all_lanes;       // lanes that execute: never 0, the guard is in it already
  uint32_t exited = 0;             // lanes that have ended: a member mask may name them
  // What a warp instruction found wrong with its lanes or members, in words; reported with the source line.
  const char* fault = nullptr;

  /// The 32 lanes of a register of sizeof(T) bytes.
  template <class T>
  T* of(Slot slot) const {
    return reinterpret_cast<T*>(registers + slot);
  }
  uint32_t& predicate(Slot slot) const { return *reinterpret_cast<uint32_t*>(registers + slot); }
};

/// to[l] = from[l] for the lanes in `mask`.
template <class T>
inline void blend(uint32_t mask, T* __restrict to, const T* __restrict from) {
  for (int l = 0; l < warp_size; ++l) {  // both are read before the choice: else GCC makes branches of it
    const T old = to[l], next = from[l];
    to[l] = mask & (1u << l) ? next : old;
  }
}

/// x[0][l] = f(x[1][l], x[2][l], …) for the executing lanes; the loop over lanes is the compiler's to vectorise. f runs
/// for all lanes, so it must not trap (integer division by zero). Registers are the same or apart, never overlapping in
/// part, and a lane reads its own place only: hence ivdep.
template <class R, class F, class... A>
inline void map_lanes(const Lanes& w, Slot to, F&& f, const A*... arguments) {
  R* out = w.of<R>(to);
  if (w.mask == all_lanes) {
#pragma GCC ivdep
    for (int l = 0; l < warp_size; ++l) out[l] = f(arguments[l]...);
  } else {
    alignas(64) R result[warp_size];
    for (int l = 0; l < warp_size; ++l) result[l] = f(arguments[l]...);
    blend(w.mask, out, result);
  }
}

/// The lanes where f is true, as a predicate's bits; executing lanes only.
template <class F, class... A>
inline uint32_t mask_lanes(const Lanes& w, F&& f, const A*... arguments) {
  uint32_t bits = 0;
  for (int l = 0; l < warp_size; ++l) bits |= (f(arguments[l]...) ? 1u : 0u) << l;
  return bits & w.mask;
}

/// Sets a predicate in the executing lanes.
inline void set_predicate(const Lanes& w, Slot slot, uint32_t bits) {
  uint32_t& p = w.predicate(slot);
  p = (p & ~w.mask) | (bits & w.mask);
}

}  // namespace gpusim
