#include "gpusim/machine/instructions/conversion.h"

#include <limits>
#include <utility>

#include "gpusim/machine/instructions/narrow.h"

// cvt between two numbers. Every pair of types has a handler of its own; modifiers and register widths are looked at
// once per warp, outside the loops over lanes.

namespace gpusim {
namespace {

struct F16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

template <class T>
inline constexpr bool is_half = std::is_same_v<T, F16> || std::is_same_v<T, Bf16>;
template <class T>
inline constexpr bool is_float = std::is_floating_point_v<T> || is_half<T>;

/// A register's lanes as T; `buffer` holds them where the register is wider.
template <class T>
const T* read_lanes(const Lanes& w, Slot slot, uint8_t bytes, T* buffer) {
  if (bytes == sizeof(T)) return w.of<T>(slot);
  if constexpr (!std::is_floating_point_v<T> || sizeof(T) == 4) {
    const auto cut = [&](const auto* lanes) {
      using Bits = std::conditional_t<sizeof(T) == 1, uint8_t, std::conditional_t<sizeof(T) == 2, uint16_t, BitsOf<T>>>;
      for (int l = 0; l < warp_size; ++l) buffer[l] = std::bit_cast<T>(static_cast<Bits>(lanes[l]));
    };
    if (bytes == 2)
      cut(w.of<uint16_t>(slot));
    else if (bytes == 4)
      cut(w.of<uint32_t>(slot));
    else
      cut(w.of<uint64_t>(slot));
  }
  return buffer;
}

/// Writes lanes to a register; signed integers are extended by their sign, everything else by zeros.
template <class T>
void write_lanes(const Lanes& w, Slot slot, uint8_t bytes, const T* from) {
  if (bytes == sizeof(T)) return blend(w.mask, w.of<T>(slot), from);
  if constexpr (!std::is_floating_point_v<T> || sizeof(T) == 4) {
    const auto extend = [&]<class R>(R* lanes) {
      for (int l = 0; l < warp_size; ++l) {
        R value;
        if constexpr (std::is_integral_v<T>)
          value = static_cast<R>(from[l]);
        else if constexpr (is_half<T>)
          value = from[l].bits;
        else
          value = static_cast<R>(bits_of(from[l]));
        lanes[l] = w.mask >> l & 1 ? value : lanes[l];
      }
    };
    if (bytes == 2)
      extend(w.of<uint16_t>(slot));
    else if (bytes == 4)
      extend(w.of<uint32_t>(slot));
    else
      extend(w.of<uint64_t>(slot));
  }
}

/// The number in a float type, in float if that holds it, else in double.
inline float number(F16 x) { return f16_to_float(x.bits); }
inline float number(Bf16 x) { return bf16_to_float(x.bits); }
inline float number(float x) { return x; }
inline double number(double x) { return x; }

// --- to integers ---------------------------------------------------------------------------------------------------

template <class From, class To>
To saturated(From x) {
  using Limits = std::numeric_limits<To>;
  const To low = std::cmp_less(x, Limits::min()) ? Limits::min() : static_cast<To>(x);
  return std::cmp_greater(x, Limits::max()) ? Limits::max() : low;
}

/// Out of range is the nearest number in range; NaN is zero, or the upper bit alone where one of the types is wide.
template <class From, class To>
To integer(double x) {
  using Limits = std::numeric_limits<To>;
  constexpr bool wide = std::is_same_v<From, double> || sizeof(To) == 8;
  constexpr To nan = wide ? static_cast<To>(uint64_t{1} << (8 * sizeof(To) - 1)) : To{0};
  if constexpr (sizeof(To) == 8) {
    constexpr double end = std::is_signed_v<To> ? 0x1p63 : 0x1p64, begin = std::is_signed_v<To> ? -0x1p63 : 0.0;
    const To inside = x >= begin && x < end ? static_cast<To>(x) : To{0};
    const To clamped = x >= end ? Limits::max() : (x < begin ? Limits::min() : inside);
    return x != x ? nan : clamped;
  } else {
    constexpr double low = Limits::min(), high = Limits::max();
    const double clamped = x < low ? low : (x > high ? high : x);
    const double value = x != x ? static_cast<double>(nan) : clamped;
    if constexpr (std::is_same_v<To, uint32_t>)
      return static_cast<uint32_t>(value);
    else
      return static_cast<To>(static_cast<int32_t>(value));
  }
}

template <Round round, class T>
T integral(T x) {
  switch (round) {
    case Round::zero:
      return std::trunc(x);
    case Round::down:
      return std::floor(x);
    case Round::up:
      return std::ceil(x);
    case Round::nearest:
      return std::rint(x);
    default:
      return x;
  }
}

// --- to floats -----------------------------------------------------------------------------------------------------

/// An integer as a double of rounding to odd.
template <class From>
double odd_double(From x) {
  if constexpr (sizeof(From) < 8) {
    return static_cast<double>(x);
  } else {
    const uint64_t size = x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x), lost = size & 0x7ff;
    const uint64_t cut = size >> 53 ? (size - lost) | (lost ? 0x800 : 0) : size;
    return x < 0 ? -static_cast<double>(cut) : static_cast<double>(cut);
  }
}

/// A 64-bit integer in double, in a direction.
template <Round round, class From>
double directed_double(From x) {
  const uint64_t size = x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
  const uint64_t lost = size >> 53 ? size & ((uint64_t{2} << (10 - std::countl_zero(size))) - 1) : 0;
  const bool away = lost != 0 && ((round == Round::up && x > 0) || (round == Round::down && x < 0));
  const double cut = static_cast<double>(size - lost);
  const double value = from_bits<double>(bits_of(cut) + (away ? 1 : 0));
  return x < 0 ? -value : value;
}

template <class To, Round round, class T>
To narrowed(T x) {
  if constexpr (std::is_same_v<To, F16>)
    return {to_f16<round>(std::is_same_v<T, double> ? to_odd(x) : static_cast<float>(x))};
  else if constexpr (std::is_same_v<To, Bf16>)
    return {to_bf16<round>(std::is_same_v<T, double> ? to_odd(x) : static_cast<float>(x))};
  else if constexpr (std::is_same_v<To, float> && std::is_same_v<T, double>)
    return to_f32<round>(x);
  else
    return static_cast<To>(x);
}

template <class To, Round round, class From>
To from_integer(From x) {
  if constexpr (std::is_floating_point_v<To> && round == Round::nearest)
    return static_cast<To>(x);
  else if constexpr (std::is_same_v<To, double> && sizeof(From) == 8)
    return directed_double<round>(x);
  else
    return narrowed<To, round>(odd_double(x));
}

/// What the modifiers and the type ask of a result that is rounded already.
template <class To>
void finish(To* lanes, const ConversionMode& mode) {
  if constexpr (is_half<To>) {
    const uint16_t largest = std::is_same_v<To, F16> ? 0x7bff : 0x7f7f;
    if (mode.satfinite)
      for (int l = 0; l < warp_size; ++l)
        if ((lanes[l].bits & 0x7fff) == largest + 1) --lanes[l].bits;
    if (mode.relu)  // a NaN has no sign here
      for (int l = 0; l < warp_size; ++l) lanes[l].bits = lanes[l].bits & 0x8000 ? 0 : lanes[l].bits;
    if (mode.sat)
      for (int l = 0; l < warp_size; ++l) lanes[l].bits = float_to_f16(saturate(f16_to_float(lanes[l].bits)));
  } else {
    for (int l = 0; l < warp_size; ++l) lanes[l] = canonical(lanes[l]);
    if (mode.ftz && sizeof(To) == 4)
      for (int l = 0; l < warp_size; ++l) lanes[l] = flush(lanes[l]);
    if (mode.sat)
      for (int l = 0; l < warp_size; ++l) lanes[l] = saturate(lanes[l]);
  }
}

template <class To, class From>
void convert(Lanes& w, const Op& op) {
  const ConversionMode mode = ConversionMode::of(op.immediate);
  alignas(64) From buffer[warp_size];
  alignas(64) To result[warp_size];
  const From* x = read_lanes(w, op.x[1], mode.from_bytes, buffer);
  if constexpr (!is_float<From> && !is_float<To>) {
    if (mode.sat)
      for (int l = 0; l < warp_size; ++l) result[l] = saturated<From, To>(x[l]);
    else
      for (int l = 0; l < warp_size; ++l) result[l] = static_cast<To>(x[l]);
  } else if constexpr (!is_float<From>) {
    with_rounding(mode.round, [&](auto round) {
      for (int l = 0; l < warp_size; ++l) result[l] = from_integer<To, round()>(x[l]);
    });
    finish(result, mode);
  } else {
    if constexpr (std::is_same_v<From, float>)
      if (mode.ftz) {
        for (int l = 0; l < warp_size; ++l) buffer[l] = flush(x[l]);
        x = buffer;
      }
    if constexpr (!is_float<To>) {
      with_rounding(mode.round, [&](auto round) {
        for (int l = 0; l < warp_size; ++l)
          result[l] = integer<From, To>(integral<round()>(static_cast<double>(number(x[l]))));
      });
    } else {
      // Between the same types, a rounding is one to integers.
      constexpr bool same = std::is_same_v<From, To>;
      if (same && mode.round == Round::none)
        for (int l = 0; l < warp_size; ++l) result[l] = narrowed<To, Round::nearest>(number(x[l]));
      else
        with_rounding(mode.round, [&](auto round) {
          for (int l = 0; l < warp_size; ++l) {
            const auto value = number(x[l]);
            result[l] = narrowed<To, round()>(same ? integral<round()>(value) : value);
          }
        });
      finish(result, mode);
    }
  }
  write_lanes(w, op.x[0], mode.to_bytes, result);
}

// --- selection -----------------------------------------------------------------------------------------------------

constexpr std::string_view type_names[] = {"u8",  "s8",  "u16", "s16",  "u32", "s32",
                                           "u64", "s64", "f16", "bf16", "f32", "f64"};
constexpr uint8_t type_bytes[] = {1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
enum Type : int { f16 = 8, bf16 = 9, f32 = 10, f64 = 11, none = -1 };

template <class To>
constexpr Handler from_handlers[] = {convert<To, uint8_t>,  convert<To, int8_t>,   convert<To, uint16_t>,
                                     convert<To, int16_t>,  convert<To, uint32_t>, convert<To, int32_t>,
                                     convert<To, uint64_t>, convert<To, int64_t>,  convert<To, F16>,
                                     convert<To, Bf16>,     convert<To, float>,    convert<To, double>};
constexpr const Handler* handlers[] = {from_handlers<uint8_t>,  from_handlers<int8_t>,   from_handlers<uint16_t>,
                                       from_handlers<int16_t>,  from_handlers<uint32_t>, from_handlers<int32_t>,
                                       from_handlers<uint64_t>, from_handlers<int64_t>,  from_handlers<F16>,
                                       from_handlers<Bf16>,     from_handlers<float>,    from_handlers<double>};

int type_of(std::string_view name) {
  for (int t = 0; t < 12; ++t)
    if (type_names[t] == name) return t;
  return none;
}

/// A register as wide as the type or wider; an immediate is made as wide as the type.
uint8_t register_bytes(const Shape& shape, int type) { return shape.is_register ? shape.bytes : type_bytes[type]; }

/// Whether the types want a rounding to integers (or may have one), to a float, or none.
enum class Rounding : uint8_t { none, to_integer, maybe_to_integer, to_float };
Rounding rounding(int to, int from) {
  if (to < f16) return from < f16 ? Rounding::none : Rounding::to_integer;
  if (to == from) return Rounding::maybe_to_integer;
  return from < f16 || type_bytes[from] >= type_bytes[to] ? Rounding::to_float : Rounding::none;
}

Choice select_cvt(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  ConversionMode mode;
  Round to_integer = Round::none;
  for (const auto& [name, round] : {std::pair{"rni", Round::nearest}, std::pair{"rzi", Round::zero},
                                    std::pair{"rmi", Round::down}, std::pair{"rpi", Round::up}})
    if (to_integer == Round::none && variant.take(name)) to_integer = round;
  const Round to_float = variant.take_rounding();
  mode.round = to_integer != Round::none ? to_integer : to_float;
  mode.ftz = variant.take("ftz");
  mode.sat = variant.take("sat");
  mode.relu = variant.take("relu");
  mode.satfinite = variant.take("satfinite");
  if (variant.left().size() != 2 || operands.size() != 2) return {};
  const int to = type_of(variant.left()[0]), from = type_of(variant.left()[1]);
  if (to == none || from == none) return {};
  const Rounding wanted = rounding(to, from);
  const bool has_integer = to_integer != Round::none, has_float = to_float != Round::none;
  if (has_float != (wanted == Rounding::to_float)) return {};
  if (has_integer != (wanted == Rounding::to_integer) && !(has_integer && wanted == Rounding::maybe_to_integer))
    return {};
  if (mode.ftz && to != f32 && from != f32) return {};
  if (mode.sat && (to == bf16 || from == bf16)) return {};
  if ((mode.relu || mode.satfinite) && !(from == f32 && (to == f16 || to == bf16) && !mode.sat)) return {};
  mode.to_bytes = register_bytes(operands[0], to);
  mode.from_bytes = register_bytes(operands[1], from);
  if (mode.to_bytes < type_bytes[to] || mode.from_bytes < type_bytes[from]) return {};
  if (mode.to_bytes > 8 || mode.from_bytes > 8) return {};
  return {handlers[to][from], {mode.to_bytes, mode.from_bytes}, Kind::convert, mode.packed()};
}

constexpr Family families[] = {{"cvt", select_cvt}, {"cvt", select_packed_conversion}};

}  // namespace

std::span<const Family> conversion_instructions() { return families; }

}  // namespace gpusim
