// Where a kernel's variables are: local and shared memory.
#include <algorithm>

#include "gpusim/machine/decode.h"

namespace gpusim {

uint64_t Decoder::place_local(uint64_t bytes, uint32_t align, bool counts) {
  local_next_ = (local_next_ + align - 1) / align * align;
  const uint64_t at = local_next_;
  local_next_ += bytes;
  if (counts) kernel_.info.local_bytes += static_cast<uint32_t>(bytes);
  return at;
}

// Shared variables stand where a linker would put them, but with 128 bytes (all banks once) that belong to nobody
// between them, so that running over an end is seen.
void Decoder::place_shared(const ptx::Variable& v) {
  constexpr uint32_t gap = 128;
  KernelInfo& info = kernel_.info;
  const auto [it, is_new] = shared_.try_emplace(v.name);
  if (!is_new) return;
  const uint32_t tight = (info.static_shared + v.align - 1) / v.align * v.align;
  it->second = tight + gap * static_cast<uint32_t>(kernel_.shared.size());
  info.static_shared = tight + static_cast<uint32_t>(v.bytes);
  kernel_.shared.push_back({it->second, it->second + static_cast<uint32_t>(v.bytes), v.name});
}

// All shared memory that a function and its callees name; dynamic memory comes last.
void Decoder::place_all_shared(const ptx::Function& entry) {
  std::vector<const ptx::Function*> reachable{&entry};
  std::vector<const ptx::Variable*> dynamic;
  for (size_t k = 0; k < reachable.size(); ++k) {
    for (const ptx::Variable& v : reachable[k]->variables)
      if (v.space == ptx::Space::shared) v.bytes ? place_shared(v) : dynamic.push_back(&v);
    for (const ptx::Instruction& i : reachable[k]->instructions)
      for (const ptx::Operand* o : flatten(i.operands)) {
        if (o->name.empty()) continue;
        if (const ptx::Function* f = program_.module().find(o->name);
            f && std::find(reachable.begin(), reachable.end(), f) == reachable.end())
          reachable.push_back(f);
        for (const ptx::Variable& v : program_.module().variables)
          if (v.space == ptx::Space::shared && v.name == o->name) v.bytes ? place_shared(v) : dynamic.push_back(&v);
      }
  }
  uint32_t align = 16;
  for (const ptx::Variable* v : dynamic) align = std::max(align, v->align);
  const uint32_t tight = (kernel_.info.static_shared + align - 1) / align * align;
  kernel_.dynamic_shared_at = tight + 128 * static_cast<uint32_t>(kernel_.shared.size());
  for (const ptx::Variable* v : dynamic) shared_[v->name] = kernel_.dynamic_shared_at;
}

void Decoder::place_variables(Frame& frame) {
  for (const ptx::Variable& v : frame.function->variables) {
    if (v.space == ptx::Space::local)
      frame.symbols[v.name] = {ptx::Space::local, place_local(v.bytes, v.align, true)};
    else if (v.space == ptx::Space::param)
      frame.symbols[v.name] = {ptx::Space::local, place_local(v.bytes, v.align, false)};
  }
}

}  // namespace gpusim
