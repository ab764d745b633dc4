#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gpusim {

// Which element of a matrix each lane's registers hold, for mma and for wmma (load, store, mma). For mma the ISA says
// it. For wmma it is left open; here a fragment consists of mma's fragments of 16 (or 8) rows and 8 columns one after
// another:
//
// - A lane is `group` = lane / 4 and `member` = lane % 4. A register has `per_register` elements, side by side in k.
// - A, m×k: tiles of 16 rows (8 where m is 8). Within a tile, registers go down by 8 rows, then on by 4 registers'
// elements in
//   k; the group is the row, the member the place in k.
// - B, k×n: tiles of 8 columns. Registers go on in k; the group is the column.
// - C and D, m×n: tiles of 16 (8) rows and 8 columns, along columns first. An element pair is two neighbouring columns
// of
//   the member's; the next pair 8 rows below.
//
// wmma's f16 A and B have eight registers whatever the shape; those beyond a matrix's elements hold them once more.

enum class Matrix : uint8_t { a, b, c };

struct Place {
  int row = 0, column = 0;
};

struct Fragment {
  Matrix matrix = Matrix::a;
  int m = 0, n = 0, k = 0;
  int bits = 0;       ///< of an element
  int registers = 0;  ///< of a lane; of 4 bytes, or 8 for f64

  int per_register() const { return std::max(1, 32 / bits); }
  int rows() const { return matrix == Matrix::b ? k : m; }
  int columns() const { return matrix == Matrix::a ? k : n; }
  /// Registers that hold each element once.
  int distinct_registers() const { return rows() * columns() / (32 * per_register()); }

  Place place(int lane, int reg, int element) const {
    const int group = lane / 4, member = lane % 4, per = per_register(), tall = m == 8 ? 1 : 2;
    const int r = reg % distinct_registers();
    if (matrix == Matrix::a) {
      const int per_tile = tall * k / (4 * per), in_tile = r % per_tile;
      return {r / per_tile * 16 + in_tile % tall * 8 + group, in_tile / tall * 4 * per + member * per + element};
    }
    if (matrix == Matrix::b) {
      const int per_tile = k / (4 * per);
      return {r % per_tile * 4 * per + member * per + element, r / per_tile * 8 + group};
    }
    const int i = r * per + element, tile = i / (2 * tall), in_tile = i % (2 * tall);
    return {tile / (n / 8) * 16 + in_tile / 2 * 8 + group, tile % (n / 8) * 8 + member * 2 + in_tile % 2};
  }
};

/// The fragment of wmma's matrix of a shape ("m16n16k16") and element type ("f16"); nothing for what wmma does not
/// have. A load or store of C and D gives its own element type.
inline std::optional<Fragment> wmma_fragment(Matrix matrix, std::string_view shape, std::string_view type) {
  struct Shape {
    std::string_view name;
    int m, n, k;
  };
  static constexpr Shape shapes[] = {{"m16n16k16", 16, 16, 16}, {"m8n32k16", 8, 32, 16}, {"m32n8k16", 32, 8, 16},
                                     {"m16n16k8", 16, 16, 8},   {"m8n8k4", 8, 8, 4},     {"m8n8k32", 8, 8, 32},
                                     {"m8n8k128", 8, 8, 128}};
  const auto one_of = [](std::string_view x, auto... names) { return ((x == names) || ...); };
  const Shape* found =
      std::find_if(std::begin(shapes), std::end(shapes), [&](const Shape& s) { return s.name == shape; });
  if (found == std::end(shapes)) return {};
  const bool k16 = found->k == 16;
  int bits = 0;
  if (matrix == Matrix::c) {
    if (type == "f16" && k16) bits = 16;
    if (type == "f32" && (k16 || found->k == 8)) bits = 32;
    if (type == "s32" && (k16 || found->k >= 32)) bits = 32;
    if (type == "f64" && found->k == 4) bits = 64;
  } else {
    if (one_of(type, "f16", "bf16") && k16) bits = 16;
    if (one_of(type, "s8", "u8") && k16) bits = 8;
    if (one_of(type, "s4", "u4") && found->k == 32) bits = 4;
    if (type == "b1" && found->k == 128) bits = 1;
    if (type == "tf32" && found->k == 8) bits = 32;
    if (type == "f64" && found->k == 4) bits = 64;
  }
  if (bits == 0) return {};
  Fragment fragment{matrix, found->m, found->n, found->k, bits, 0};
  fragment.registers = type == "f16" && matrix != Matrix::c ? 8 : fragment.distinct_registers();
  return fragment;
}

}  // namespace gpusim
