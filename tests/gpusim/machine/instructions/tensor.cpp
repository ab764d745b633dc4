#include <fmt/format.h>

#include <optional>
#include <vector>

#include "gpusim/machine/instructions/float_variant.h"
#include "gpusim/machine/instructions/tensor_formats.h"
#include "gpusim/machine/instructions/wmma_layout.h"

// mma.sync and wmma.mma. Products are exact; for floats an element of D is C's, with the products added one by one in
// order of k, each sum rounded to f32 (f64). Real machines add several at a time with fewer bits, in an order of their
// own. An f16 D is rounded once, at the end. Integers are exact until they wrap or, with .satfinite, are clamped.

namespace gpusim {
namespace {

using namespace tensor;

struct Dimensions {
  int m, n, k, bits;
  bool operator==(const Dimensions&) const = default;
};

constexpr Dimensions mma_shapes[] = {
    {16, 8, 8, 16}, {16, 8, 16, 16},                   // f16, bf16
    {16, 8, 4, 32}, {16, 8, 8, 32},                    // tf32
    {8, 8, 16, 8},  {16, 8, 16, 8},  {16, 8, 32, 8},   // integers; the latter two fp8 also
    {8, 8, 32, 4},  {16, 8, 32, 4},  {16, 8, 64, 4},   //
    {8, 8, 128, 1}, {16, 8, 128, 1}, {16, 8, 256, 1},  // single bits
    {8, 8, 4, 64},  {16, 8, 4, 64},  {16, 8, 8, 64},  {16, 8, 16, 64}};
constexpr Dimensions wmma_shapes[] = {{16, 16, 16, 16}, {8, 32, 16, 16}, {32, 8, 16, 16}, {16, 16, 16, 8},
                                      {8, 32, 16, 8},   {32, 8, 16, 8},  {16, 16, 8, 32}, {8, 8, 4, 64},
                                      {8, 8, 32, 4},    {8, 8, 128, 1}};
constexpr size_t most_elements = 16 * 256, most_results = 16 * 16;

/// A matrix's fragment, with the index (row by row) of every element: by register, element in it, and lane.
struct Map {
  Fragment fragment;
  std::vector<uint16_t> index;

  explicit Map(Fragment f) : fragment(f) {
    fragment.registers = fragment.distinct_registers();
    for (int r = 0; r < fragment.registers; ++r)
      for (int e = 0; e < fragment.per_register(); ++e)
        for (int l = 0; l < warp_size; ++l) {
          const Place place = fragment.place(l, r, e);
          index.push_back(static_cast<uint16_t>(place.row * fragment.columns() + place.column));
        }
  }
};

struct Plan {
  Dimensions shape;
  Map a, b, c;  ///< c for 32 bits; with 16 its elements come in the same order, two to a register

  explicit Plan(const Dimensions& s)
      : shape(s),
        a({Matrix::a, s.m, s.n, s.k, s.bits, 0}),
        b({Matrix::b, s.m, s.n, s.k, s.bits, 0}),
        c({Matrix::c, s.m, s.n, s.k, 32, 0}) {}
};

const std::vector<Plan>& plans() {
  static const std::vector<Plan> all = [] {
    std::vector<Plan> list;
    for (const Dimensions& shape : mma_shapes) list.emplace_back(shape);
    for (const Dimensions& shape : wmma_shapes) list.emplace_back(shape);
    return list;
  }();
  return all;
}

/// What Op::immediate holds.
struct Setting {
  uint32_t plan = 0;
  uint32_t copies_a = 1, copies_b = 1;  ///< how often wmma's registers repeat the elements
  bool satfinite = false;

  int32_t packed() const {
    return static_cast<int32_t>(plan | copies_a << 8 | copies_b << 12 | (satfinite ? 1u : 0u) << 16);
  }
  static Setting of(int32_t x) {
    const auto bits = static_cast<uint32_t>(x);
    return {bits & 255, bits >> 8 & 15, bits >> 12 & 15, (bits >> 16 & 1) != 0};
  }
};

/// The matrix that registers hold, row by row.
template <class Format, class T = typename Format::Value>
[[gnu::flatten]] void gather(const Lanes& w, const Slot* slots, const Map& map, T* matrix) {
  using Word = std::conditional_t<Format::bits == 64, double, uint32_t>;
  const uint16_t* index = map.index.data();
  for (int r = 0; r < map.fragment.registers; ++r) {
    const Word* words = w.of<Word>(slots[r]);
    for (int e = 0; e < std::max(1, 32 / Format::bits); ++e, index += warp_size) {
      alignas(64) T values[warp_size];
      for (int l = 0; l < warp_size; ++l) values[l] = Format::value(words[l], e);
      for (int l = 0; l < warp_size; ++l) matrix[index[l]] = values[l];
    }
  }
}

/// C, and where D goes.
template <class T, class Register>
void gather_c(const Lanes& w, const Slot* slots, const Map& map, T* matrix) {
  const size_t per_register = std::is_same_v<Register, F16> ? 2 : 1;
  for (size_t i = 0; i < map.index.size() / warp_size; ++i)
    for (int l = 0; l < warp_size; ++l) {
      T& to = matrix[map.index[i * warp_size + l]];
      if constexpr (std::is_same_v<Register, F16>)
        to = F16::value(w.of<uint32_t>(slots[i / per_register])[l], static_cast<int>(i % per_register));
      else
        to = w.of<Register>(slots[i])[l];
    }
}
template <class T, class Register>
void scatter_d(const Lanes& w, const Slot* slots, const Map& map, const T* matrix) {
  for (size_t i = 0; i < map.index.size() / warp_size; ++i)
    for (int l = 0; l < warp_size; ++l) {
      const T value = matrix[map.index[i * warp_size + l]];
      if constexpr (std::is_same_v<Register, F16>) {
        uint32_t& word = w.of<uint32_t>(slots[i / 2])[l];
        const uint32_t half = float_to_f16(value);
        word = i % 2 == 0 ? half : (word & 0xffff) | half << 16;
      } else if constexpr (std::is_same_v<Register, float>) {
        w.of<float>(slots[i])[l] = canonical(value);
      } else {
        w.of<Register>(slots[i])[l] = value;
      }
    }
}

struct MultiplyAdd {
  float operator()(float a, float b, float sum) const { return std::fma(a, b, sum); }
  double operator()(double a, double b, double sum) const { return std::fma(a, b, sum); }
  int32_t operator()(int32_t a, int32_t b, int32_t sum) const { return sum + a * b; }
};
struct XorPopulation {
  int32_t operator()(int32_t a, int32_t b, int32_t sum) const { return sum + (a ^ b); }
};

/// c = c + a·b, eight columns at a time.
template <class Combine, class T>
void multiply(const Dimensions& s, const T* __restrict a, const T* __restrict b, T* __restrict c) {
  constexpr int together = 8;
  for (int row = 0; row < s.m; ++row)
    for (int column = 0; column < s.n; column += together) {
      T sums[together];
      for (int j = 0; j < together; ++j) sums[j] = c[row * s.n + column + j];
      for (int k = 0; k < s.k; ++k)
        for (int j = 0; j < together; ++j) sums[j] = Combine()(a[row * s.k + k], b[k * s.n + column + j], sums[j]);
      for (int j = 0; j < together; ++j) c[row * s.n + column + j] = sums[j];
    }
}

/// D = A·B + C. `C` and `D`: float, double, int32_t or F16.
template <class A, class B, class C, class D, class Combine = MultiplyAdd>
void multiply_matrices(Lanes& w, const Op& op) {
  if (w.mask != all_lanes) {
    w.fault = "a tensor instruction needs all 32 lanes of the warp";
    return;
  }
  using T = typename A::Value;
  const Setting setting = Setting::of(op.immediate);
  const Plan& plan = plans()[setting.plan];
  const int per_d = std::is_same_v<D, F16> ? 2 : 1;
  const Slot* d_slots = op.operands;
  const Slot* a_slots = d_slots + plan.c.fragment.registers / per_d;
  const Slot* b_slots = a_slots + plan.a.fragment.registers * setting.copies_a;
  const Slot* c_slots = b_slots + plan.b.fragment.registers * setting.copies_b;
  alignas(64) T a[most_elements], b[most_elements], sums[most_results];
  gather<A>(w, a_slots, plan.a, a);
  gather<B>(w, b_slots, plan.b, b);
  if constexpr (std::is_same_v<T, int32_t>) {
    alignas(64) int32_t c[most_results];
    gather_c<T, C>(w, c_slots, plan.c, c);
    std::fill(std::begin(sums), std::end(sums), 0);
    multiply<Combine>(plan.shape, a, b, sums);
    for (size_t i = 0; i < most_results && i < plan.c.index.size(); ++i) {
      const int64_t sum = int64_t{c[i]} + sums[i];
      const int64_t clamped =
          std::clamp<int64_t>(sum, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max());
      sums[i] = static_cast<int32_t>(setting.satfinite ? clamped : sum);
    }
  } else {
    gather_c<T, C>(w, c_slots, plan.c, sums);
    multiply<Combine>(plan.shape, a, b, sums);
  }
  scatter_d<T, D>(w, d_slots, plan.c, sums);
}

// --- selection -----------------------------------------------------------------------------------------------------

/// The handler for the types of D, A, B, C, or null; and the bits of A's and B's elements.
struct Types {
  Handler run = nullptr;
  int bits = 0;
};

template <class A, class B = A>
Handler float_handler(std::string_view d, std::string_view c) {
  if (d == "f32" && c == "f32") return multiply_matrices<A, B, float, float>;
  if constexpr (A::bits <= 16 && !std::is_same_v<A, Bf16>)
    if (d == "f16" && c == "f16") return multiply_matrices<A, B, F16, F16>;
  if constexpr (std::is_same_v<A, F16>) {
    if (d == "f32" && c == "f16") return multiply_matrices<A, B, F16, float>;
    if (d == "f16" && c == "f32") return multiply_matrices<A, B, float, F16>;
  }
  return nullptr;
}

template <int bits>
Handler integer_handler(bool a_signed, bool b_signed) {
  using S = Integer<bits, true>;
  using U = Integer<bits, false>;
  if (a_signed) return b_signed ? multiply_matrices<S, S, int32_t, int32_t> : multiply_matrices<S, U, int32_t, int32_t>;
  return b_signed ? multiply_matrices<U, S, int32_t, int32_t> : multiply_matrices<U, U, int32_t, int32_t>;
}

Types types(std::string_view d, std::string_view a, std::string_view b, std::string_view c, bool exclusive) {
  using E4 = Fp8<E4m3>;
  using E5 = Fp8<E5m2>;
  using Bit = Integer<1, false>;
  if (a == "f16" && b == "f16") return {float_handler<F16>(d, c), 16};
  if (a == "bf16" && b == "bf16") return {float_handler<Bf16>(d, c), 16};
  if (a == "tf32" && b == "tf32") return {float_handler<Tf32>(d, c), 32};
  if (a == "e4m3" && b == "e4m3") return {float_handler<E4, E4>(d, c), 8};
  if (a == "e4m3" && b == "e5m2") return {float_handler<E4, E5>(d, c), 8};
  if (a == "e5m2" && b == "e4m3") return {float_handler<E5, E4>(d, c), 8};
  if (a == "e5m2" && b == "e5m2") return {float_handler<E5, E5>(d, c), 8};
  if (a == "f64" && b == "f64" && d == "f64" && c == "f64") return {multiply_matrices<F64, F64, double, double>, 64};
  if (d != "s32" || c != "s32") return {};
  if (a == "b1" && b == "b1")
    return {exclusive ? multiply_matrices<Bit, Bit, int32_t, int32_t, XorPopulation>
                      : multiply_matrices<Bit, Bit, int32_t, int32_t>,
            1};
  const auto is = [](std::string_view x, std::string_view s, std::string_view u) { return x == s || x == u; };
  if (is(a, "s8", "u8") && is(b, "s8", "u8")) return {integer_handler<8>(a == "s8", b == "s8"), 8};
  if (is(a, "s4", "u4") && is(b, "s4", "u4")) return {integer_handler<4>(a == "s4", b == "s4"), 4};
  return {};
}

std::optional<uint32_t> find_plan(std::string_view shape, int bits, bool wmma) {
  const size_t begin = wmma ? std::size(mma_shapes) : 0, end = wmma ? plans().size() : std::size(mma_shapes);
  for (size_t i = begin; i < end; ++i) {
    const Dimensions& s = plans()[i].shape;
    if (s.bits == bits && shape == fmt::format("m{}n{}k{}", s.m, s.n, s.k)) return static_cast<uint32_t>(i);
  }
  return {};
}

/// mma.sync.aligned.shape.row.col.types and wmma.mma.sync.aligned.layout.layout.shape.types.
Choice select_tensor(const ptx::Instruction& instruction, std::span<const Shape> operands) {
  Variant variant(instruction);
  const bool wmma = instruction.opcode == "wmma";
  if ((wmma && !variant.take("mma")) || !variant.take("sync") || !variant.take("aligned")) return {};
  Setting setting;
  setting.satfinite = variant.take("satfinite");
  const bool popc = variant.take("popc"), exclusive = variant.take("xor"), both = variant.take("and");
  const bool rounding = variant.take("rn");
  auto left = variant.left();
  if (left.size() < 5) return {};
  const std::string_view shape = left[wmma ? 2 : 0], a_layout = left[wmma ? 0 : 1], b_layout = left[wmma ? 1 : 2];
  left.erase(left.begin(), left.begin() + 3);
  if (wmma && left.size() == 2) left = {left[0], "f16", "f16", left[1]};
  if (left.size() != 4) return {};
  // The layouts are how wmma.load found the matrix; a fragment is the same for either.
  const auto is_layout = [](std::string_view x) { return x == "row" || x == "col"; };
  if (!is_layout(a_layout) || !is_layout(b_layout) || (!wmma && (a_layout != "row" || b_layout != "col"))) return {};
  const Types chosen = types(left[0], left[1], left[2], left[3], exclusive);
  if (!chosen.run || popc != (chosen.bits == 1) || exclusive + both != (popc ? 1 : 0)) return {};
  const bool is_integer = left[0] == "s32" && chosen.bits != 1;
  if ((setting.satfinite && !is_integer) || (rounding && chosen.bits != 64)) return {};
  if (!wmma && left[0] != left[3]) return {};
  const bool fp8 = left[1][0] == 'e';
  if (fp8 && (wmma || shape == "m8n8k16")) return {};
  const auto plan = find_plan(shape, chosen.bits, wmma);
  if (!plan) return {};
  setting.plan = *plan;
  const Plan& p = plans()[*plan];
  if (wmma && left[1] == "f16") {
    setting.copies_a = static_cast<uint32_t>(8 / p.a.fragment.registers);
    setting.copies_b = static_cast<uint32_t>(8 / p.b.fragment.registers);
  }
  const auto c_registers = [&](std::string_view type) { return p.c.fragment.registers / (type == "f16" ? 2 : 1); };
  const size_t count = static_cast<size_t>(c_registers(left[0]) + c_registers(left[3])) +
                       p.a.fragment.registers * setting.copies_a + p.b.fragment.registers * setting.copies_b;
  return choice(operands, chosen.run, std::vector<uint8_t>(count, chosen.bits == 64 ? 8 : 4), Kind::tensor,
                setting.packed());
}

constexpr Family families[] = {{"mma", select_tensor}, {"wmma", select_tensor}};

}  // namespace

std::span<const Family> tensor_instructions() { return families; }

}  // namespace gpusim
