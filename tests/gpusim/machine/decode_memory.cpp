#include <fmt/format.h>

#include "gpusim/machine/decode.h"

namespace gpusim {

using ptx::Operand;
using ptx::Space;

namespace {

// A state space, or generic if it is none.
bool read_space(std::string_view m, Space& space) {
  if (m == "global")
    space = Space::global;
  else if (m == "shared" || m == "shared::cta")
    space = Space::shared;
  else if (m == "local")
    space = Space::local;
  else if (m == "const")
    space = Space::constant;
  else if (m == "param" || m == "param::entry" || m == "param::func")
    space = Space::param;
  else
    return false;
  return true;
}

bool is_scope(std::string_view m) { return m == "cta" || m == "cluster" || m == "gpu" || m == "sys"; }

// Hints that change no value.
bool is_cache_hint(std::string_view m) {
  for (const char* hint : {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "uni", "evict_normal", "evict_unchanged",
                           "evict_first", "evict_last", "no_allocate"})
    if (m == hint) return true;
  return m.starts_with("L1::") || m.starts_with("L2::");
}

}  // namespace

void Decoder::set_address(Frame& frame, const ptx::Instruction& i, const Operand& o, Step& step) {
  if (o.kind != Operand::Kind::address) refuse(i, "an address in brackets is expected");
  step.offset = o.offset;
  if (o.reg >= 0) {
    step.base = frame.registers[o.reg];
    step.base_bytes = frame.function->registers[o.reg].bytes;
    if (step.base_bytes != 8 && step.base_bytes != 4) refuse(i, "an address has 4 or 8 bytes");
  } else if (!o.name.empty()) {
    const Address a = address_of(frame, i, o.name);
    const bool in_window = step.space == Space::generic;
    step.offset += static_cast<int64_t>(in_window ? generic(a) : a.at);
    // The .param variables of calls live in the thread's local memory.
    if (step.space == Space::param) step.space = a.space;
  }
}

bool Decoder::decode_memory(Frame& frame, const ptx::Instruction& i, Step& step) {
  const std::string& op = i.opcode;
  if (op == "ld" || op == "ldu")
    decode_access(frame, i, step, true);
  else if (op == "st")
    decode_access(frame, i, step, false);
  else if (op == "atom" || op == "red")
    decode_atomic(frame, i, step, op == "atom");
  else if (op == "ldmatrix" || op == "stmatrix")
    decode_matrix(frame, i, step);
  else if (op == "wmma" && !i.has("mma"))
    decode_wmma(frame, i, step);
  else if (op == "cp")
    decode_copy_async(frame, i, step);
  else if (op == "cvta" || op == "isspacep")
    decode_window(frame, i, step);
  else
    return false;
  return true;
}

void Decoder::decode_access(Frame& frame, const ptx::Instruction& i, Step& step, bool loads) {
  step.action = loads ? Action::load : Action::store;
  step.kind = Kind::memory;
  TypeName type;
  for (const std::string& m : i.modifiers) {
    if (read_space(m, step.space) || is_cache_hint(m) || is_scope(m) || m == "weak") continue;
    if (m == "v2" || m == "v4" || m == "v8")
      step.count = static_cast<uint8_t>(m[1] - '0');
    else if (m == "volatile" || m == "relaxed" || m == "mmio")
      step.strong = true;
    else if (m == "acquire")
      step.strong = step.acquires = true;
    else if (m == "release")
      step.strong = step.releases = true;
    else if (type.bytes = type_named(m).bytes; type.bytes)
      type = type_named(m);
    else
      refuse(i, fmt::format("gpusim does not know .{}", m));
  }
  if (!type.bytes) refuse(i, "it has no type");
  if (i.operands.size() != 2) refuse(i, "two operands are expected");  // a cache policy would be the third
  step.bytes = type.bytes;
  step.is_signed = type.is_signed;
  kernel_.hands_over |= step.acquires || step.releases || (loads && step.strong && step.space != Space::shared);
  const Operand& data = i.operands[loads ? 0 : 1];
  set_address(frame, i, i.operands[loads ? 1 : 0], step);
  if (step.space == Space::local || step.space == Space::param) step.kind = i.has("param") ? Kind::move : Kind::memory;
  if (step.space == Space::shared || step.space == Space::generic)
    kernel_.shared_granule = std::min(kernel_.shared_granule, step.bytes);
  const std::vector<Operand> alone{data};
  const std::vector<Operand>& elements = data.kind == Operand::Kind::vector ? data.elements : alone;
  if (elements.size() != step.count) refuse(i, fmt::format("{} registers for .v{}", elements.size(), step.count));
  std::vector<Slot> slots;
  for (const Operand& e : elements) {
    uint8_t bytes = type.bytes;
    if (e.kind == Operand::Kind::reg) {
      slots.push_back(register_of(frame, i, e, &bytes));
      if (bytes < type.bytes) refuse(i, fmt::format("a register of {} bytes for a type of {}", bytes, type.bytes));
      step.register_bytes = bytes;
    } else {
      slots.push_back(slot_of(frame, i, e, std::max<uint8_t>(type.bytes, 2)));
      if (e.kind != Operand::Kind::ignored) step.register_bytes = std::max<uint8_t>(type.bytes, 2);
    }
  }
  set_operands(step, slots);
  step.results = loads ? step.operands : 0;
}

void Decoder::decode_atomic(Frame& frame, const ptx::Instruction& i, Step& step, bool returns) {
  step.action = Action::atomic;
  step.kind = Kind::memory;
  step.strong = true;
  TypeName type;
  bool known = false;
  for (const std::string& m : i.modifiers) {
    if (read_space(m, step.space) || is_cache_hint(m) || is_scope(m) || m == "relaxed" || m == "noftz") continue;
    if (m == "acquire" || m == "release" || m == "acq_rel") {
      step.acquires |= m != "release";
      step.releases |= m != "acquire";
      continue;
    }
    static const std::map<std::string_view, AtomicOp> operations = {
        {"add", AtomicOp::add}, {"min", AtomicOp::min},  {"max", AtomicOp::max},   {"and", AtomicOp::and_},
        {"or", AtomicOp::or_},  {"xor", AtomicOp::xor_}, {"exch", AtomicOp::exch}, {"cas", AtomicOp::cas},
        {"inc", AtomicOp::inc}, {"dec", AtomicOp::dec}};
    if (const auto it = operations.find(m); it != operations.end()) {
      step.atomic = it->second;
      known = true;
    } else if (type_named(m).bytes && !type.bytes) {
      type = type_named(m);
      step.type = m;
    } else {
      refuse(i, fmt::format("gpusim does not know .{}", m));
    }
  }
  if (!known || !type.bytes) refuse(i, "no operation or no type");
  kernel_.hands_over |= step.acquires || step.releases;
  step.bytes = step.register_bytes = type.bytes;
  step.is_signed = type.is_signed;
  step.is_float = type.is_float;
  const size_t first = returns ? 1 : 0, operands = step.atomic == AtomicOp::cas ? 2 : 1;
  if (i.operands.size() != first + 1 + operands) refuse(i, "another number of operands is expected");
  set_address(frame, i, i.operands[first], step);
  if (step.space == Space::shared || step.space == Space::generic)
    kernel_.shared_granule = std::min(kernel_.shared_granule, step.bytes);
  std::vector<Slot> slots{returns ? slot_of(frame, i, i.operands[0], type.bytes) : no_slot};
  for (size_t k = 0; k < operands; ++k) slots.push_back(slot_of(frame, i, i.operands[first + 1 + k], type.bytes));
  set_operands(step, slots);
  step.results = 1;
}

void Decoder::decode_matrix(Frame& frame, const ptx::Instruction& i, Step& step) {
  const bool loads = i.opcode == "ldmatrix";
  step.action = loads ? Action::load_matrix : Action::store_matrix;
  step.kind = Kind::memory;
  step.space = Space::shared;
  step.members = constant(all_lanes, 4);
  for (const std::string& m : i.modifiers) {
    Space space;
    if (m == "sync" || m == "aligned" || m == "m8n8" || m == "b16" || read_space(m, space)) continue;
    if (m == "x1" || m == "x2" || m == "x4")
      step.count = static_cast<uint8_t>(m[1] - '0');
    else if (m == "trans")
      step.transposed = true;
    else
      refuse(i, fmt::format("gpusim does not know .{}", m));
  }
  step.bytes = 16;  // a row of a matrix, each at an address of its own
  set_address(frame, i, i.operands.at(loads ? 1 : 0), step);
  const Operand& data = i.operands.at(loads ? 0 : 1);
  const std::vector<Operand> alone{data};
  std::vector<Slot> slots;
  for (const Operand& e : data.kind == Operand::Kind::vector ? data.elements : alone)
    slots.push_back(slot_of(frame, i, e, 4));
  if (slots.size() != step.count) refuse(i, fmt::format("{} registers for .x{}", slots.size(), step.count));
  set_operands(step, slots);
  step.results = loads ? step.operands : 0;
}

// wmma.load.a.sync.aligned.row.m16n16k16{.space}.f16 {registers}, [address]{, stride}; a store has the address first.
void Decoder::decode_wmma(Frame& frame, const ptx::Instruction& i, Step& step) {
  const bool loads = i.has("load");
  step.action = loads ? Action::load_matrix : Action::store_matrix;
  step.kind = Kind::memory;
  step.members = constant(all_lanes, 4);
  step.column_major = i.has("col");
  std::string shape, type = i.modifiers.empty() ? "" : i.modifiers.back();
  Matrix matrix = Matrix::c;
  for (const std::string& m : i.modifiers) {
    Space space;
    if (read_space(m, space)) step.space = space;
    if (m == "a") matrix = Matrix::a;
    if (m == "b") matrix = Matrix::b;
    if (m.size() > 4 && m[0] == 'm' && m.find('n') != std::string::npos && m.find('k') != std::string::npos) shape = m;
  }
  step.fragment = wmma_fragment(matrix, shape, type);
  if (!step.fragment || step.fragment->bits < 8) refuse(i, "gpusim does not know this matrix");
  const Fragment& f = *step.fragment;
  step.bytes = static_cast<uint8_t>(f.bits / 8);
  if (step.space == Space::shared || step.space == Space::generic)
    kernel_.shared_granule = std::min(kernel_.shared_granule, step.bytes);
  set_address(frame, i, i.operands.at(loads ? 1 : 0), step);
  // Without a stride rows (columns) follow one another.
  step.source_base = i.operands.size() > 2 ? slot_of(frame, i, i.operands[2], 4)
                                           : constant(step.column_major ? f.rows() : f.columns(), 4);
  std::vector<Slot> slots;
  for (const Operand& e : i.operands.at(loads ? 0 : 1).elements)
    slots.push_back(slot_of(frame, i, e, f.bits == 64 ? 8 : 4));
  if (static_cast<int>(slots.size()) != f.registers)
    refuse(i, fmt::format("{} registers where the fragment has {}", slots.size(), f.registers));
  set_operands(step, slots);
  step.results = loads ? step.operands : 0;
}

void Decoder::decode_copy_async(Frame& frame, const ptx::Instruction& i, Step& step) {
  step.kind = Kind::memory;
  if (i.has("commit_group") || i.has("wait_group") || i.has("wait_all")) {
    step.action = i.has("commit_group") ? Action::copy_commit : Action::copy_wait;
    step.op.immediate = i.has("wait_group") ? static_cast<int32_t>(i.operands.at(0).value) : 0;
    step.waits_all = i.has("wait_all");
    return;
  }
  if (!i.has("async") || i.has("bulk") || i.has("mbarrier")) refuse(i, "gpusim does not know this copy");
  for (const std::string& m : i.modifiers) {
    Space space;
    if (m != "async" && !read_space(m, space) && !is_cache_hint(m))
      refuse(i, fmt::format("gpusim does not know .{}", m));
  }
  // [shared], [global], bytes{, bytes to read, the rest being zeros}
  step.action = Action::copy_async;
  step.space = Space::shared;
  set_address(frame, i, i.operands.at(0), step);
  Step source;
  source.space = Space::global;
  set_address(frame, i, i.operands.at(1), source);
  step.bytes = static_cast<uint8_t>(i.operands.at(2).value);
  if (step.bytes != 4 && step.bytes != 8 && step.bytes != 16) refuse(i, "a copy has 4, 8 or 16 bytes");
  step.source_base = source.base;
  step.source_base_bytes = source.base_bytes;
  step.source_offset = source.offset;
  step.op.x[0] = i.operands.size() > 3 ? slot_of(frame, i, i.operands[3], 4) : no_slot;
}

void Decoder::decode_window(Frame& frame, const ptx::Instruction& i, Step& step) {
  const bool asks = i.opcode == "isspacep";
  step.kind = Kind::move;
  bool to = false;
  for (const std::string& m : i.modifiers) {
    if (m == "to")
      to = true;
    else if (!read_space(m, step.space) && !type_named(m).bytes)
      refuse(i, fmt::format("gpusim does not know .{}", m));
  }
  if (asks) {
    step.action = Action::is_space;
    set_operands(step, {slot_of(frame, i, i.operands.at(0), 0), slot_of(frame, i, i.operands.at(1), 8)});
    step.results = 1;
    return;
  }
  step.action = Action::to_generic;
  const uint64_t window = step.space == Space::shared  ? shared_window
                          : step.space == Space::local ? local_window
                          : step.space == Space::param ? param_window
                                                       : 0;
  step.offset = static_cast<int64_t>(to ? -window : window);
  set_operands(step, {slot_of(frame, i, i.operands.at(0), 8), slot_of(frame, i, i.operands.at(1), 8)});
  step.results = 1;
}

}  // namespace gpusim
