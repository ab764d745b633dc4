// ldmatrix, stmatrix, wmma.load and wmma.store, and cp.async.
#include <algorithm>
#include <bit>
#include <cstring>

#include "gpusim/machine/block.h"

namespace gpusim {

// A matrix has 8 rows of 8 halves; lanes 8m to 8m + 7 hold the addresses of the rows of matrix m. Lane l holds elements
// 2 (l % 4) and the next of row l / 4, or of column l / 4 if transposed.
void Block::load_matrix(Warp& w, const Step& s, uint32_t lanes) {
  if (s.fragment) return move_fragment(w, s, lanes);
  uint64_t address[warp_size];
  std::byte* row[warp_size];
  addresses(w, s.base, s.base_bytes, s.offset, address);
  if (lanes != all_lanes)
    return find(Finding::What::wrong_members, w, s, std::countr_zero(lanes), "all lanes of a warp have to take part",
                true);
  const uint32_t used = s.count == 4 ? all_lanes : (1u << 8 * s.count) - 1;
  if (!locate(w, s, used, s.space, address, 16, Touch::read, nullptr, row)) return;
  for (uint32_t m = 0; m < s.count; ++m) {
    uint16_t element[8][8];
    for (int r = 0; r < 8; ++r) std::memcpy(element[r], row[8 * m + r], 16);
    uint32_t* to = w.lanes.of<uint32_t>(s.op.operands[m]);
    for (int l = 0; l < warp_size; ++l) {
      const int i = l / 4, j = 2 * (l % 4);
      to[l] = s.transposed ? element[j][i] | uint32_t{element[j + 1][i]} << 16
                           : element[i][j] | uint32_t{element[i][j + 1]} << 16;
    }
  }
}

void Block::store_matrix(Warp& w, const Step& s, uint32_t lanes) {
  if (s.fragment) return move_fragment(w, s, lanes);
  uint64_t address[warp_size];
  std::byte* row[warp_size];
  addresses(w, s.base, s.base_bytes, s.offset, address);
  if (lanes != all_lanes)
    return find(Finding::What::wrong_members, w, s, std::countr_zero(lanes), "all lanes of a warp have to take part",
                true);
  alignas(16) uint16_t element[4 * 8][8];
  for (uint32_t m = 0; m < s.count; ++m) {
    const uint32_t* from = w.lanes.of<uint32_t>(s.op.operands[m]);
    for (int l = 0; l < warp_size; ++l) {
      const int i = l / 4, j = 2 * (l % 4);
      for (int k = 0; k < 2; ++k) {
        const uint16_t value = static_cast<uint16_t>(from[l] >> 16 * k);
        (s.transposed ? element[8 * m + j + k][i] : element[8 * m + i][j + k]) = value;
      }
    }
  }
  const uint32_t used = s.count == 4 ? all_lanes : (1u << 8 * s.count) - 1;
  if (!locate(w, s, used, s.space, address, 16, Touch::write, reinterpret_cast<const std::byte*>(element), row)) return;
  for (uint32_t r = 0; r < 8 * s.count; ++r) std::memcpy(row[r], element[r], 16);
}

// wmma.load and wmma.store: element by element, or a register at once where its elements are neighbours in memory.
void Block::move_fragment(Warp& w, const Step& s, uint32_t lanes) {
  if (lanes != all_lanes)
    return find(Finding::What::wrong_members, w, s, std::countr_zero(lanes), "all lanes of a warp have to take part",
                true);
  const Fragment& f = *s.fragment;
  const bool loads = s.action == Action::load_matrix;
  const uint32_t bytes = s.bytes, register_bytes = f.bits == 64 ? 8 : 4;
  uint64_t origin[warp_size];
  addresses(w, s.base, s.base_bytes, s.offset, origin);
  const int64_t stride = w.lanes.of<uint32_t>(s.source_base)[0];
  auto address_of = [&](int lane, int reg, int element) {
    const Place p = f.place(lane, reg, element);
    return origin[lane] + bytes * (s.column_major ? p.column * stride + p.row : p.row * stride + p.column);
  };
  const int registers = loads ? f.registers : f.distinct_registers();
  for (int r = 0; r < registers; ++r) {
    std::byte* const held = w.lanes.registers + s.op.operands[r];
    const bool together = f.per_register() > 1 && address_of(0, r, 1) == address_of(0, r, 0) + bytes;
    const uint32_t width = together ? register_bytes : bytes;
    for (uint32_t e = 0; e < register_bytes / width; ++e) {
      uint64_t address[warp_size];
      alignas(16) std::byte values[warp_size * 8];
      std::byte* at[warp_size];
      for (int l = 0; l < warp_size; ++l) {
        address[l] = address_of(l, r, static_cast<int>(e));
        std::memcpy(values + l * width, held + l * register_bytes + e * width, width);
      }
      if (!locate(w, s, all_lanes, s.space, address, width, loads ? Touch::read : Touch::write,
                  loads ? nullptr : values, at))
        return;
      for (int l = 0; l < warp_size; ++l) {
        if (loads)
          std::memcpy(held + l * register_bytes + e * width, at[l], width);
        else
          std::memcpy(at[l], values + l * width, width);
      }
    }
  }
}

// The source is read at once and the target written when the copy is waited for, as late as a machine may: whoever does
// not wait sees what was there before. Both count as touched at the two times.
void Block::copy_async(Warp& w, const Step& s, uint32_t lanes) {
  Warp::AsyncCopy copy;
  copy.step = &s;
  copy.mask = lanes;
  copy.group = w.copy_group;
  addresses(w, s.base, s.base_bytes, s.offset, copy.to.data());
  uint64_t from[warp_size];
  addresses(w, s.source_base, s.source_base_bytes, s.source_offset, from);
  copy.bytes.resize(warp_size * s.bytes);
  uint32_t whole = 0;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    const uint32_t read =
        s.op.x[0] == no_slot ? s.bytes : std::min<uint32_t>(s.bytes, w.lanes.of<uint32_t>(s.op.x[0])[l]);
    // Fewer bytes than a whole element are only ever asked for at an edge: none, nearly always.
    if (read == s.bytes) {
      whole |= 1u << l;
    } else {
      for (uint32_t b = 0; b < read; ++b) {
        uint64_t one[warp_size] = {};
        std::byte* at[warp_size];
        one[l] = from[l] + b;
        if (!locate(w, s, 1u << l, ptx::Space::global, one, 1, Touch::read, nullptr, at)) return;
        copy.bytes[l * s.bytes + b] = *at[l];
      }
    }
  }
  std::byte* at[warp_size];
  if (whole && !locate(w, s, whole, ptx::Space::global, from, s.bytes, Touch::read, nullptr, at)) return;
  for (uint32_t rest = whole; rest; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    std::memcpy(copy.bytes.data() + l * s.bytes, at[l], s.bytes);
  }
  w.copies.push_back(std::move(copy));
}

// Finishes what the lanes copied but for the last `pending` groups.
void Block::copy_wait(Warp& w, uint32_t lanes, uint32_t pending) {
  const uint32_t newest = w.copy_group;
  for (Warp::AsyncCopy& copy : w.copies) {
    if (copy.group + pending >= newest && pending > 0) continue;
    const uint32_t mine = copy.mask & lanes;
    copy.mask &= ~lanes;
    if (!mine) continue;
    std::byte* to[warp_size];
    const uint32_t n = copy.step->bytes;
    if (!locate(w, *copy.step, mine, ptx::Space::shared, copy.to.data(), n, Touch::write, copy.bytes.data(), to))
      return;
    for (uint32_t rest = mine; rest; rest &= rest - 1) {
      const int l = std::countr_zero(rest);
      std::memcpy(to[l], copy.bytes.data() + l * n, n);
    }
  }
  std::erase_if(w.copies, [](const Warp::AsyncCopy& c) { return c.mask == 0; });
}

}  // namespace gpusim
