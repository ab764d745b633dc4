#include "gpusim/machine/decode.h"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "gpusim/error.h"
#include "gpusim/machine/allocate.h"

namespace gpusim {

using ptx::Operand;

namespace {

// Which flattened operand is the member mask of an instruction that needs its lanes together; -1: all lanes.
constexpr int not_collective = -2;
int members_of(const ptx::Instruction& i, size_t operands) {
  if (i.opcode == "mma" || i.opcode == "wmma") return -1;
  if (!i.has("sync")) return not_collective;
  if (i.opcode == "shfl" || i.opcode == "vote" || i.opcode == "match" || i.opcode == "redux" || i.opcode == "elect")
    return static_cast<int>(operands) - 1;
  return not_collective;
}

}  // namespace

Step Decoder::start(Frame& frame, const ptx::Instruction& i) {
  Step step;
  const ptx::Module& module = program_.module();
  const ptx::Location& where = in_program(module, i.location);
  std::string text = i.variant();
  if (&where != &i.location) {
    const std::string& header = module.file(i.location);
    text += fmt::format(" ({}:{})", header.substr(header.rfind('/') + 1), i.location.line);
  }
  const auto [it, is_new] = sites_.try_emplace({where.file, where.line, text});
  // A cell has 16 bits for a site: a kernel with more lines than that names the last of them for the rest.
  if (is_new && kernel_.sites.size() > 0xffff)
    it->second = 0xffff;
  else if (is_new) {
    it->second = static_cast<uint32_t>(kernel_.sites.size());
    kernel_.sites.push_back({module.file(where), where.line, text});
  }
  step.site = it->second;
  if (i.guard >= 0) {
    step.guard = frame.registers[i.guard];
    step.guard_negated = i.guard_negated;
  }
  return step;
}

void Decoder::decode_entry(const ptx::Function& entry) {
  kernel_.register_bytes = 64;  // the carry flag
  Frame frame;
  frame.function = &entry;
  uint32_t at = 0;
  for (const ptx::Variable& p : entry.parameters) {
    at = (at + p.align - 1) / p.align * p.align;
    frame.symbols[p.name] = {ptx::Space::param, at};
    kernel_.info.parameters.push_back({at, static_cast<uint32_t>(p.bytes)});
    at += static_cast<uint32_t>(p.bytes);
  }
  kernel_.info.parameter_bytes = at;
  place_all_shared(entry);
  decode_body(frame);
  kernel_.local_storage = local_next_;
  allocate_registers(kernel_, registers_);
  kernel_.info.max_threads = entry.required_threads ? entry.required_threads
                             : entry.max_threads    ? entry.max_threads
                                                    : 1024;
}

void Decoder::decode_body(Frame& frame) {
  const ptx::Function& f = *frame.function;
  int depth = 0;
  for (const Frame* up = frame.caller; up; up = up->caller, ++depth)
    if (up->function == &f)
      fail("{}: {} calls itself; recursion cannot be simulated", kernel_.info.name, demangled(f.name));
  for (const ptx::Register& r : f.registers) {
    const Slot stand_in = first_stand_in + static_cast<Slot>(registers_.size());
    registers_[stand_in] = r.bytes;
    frame.registers.push_back(stand_in);
  }
  place_variables(frame);
  for (const ptx::Instruction& i : f.instructions) {
    frame.step_of.push_back(static_cast<uint32_t>(kernel_.steps.size()));
    decode(frame, i);
  }
  frame.step_of.push_back(static_cast<uint32_t>(kernel_.steps.size()));
  for (const Frame::Jump& j : frame.jumps) {
    Step& step = kernel_.steps[j.step];
    (step.action == Action::branch ? step.target : step.targets[j.which]) = frame.step_of[j.instruction];
  }
  // Falling off the end is a return.
  if (!frame.caller) {
    Step step;
    step.action = Action::exit;
    step.kind = Kind::control;
    if (!kernel_.steps.empty()) step.site = kernel_.steps.back().site;
    push(std::move(step));
  }
  for (uint32_t e : frame.exits) kernel_.steps[e].target = static_cast<uint32_t>(kernel_.steps.size());
}

void Decoder::decode(Frame& frame, const ptx::Instruction& i) {
  const std::string& op = i.opcode;
  if (op == "call") return decode_call(frame, i);
  Step step = start(frame, i);
  step.kind = Kind::control;
  const uint32_t here = static_cast<uint32_t>(kernel_.steps.size());
  if (op == "bra") {
    step.action = Action::branch;
    frame.jumps.push_back({here, 0, i.operands.at(0).target});
  } else if (op == "brx") {
    step.action = Action::branch_indexed;
    step.base = slot_of(frame, i, i.operands.at(0), 4);
    for (size_t k = 1; k < i.operands.size(); ++k) {
      frame.jumps.push_back({here, static_cast<uint32_t>(k - 1), i.operands[k].target});
      step.targets.push_back(0);
    }
  } else if (op == "ret" && frame.caller) {
    step.action = Action::branch;
    frame.exits.push_back(here);
  } else if (op == "ret" || op == "exit") {
    step.action = Action::exit;
  } else if (op == "trap" || op == "brkpt") {
    step.action = Action::trap;
  } else if (op == "bar" || op == "barrier") {
    decode_barrier(frame, i, step);
  } else if (op == "membar" || op == "fence") {
    step.action = Action::fence;
    // Within a block nothing is handed over by a fence of its own, but accesses before and after it keep their order.
    const bool wide = i.has("gl") || i.has("sys") || i.has("gpu") || i.has("cluster");
    step.releases = step.acquires = wide && !i.has("proxy");
    kernel_.hands_over |= step.releases;
  } else if (op == "nanosleep" || op == "prefetch" || op == "prefetchu" || op == "pmevent" || op == "griddepcontrol" ||
             op == "setmaxnreg" || op == "discard" || op == "applypriority") {
    step.action = Action::nothing;
  } else if (op == "mov" && i.operands.size() == 2 && i.operands[1].kind == Operand::Kind::special &&
             (i.operands[1].name.starts_with("clock") || i.operands[1].name.starts_with("globaltimer"))) {
    step.action = Action::clock;
    step.base = register_of(frame, i, i.operands[0], &step.register_bytes);
  } else if (!decode_memory(frame, i, step)) {
    decode_arithmetic(frame, i, step);
  }
  push(std::move(step));
}

void Decoder::decode_arithmetic(Frame& frame, const ptx::Instruction& i, Step& step) {
  const std::vector<const Operand*> flat = flatten(i.operands);
  std::vector<Shape> shapes;
  for (const Operand* o : flat) {
    const bool is_register = o->kind == Operand::Kind::reg;
    const bool is_special = o->kind == Operand::Kind::special;
    shapes.push_back({is_register || is_special, is_register ? frame.function->registers[o->reg].bytes : uint8_t{4}});
  }
  const Choice choice = choose(i, shapes);
  if (!choice.run) refuse(i, "gpusim does not know this instruction");
  if (choice.bytes.size() != flat.size())
    refuse(i, fmt::format("{} operands where {} belong", flat.size(), choice.bytes.size()));
  std::vector<Slot> slots;
  for (size_t k = 0; k < flat.size(); ++k) {
    slots.push_back(slot_of(frame, i, *flat[k], choice.bytes[k]));
    if (flat[k]->negated) step.op.negated |= 1u << k;
  }
  step.op.run = choice.run;
  step.op.immediate = choice.immediate;
  step.kind = choice.kind;
  set_operands(step, slots);
  const Operand& to = i.operands.at(0);
  step.results = static_cast<uint8_t>(to.elements.empty() ? 1 : to.elements.size());
  if (step.kind == Kind::tensor)
    for (const std::string& shape : i.modifiers)
      if (uint32_t m = 0, n = 0, k = 0; std::sscanf(shape.c_str(), "m%un%uk%u", &m, &n, &k) == 3)
        step.multiply_adds = m * n * k;
  if (const int m = members_of(i, flat.size()); m != not_collective) {
    step.action = Action::collective;
    step.members = m < 0 ? constant(all_lanes, 4) : slots[m];
  }
}

void Decoder::decode_barrier(Frame& frame, const ptx::Instruction& i, Step& step) {
  if (i.has("warp")) {
    step.action = Action::warp_barrier;
    step.members = slot_of(frame, i, i.operands.at(0), 4);
    return;
  }
  if (i.has("cluster")) {
    // A cluster of one block, the only kind there is: nobody else to wait for.
    step.action = Action::nothing;
    return;
  }
  step.action = Action::barrier;
  step.aligned = i.opcode == "bar" || i.has("aligned");
  size_t next = 0;
  if (i.has("red")) {
    step.barrier = i.has("popc") ? BarrierOp::popc : i.has("and") ? BarrierOp::and_ : BarrierOp::or_;
    step.results = 1;
    step.op.x[0] = slot_of(frame, i, i.operands.at(next++), step.barrier == BarrierOp::popc ? 4 : 0);
  } else if (i.has("arrive")) {
    step.barrier = BarrierOp::arrive;
  } else if (!i.has("sync")) {
    refuse(i, "gpusim does not know this barrier");
  }
  const bool reduces = i.has("red");
  step.op.x[1] = slot_of(frame, i, i.operands.at(next++), 4);
  const bool counts = i.operands.size() - next > (reduces ? 1u : 0u);
  step.op.x[2] = counts ? slot_of(frame, i, i.operands.at(next++), 4) : no_slot;
  if (reduces) {
    step.op.x[3] = slot_of(frame, i, i.operands.at(next), 0);
    step.op.negated = i.operands[next].negated;
  }
}

void Decoder::decode_call(Frame& frame, const ptx::Instruction& i) {
  if (i.operands.at(0).kind != Operand::Kind::symbol) refuse(i, "calls through pointers cannot be simulated");
  const std::string& callee = i.operands[0].name;
  const ptx::Function* f = program_.module().find(callee);
  if (!f) refuse(i, fmt::format("no function is named {}", callee));
  if (!f->has_body) return decode_library_call(frame, i, callee);
  if (i.call_arguments.size() != f->parameters.size() || i.call_returns.size() != f->returns.size())
    refuse(i, fmt::format("{} is called with another number of arguments than it has", callee));
  // A guarded call is a branch around the body.
  const uint32_t around = static_cast<uint32_t>(kernel_.steps.size());
  if (i.guard >= 0) {
    Step step = start(frame, i);
    step.guard_negated = !step.guard_negated;
    step.action = Action::branch;
    step.kind = Kind::control;
    push(std::move(step));
  }
  // Parameters and results are the caller's own .param variables.
  Frame inner;
  inner.function = f;
  inner.caller = &frame;
  auto bind = [&](const std::vector<ptx::Variable>& formal, const std::vector<Operand>& actual) {
    for (size_t k = 0; k < formal.size(); ++k) {
      if (actual[k].kind != Operand::Kind::symbol || formal[k].name.empty())
        refuse(i, "arguments in registers cannot be simulated");
      inner.symbols[formal[k].name] = address_of(frame, i, actual[k].name);
    }
  };
  bind(f->parameters, i.call_arguments);
  bind(f->returns, i.call_returns);
  decode_body(inner);
  if (i.guard >= 0) kernel_.steps[around].target = static_cast<uint32_t>(kernel_.steps.size());
}

void Decoder::decode_library_call(Frame& frame, const ptx::Instruction& i, const std::string& callee) {
  Step step = start(frame, i);
  step.kind = Kind::control;
  if (callee == "vprintf")
    step.action = Action::print;
  else if (callee == "__assertfail")
    step.action = Action::assertion;
  else
    refuse(i, fmt::format("{} is not in this module and gpusim does not have it", callee));
  for (const Operand& o : i.call_arguments)
    step.targets.push_back(static_cast<uint32_t>(address_of(frame, i, o.name).at));
  step.target = i.call_returns.empty() ? ~0u : static_cast<uint32_t>(address_of(frame, i, i.call_returns[0].name).at);
  push(std::move(step));
}

std::unique_ptr<Kernel> decode(const Program& program, const ptx::Function& entry) {
  auto kernel = std::make_unique<Kernel>();
  kernel->program = &program;
  kernel->info.name = demangled(entry.name);
  Decoder(program, *kernel).decode_entry(entry);
  return kernel;
}

}  // namespace gpusim
