#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "gpusim/machine/block.h"
#include "gpusim/machine/instructions/half.h"

namespace gpusim {

namespace {

template <class T>
T apply_integer(AtomicOp op, T old, T b, T c) {
  using U = std::make_unsigned_t<T>;
  switch (op) {
    case AtomicOp::add:
      return static_cast<T>(static_cast<U>(old) + static_cast<U>(b));
    case AtomicOp::min:
      return std::min(old, b);
    case AtomicOp::max:
      return std::max(old, b);
    case AtomicOp::and_:
      return old & b;
    case AtomicOp::or_:
      return old | b;
    case AtomicOp::xor_:
      return old ^ b;
    case AtomicOp::exch:
      return b;
    case AtomicOp::cas:
      return old == b ? c : old;
    case AtomicOp::inc:
      return old >= b ? T{0} : static_cast<T>(old + 1);
    case AtomicOp::dec:
      return old == 0 || old > b ? b : static_cast<T>(old - 1);
  }
  return old;
}

// Floating-point numbers are added only, but for min and max of halves, where a NaN gives way.
template <class F>
F apply_float(AtomicOp op, F old, F b) {
  switch (op) {
    case AtomicOp::min:
      return old != old || b < old ? b : old;
    case AtomicOp::max:
      return old != old || b > old ? b : old;
    default:
      return old + b;
  }
}

/// new bits = f(old bits), at once for all threads of this process; answers the old ones.
template <class U, class F>
U exchange(std::byte* at, F&& f) {
  std::atomic_ref<U> cell(*reinterpret_cast<U*>(at));
  U old = cell.load();
  while (!cell.compare_exchange_weak(old, f(old))) {
  }
  return old;
}

template <class T>
uint64_t integer(const Step& s, std::byte* at, uint64_t b, uint64_t c) {
  using U = std::make_unsigned_t<T>;
  return exchange<U>(at, [&](U old) {
    return static_cast<U>(apply_integer<T>(s.atomic, static_cast<T>(old), static_cast<T>(b), static_cast<T>(c)));
  });
}

uint16_t half(AtomicOp op, bool is_bf16, uint16_t old, uint16_t b) {
  if (is_bf16) return float_to_bf16(apply_float(op, bf16_to_float(old), bf16_to_float(b)));
  return float_to_f16(apply_float(op, f16_to_float(old), f16_to_float(b)));
}

uint64_t update(const Step& s, std::byte* at, uint64_t b, uint64_t c) {
  const bool as_bits = s.atomic == AtomicOp::exch || s.atomic == AtomicOp::cas;
  if (s.is_float && !as_bits) {
    if (s.type == "f32")
      return exchange<uint32_t>(at, [&](uint32_t old) {
        return std::bit_cast<uint32_t>(
            apply_float(s.atomic, std::bit_cast<float>(old), std::bit_cast<float>(static_cast<uint32_t>(b))));
      });
    if (s.type == "f64")
      return exchange<uint64_t>(at, [&](uint64_t old) {
        return std::bit_cast<uint64_t>(apply_float(s.atomic, std::bit_cast<double>(old), std::bit_cast<double>(b)));
      });
    const bool is_bf16 = s.type.starts_with("bf16");
    if (s.bytes == 2)
      return exchange<uint16_t>(at,
                                [&](uint16_t old) { return half(s.atomic, is_bf16, old, static_cast<uint16_t>(b)); });
    return exchange<uint32_t>(at, [&](uint32_t old) {
      const uint32_t low = half(s.atomic, is_bf16, static_cast<uint16_t>(old), static_cast<uint16_t>(b));
      const uint32_t high = half(s.atomic, is_bf16, static_cast<uint16_t>(old >> 16), static_cast<uint16_t>(b >> 16));
      return low | high << 16;
    });
  }
  switch (s.bytes) {
    case 2:
      return integer<uint16_t>(s, at, b, c);
    case 4:
      return s.is_signed ? integer<int32_t>(s, at, b, c) : integer<uint32_t>(s, at, b, c);
    default:
      return s.is_signed ? integer<int64_t>(s, at, b, c) : integer<uint64_t>(s, at, b, c);
  }
}

}  // namespace

void Block::atomic(Warp& w, const Step& s, uint32_t lanes) {
  uint64_t address[warp_size];
  std::byte* at[warp_size];
  addresses(w, s.base, s.base_bytes, s.offset, address);
  if (!locate(w, s, lanes, s.space, address, s.bytes, Touch::atomic, nullptr, at)) return;
  polls_ += s.space != ptx::Space::shared && s.op.x[0] != no_slot;
  const bool hands = kernel_.hands_over && s.space != ptx::Space::shared;
  if (hands && s.releases) fence(w, s);
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    auto operand = [&](size_t k) {
      uint64_t bits = 0;
      if (k < s.op.x.size() && s.op.x[k] != no_slot)
        std::memcpy(&bits, w.lanes.registers + s.op.x[k] + l * s.bytes, s.bytes);
      return bits;
    };
    if (hands) hand_over(w, address[l]);
    const uint64_t old = update(s, at[l], operand(1), operand(2));
    if (hands) {
      std::lock_guard lock(running_.handed_mutex);
      take_over(w, address[l], s.acquires);
    }
    if (s.op.x[0] != no_slot) std::memcpy(w.lanes.registers + s.op.x[0] + l * s.bytes, &old, s.bytes);
  }
}

}  // namespace gpusim
