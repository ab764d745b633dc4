#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "gpusim/error.h"
#include "gpusim/machine/decode.h"
#include "gpusim/machine/machine.h"

namespace gpusim {

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  // nvcc's way to make names of a file its own: _INTERNAL_…::(anonymous namespace)::table
  if (const size_t end = result.find("::"); result.starts_with("_INTERNAL_") && end != std::string::npos)
    result.erase(0, end + 2);
  return result;
}

Program::Program(std::shared_ptr<const ptx::Module> module, Memory& memory, int device)
    : module_(std::move(module)), memory_(memory), device_(device) {
  memory_.show_to(device, true);
  const Operation loading = next_operation(0, {}, "loading a module");
  auto is_stored = [](const ptx::Variable& v) {
    return (v.space == ptx::Space::global || v.space == ptx::Space::constant) && !v.is_extern;
  };
  for (const ptx::Variable& v : module_->variables)
    if (is_stored(v)) {
      void* p = memory_.allocate(v.bytes, demangled(v.name));
      if (!p) fail("no memory for the variable {} ({} bytes)", v.name, v.bytes);
      variables_[v.name] = {p, v.bytes};
    }
  for (const ptx::Variable& v : module_->variables) {
    if (!is_stored(v)) continue;
    char* at = memory_.storage(static_cast<char*>(variables_[v.name].first));
    std::memset(at, 0, v.bytes);
    std::memcpy(at, v.initial.data(), std::min<size_t>(v.initial.size(), v.bytes));
    for (const ptx::Variable::Pointer& p : v.pointers) {
      const auto target = variables_.find(p.symbol);
      if (target == variables_.end()) continue;  // of a function: calls through pointers are refused where they stand
      const uint64_t address = reinterpret_cast<uint64_t>(target->second.first) + p.offset;
      std::memcpy(at + p.at, &address, p.bytes);
    }
    memory_.note_write(variables_[v.name].first, v.bytes, loading);
  }
}

Program::~Program() {
  const Operation unloading = next_operation(0, {}, "unloading a module");
  for (const auto& [name, variable] : variables_) memory_.free(variable.first, unloading);
}

bool Program::has_kernel(const std::string& name) const {
  const ptx::Function* f = module_->find(name);
  return f && f->is_entry;
}

const Kernel& Program::kernel(const std::string& name) {
  std::lock_guard lock(mutex_);
  std::unique_ptr<Kernel>& kernel = kernels_[name];
  if (!kernel) {
    const ptx::Function* f = module_->find(name);
    if (!f || !f->is_entry) fail("no kernel is named {}", name);
    kernel = decode(*this, *f);
  }
  return *kernel;
}

void* Program::variable(const std::string& name, uint64_t* bytes) const {
  const auto it = variables_.find(name);
  if (it == variables_.end()) return nullptr;
  if (bytes) *bytes = it->second.second;
  return it->second.first;
}

const KernelInfo& info(const Kernel& kernel) { return kernel.info; }

std::vector<std::string> variants(const ptx::Module& module) {
  std::set<std::string> all;
  for (const ptx::Function& f : module.functions)
    for (const ptx::Instruction& i : f.instructions) all.insert(i.variant());
  return {all.begin(), all.end()};
}

}  // namespace gpusim
