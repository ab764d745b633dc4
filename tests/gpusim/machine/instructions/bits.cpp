#include <bit>

#include "gpusim/machine/instructions/logic.h"
#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

constexpr uint32_t not_found = ~0u;

/// A shift that 32 and more bits empty.
uint32_t ones_from(uint32_t bit) { return bit < 32 ? ~0u << (bit & 31) : 0; }

template <class T>
T reversed(T x) {
  constexpr T odd[] = {T(~T{0} / 3), T(~T{0} / 5), T(~T{0} / 17)};  // 0x55…, 0x33…, 0x0f…
  for (int i = 0; i < 3; ++i) x = T((x & odd[i]) << (1 << i)) | T(x >> (1 << i) & odd[i]);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(x);
  return __builtin_bswap32(uint32_t(x));
}

/// The highest bit that differs from the sign.
template <class T>
uint32_t highest(T a) {
  using Bits = std::make_unsigned_t<T>;
  const Bits bits = a < 0 ? Bits(~a) : Bits(a);
  return bits ? 8 * sizeof(T) - 1 - std::countl_zero(bits) : not_found;
}

uint32_t nth_set(uint32_t mask, uint32_t base, int32_t offset) {
  if (base > 31) return not_found;
  if (offset == 0) return mask >> base & 1 ? base : not_found;
  const int step = offset > 0 ? 1 : -1;
  int64_t left = offset > 0 ? int64_t{offset} : -int64_t{offset};
  for (int at = int(base); at >= 0 && at < 32; at += step)
    if ((mask >> at & 1) && --left == 0) return uint32_t(at);
  return not_found;
}

}  // namespace

Choice select_bmsk(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int wrap = m.take_one_of({"clamp", "wrap"});
  if (wrap < 0 || m.next() != "b32" || !m.done()) return {};
  if (wrap) return lanewise([](uint32_t a, uint32_t b) { return ones_from(a & 31) & ~ones_from((a & 31) + (b & 31)); });
  return lanewise([](uint32_t a, uint32_t b) { return ones_from(a) & ~(b < 32 ? ones_from((a & 31) + b) : 0); });
}

Choice select_szext(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const int wrap = m.take_one_of({"clamp", "wrap"});
  const std::string_view type = m.next();
  if (wrap < 0 || !m.done()) return {};
  return with_type<uint32_t, int32_t>(type, [&]<class T>() {
    static constexpr auto extended = [](T a, uint32_t bits) {
      const uint32_t unused = (32 - bits) & 31;
      return bits == 0 ? T(0) : bits > 31 ? a : T(T(uint32_t(a) << unused) >> unused);
    };
    if (wrap) return lanewise([](T a, uint32_t b) { return extended(a, b & 31); });
    return lanewise([](T a, uint32_t b) { return extended(a, b); });
  });
}

Choice select_brev(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint32_t, uint64_t>("b", type, []<class T>() { return lanewise([](T a) { return reversed(a); }); });
}

Choice select_bfind(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const bool as_shift = m.take("shiftamt");
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_type<uint32_t, int32_t, uint64_t, int64_t>(type, [&]<class T>() {
    if (!as_shift) return lanewise([](T a) { return highest(a); });
    return lanewise([](T a) {
      const uint32_t bit = highest(a);
      return bit == not_found ? bit : uint32_t(8 * sizeof(T) - 1 - bit);
    });
  });
}

Choice select_fns(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  if (m.next() != "b32" || !m.done()) return {};
  return lanewise([](uint32_t mask, uint32_t base, int32_t offset) { return nth_set(mask, base, offset); });
}

}  // namespace gpusim
