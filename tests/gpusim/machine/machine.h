#pragma once
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "gpusim/machine/memory.h"
#include "gpusim/machine/timeline.h"
#include "gpusim/ptx/module.h"
#include "gpusim/report.h"

namespace gpusim {

struct Kernel;

/// A module loaded on a device: its global and constant variables have addresses there and their first values.
class Program {
 public:
  Program(std::shared_ptr<const ptx::Module> module, Memory& memory, int device);
  ~Program();

  /// Decodes at the first call. Throws Error if there is no such entry, or it has an instruction that gpusim does not
  /// know: the message names the instruction and its source line.
  const Kernel& kernel(const std::string& name);
  bool has_kernel(const std::string& name) const;
  /// Address and size of a global or constant variable; null if there is none.
  void* variable(const std::string& name, uint64_t* bytes = nullptr) const;

  const ptx::Module& module() const { return *module_; }
  Memory& memory() const { return memory_; }
  int device() const { return device_; }

 private:
  std::shared_ptr<const ptx::Module> module_;
  Memory& memory_;
  int device_;
  std::map<std::string, std::pair<void*, uint64_t>> variables_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
  std::mutex mutex_;
};

/// What cudaFuncGetAttributes tells, and how a launch packs its arguments.
struct KernelInfo {
  std::string name;  ///< demangled
  struct Parameter {
    uint32_t offset = 0, bytes = 0;
  };
  std::vector<Parameter> parameters;
  uint32_t parameter_bytes = 0;
  uint32_t static_shared = 0, local_bytes = 0;
  uint32_t registers = 0;  ///< an estimate: the most 32-bit registers that are alive at once
  uint32_t max_threads = 1024;
};
const KernelInfo& info(const Kernel& kernel);

struct Launch {
  std::array<uint32_t, 3> grid{1, 1, 1}, block{1, 1, 1};
  uint32_t dynamic_shared = 0;
  std::vector<std::byte> parameters;  ///< parameter_bytes of them
  const Operation* operation = nullptr;
};

/// Runs a launch to its end on the calling thread and workers. Returns false if a fault ended it (out of bounds,
/// misaligned, trap, deadlock): the context is then lost, as on a GPU. Other findings are reported and the launch goes
/// on. Throws Error for an instruction that gpusim cannot do in this place. `fault` gets the fault that ended it.
bool run(const Kernel& kernel, const Launch& launch, Finding::What* fault = nullptr);

/// A C++ name as its source has it.
std::string demangled(const std::string& name);

/// All variants ("ld.global.nc.v2.u64") of the instructions of a module, sorted, each once.
std::vector<std::string> variants(const ptx::Module& module);

/// The number of thread instructions that this process has run, and the seconds within run(), for throughput.
struct Throughput {
  uint64_t thread_instructions = 0;
  double seconds = 0;
};
Throughput throughput();

}  // namespace gpusim
