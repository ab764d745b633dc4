// What operands become: slots, addresses, constants.
#include <algorithm>
#include <bit>

#include "gpusim/error.h"
#include "gpusim/machine/decode.h"

namespace gpusim {

using ptx::Operand;

namespace {
uint64_t immediate_bits(const Operand& o, uint8_t bytes) {
  const uint64_t bits = static_cast<uint64_t>(o.value);
  if (o.literal == Operand::Literal::f32 && bytes == 8)
    return std::bit_cast<uint64_t>(static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits))));
  if (o.literal == Operand::Literal::f64 && bytes == 4)
    return std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(bits)));
  return bits;
}
}  // namespace

TypeName type_named(std::string_view name) {
  if (name == "f16" || name == "bf16") return {2, false, true};
  if (name == "f16x2" || name == "bf16x2") return {4, false, true};
  if (name == "b128") return {16, false, false};
  if (name.size() < 2 || name.size() > 3) return {};
  const char kind = name[0];
  const std::string_view digits = name.substr(1);
  const uint8_t bytes = digits == "8" ? 1 : digits == "16" ? 2 : digits == "32" ? 4 : digits == "64" ? 8 : 0;
  if (kind == 'f') return {bytes >= 4 ? bytes : uint8_t{0}, false, true};
  if (kind == 'u' || kind == 'b') return {bytes, false, false};
  if (kind == 's') return {bytes, true, false};
  return {};
}

std::vector<const Operand*> flatten(const std::vector<Operand>& operands) {
  std::vector<const Operand*> flat;
  for (const Operand& o : operands)
    if (o.kind == Operand::Kind::vector || o.kind == Operand::Kind::pair)
      for (const Operand& e : o.elements) flat.push_back(&e);
    else
      flat.push_back(&o);
  return flat;
}

const ptx::Location& in_program(const ptx::Module& module, const ptx::Location& location) {
  const ptx::Location* where = &location;
  auto is_toolkit = [&](const std::string& file) {
    return file.find("/include/") != std::string::npos &&
           (file.starts_with("/usr/") || file.find("/cuda") != std::string::npos ||
            file.find("/targets/") != std::string::npos);
  };
  while (where->inlined_at && is_toolkit(module.file(*where))) where = where->inlined_at.get();
  return *where;
}

void Decoder::refuse(const ptx::Instruction& i, const std::string& why) const {
  const ptx::Module& module = program_.module();
  const ptx::Location& where = in_program(module, i.location);
  fail("{}:{}: in {}: `{}` (line {} of the PTX for sm_{}): {}", module.file(where), where.line, kernel_.info.name,
       i.variant(), i.ptx_line, module.target, why);
}

Slot Decoder::new_slot(uint8_t bytes) {
  const Slot slot = kernel_.register_bytes;
  kernel_.register_bytes += std::max(64, bytes * warp_size);
  return slot;
}

Slot Decoder::constant(uint64_t value, uint8_t bytes) {
  if (bytes < 8 && bytes > 0) value &= (uint64_t{1} << 8 * bytes) - 1;
  if (bytes == 0) value = value ? all_lanes : 0;
  const auto [it, is_new] = constants_.try_emplace({value, bytes});
  if (is_new) {
    it->second = new_slot(bytes);
    kernel_.constants.push_back({it->second, bytes, value});
  }
  return it->second;
}

Slot Decoder::special(const std::string& name, uint8_t bytes) {
  const auto [it, is_new] = specials_.try_emplace(name);
  if (is_new) {
    it->second = new_slot(bytes);
    kernel_.specials.push_back({it->second, bytes, name});
  }
  return it->second;
}

uint64_t Decoder::generic(const Address& address) const {
  switch (address.space) {
    case ptx::Space::shared:
      return shared_window + address.at;
    case ptx::Space::local:
      return local_window + address.at;
    case ptx::Space::param:
      return param_window + address.at;
    default:
      return address.at;
  }
}

Decoder::Address Decoder::address_of(const Frame& frame, const ptx::Instruction& i, const std::string& symbol) const {
  if (const auto it = frame.symbols.find(symbol); it != frame.symbols.end()) return it->second;
  if (const auto it = shared_.find(symbol); it != shared_.end()) return {ptx::Space::shared, it->second};
  if (void* p = program_.variable(symbol)) return {ptx::Space::global, reinterpret_cast<uint64_t>(p)};
  if (program_.module().find(symbol))
    refuse(i, fmt::format("the address of the function {} is taken; calls through pointers cannot be simulated",
                          demangled(symbol)));
  refuse(i, fmt::format("nothing is named {}", symbol));
}

Slot Decoder::register_of(Frame& frame, const ptx::Instruction& i, const Operand& o, uint8_t* bytes) {
  if (o.kind == Operand::Kind::ignored) return no_slot;
  if (o.kind != Operand::Kind::reg) refuse(i, "a register is expected");
  *bytes = frame.function->registers[o.reg].bytes;
  return frame.registers[o.reg];
}

Slot Decoder::slot_of(Frame& frame, const ptx::Instruction& i, const Operand& o, uint8_t bytes) {
  switch (o.kind) {
    case Operand::Kind::reg: {
      const ptx::Register& r = frame.function->registers[o.reg];
      if (r.bytes != bytes) refuse(i, fmt::format("{} has {} bytes, expected {}", r.name, r.bytes, bytes));
      return frame.registers[o.reg];
    }
    case Operand::Kind::immediate:
      return constant(immediate_bits(o, bytes), bytes);
    case Operand::Kind::special: {
      const uint8_t own = o.name == "gridid" ? 8 : 4;
      if (own != bytes) refuse(i, fmt::format("%{} has {} bytes, expected {}", o.name, own, bytes));
      return special(o.name, own);
    }
    case Operand::Kind::symbol: {
      // The address in the variable's own space, as PTX has it: mov.u32 %r1, shared_array.
      const Address a = address_of(frame, i, o.name);
      return constant(a.at + o.offset, bytes);
    }
    case Operand::Kind::ignored:
      return no_slot;
    default:
      refuse(i, "an operand of a kind that does not belong here");
  }
}

void Decoder::set_operands(Step& step, const std::vector<Slot>& slots) {
  step.operands = static_cast<uint8_t>(slots.size());
  for (size_t k = 0; k < step.op.x.size(); ++k) step.op.x[k] = k < slots.size() ? slots[k] : no_slot;
  auto list = std::make_unique<Slot[]>(std::max<size_t>(1, slots.size()));
  std::copy(slots.begin(), slots.end(), list.get());
  step.op.operands = list.get();
  kernel_.lists.push_back(std::move(list));
}

}  // namespace gpusim
