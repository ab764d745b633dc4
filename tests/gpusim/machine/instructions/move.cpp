#include <cfloat>

#include "gpusim/machine/instructions/logic.h"
#include "gpusim/machine/instructions/select.h"

namespace gpusim {
namespace {

template <class T>
void copy(Lanes& w, const Op& op) {
  if (op.x[0] != op.x[1]) blend(w.mask, w.of<T>(op.x[0]), w.of<const T>(op.x[1]));
}

template <class T>
Choice copy_choice() {
  return {copy<T>, {sizeof(T), sizeof(T)}, Kind::move};
}

template <class Whole, class Part>
void pack(Lanes& w, const Op& op) {
  constexpr int count = sizeof(Whole) / sizeof(Part), bits = 8 * sizeof(Part);
  if constexpr (count == 2)
    map_lanes<Whole>(
        w, op.x[0], [](Part a, Part b) { return Whole(Whole(a) | Whole(b) << bits); }, w.of<const Part>(op.x[1]),
        w.of<const Part>(op.x[2]));
  else
    map_lanes<Whole>(
        w, op.x[0],
        [](Part a, Part b, Part c, Part d) {
          return Whole(Whole(a) | Whole(b) << bits | Whole(c) << 2 * bits | Whole(d) << 3 * bits);
        },
        w.of<const Part>(op.x[1]), w.of<const Part>(op.x[2]), w.of<const Part>(op.x[3]), w.of<const Part>(op.x[4]));
}

template <class Whole, class Part>
void unpack(Lanes& w, const Op& op) {
  constexpr int count = sizeof(Whole) / sizeof(Part), bits = 8 * sizeof(Part);
  for (int i = 0; i < count; ++i)
    if (op.x[i] != no_slot)
      map_lanes<Part>(
          w, op.x[i], [i](Whole a) { return Part(a >> i * bits); }, w.of<const Whole>(op.x[count]));
}

template <class Whole, class Part>
Choice move_parts(bool packs) {
  constexpr size_t count = sizeof(Whole) / sizeof(Part);
  Choice choice{packs ? pack<Whole, Part> : unpack<Whole, Part>, {}, Kind::move};
  choice.bytes.assign(count + 1, sizeof(Part));
  choice.bytes[packs ? 0 : count] = sizeof(Whole);
  return choice;
}

Choice move_vector(std::string_view type, const ptx::Operand& vector, bool packs) {
  if (type[0] != 'b') return {};
  if (packs)  // where parts are ignored there is nothing to write
    for (const ptx::Operand& part : vector.elements)
      if (part.kind == ptx::Operand::Kind::ignored) return {};
  const size_t parts = vector.elements.size();
  if (type == "b16" && parts == 2) return move_parts<uint16_t, uint8_t>(packs);
  if (type == "b32" && parts == 2) return move_parts<uint32_t, uint16_t>(packs);
  if (type == "b32" && parts == 4) return move_parts<uint32_t, uint8_t>(packs);
  if (type == "b64" && parts == 2) return move_parts<uint64_t, uint32_t>(packs);
  if (type == "b64" && parts == 4) return move_parts<uint64_t, uint16_t>(packs);
  if (type == "b128" && parts == 2) return move_parts<uint128_t, uint64_t>(packs);
  if (type == "b128" && parts == 4) return move_parts<uint128_t, uint32_t>(packs);
  return {};
}

Choice mov(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (type.empty() || !m.done() || instruction.operands.size() != 2) return {};
  const auto is_vector = [&](int i) { return instruction.operands[i].kind == ptx::Operand::Kind::vector; };
  if (is_vector(0) && is_vector(1)) return {};
  if (is_vector(0)) return move_vector(type, instruction.operands[0], false);
  if (is_vector(1)) return move_vector(type, instruction.operands[1], true);
  if (type == "pred")
    return {[](Lanes& w, const Op& op) { set_predicate(w, op.x[0], read_predicate(w, op, 1)); }, {0, 0}, Kind::move};
  if (type == "b128") return copy_choice<uint128_t>();
  return with_width<uint16_t, uint32_t, uint64_t>("busf", type, []<class T>() { return copy_choice<T>(); });
}

template <class T>
void select_by_predicate(Lanes& w, const Op& op) {
  const uint32_t first = read_predicate(w, op, 3);
  alignas(64) static constexpr auto lane_bits = [] {
    std::array<uint32_t, warp_size> bits{};
    for (int l = 0; l < warp_size; ++l) bits[l] = 1u << l;
    return bits;
  }();
  map_lanes<T>(
      w, op.x[0], [first](T a, T b, uint32_t bit) { return first & bit ? a : b; }, w.of<const T>(op.x[1]),
      w.of<const T>(op.x[2]), lane_bits.data());
}

Choice selp(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const std::string_view type = m.next();
  if (!m.done()) return {};
  return with_width<uint16_t, uint32_t, uint64_t>("busf", type, []<class T>() -> Choice {
    constexpr uint8_t n = sizeof(T);
    return {select_by_predicate<T>, {n, n, n, 0}, Kind::move};
  });
}

Choice slct(const ptx::Instruction& instruction, std::span<const Shape>) {
  Modifiers m(instruction);
  const bool ftz = m.take("ftz");
  const std::string_view type = m.next(), by = m.next();
  if (!m.done() || (by != "s32" && by != "f32") || (ftz && by != "f32")) return {};
  return with_width<uint16_t, uint32_t, uint64_t>("busf", type, [&]<class T>() {
    if (by == "s32") return lanewise([](T a, T b, int32_t c) { return c >= 0 ? a : b; }, Kind::move);
    // Flushed, a negative subnormal is -0, which is >= 0.
    if (ftz) return lanewise([](T a, T b, float c) { return c > -FLT_MIN ? a : b; }, Kind::move);
    return lanewise([](T a, T b, float c) { return c >= 0 ? a : b; }, Kind::move);
  });
}

}  // namespace

std::span<const Family> move_instructions() {
  static const Family families[] = {
      {"mov", mov},
      {"selp", selp},
      {"slct", slct},
      {"set", select_set},
      {"setp", select_setp},
      {"and", select_and},
      {"or", select_or},
      {"xor", select_xor},
      {"not", select_not},
      {"cnot", select_cnot},
      {"lop3", select_lop3},
      {"shl", select_shl},
      {"shr", select_shr},
      {"shf", select_shf},
      {"prmt", select_prmt},
      {"bmsk", select_bmsk},
      {"szext", select_szext},
      {"brev", select_brev},
      {"bfind", select_bfind},
      {"fns", select_fns},
  };
  return families;
}

}  // namespace gpusim
