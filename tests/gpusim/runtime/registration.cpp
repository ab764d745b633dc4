#include "gpusim/runtime/registration.h"

#include <unordered_map>

#include "gpusim/ptx/machine_code.h"
#include "gpusim/ptx/parser.h"

namespace gpusim {

namespace {

struct Registry {
  std::vector<std::unique_ptr<FatBinary>> binaries;
  std::unordered_map<const void*, std::unique_ptr<CUkern_st>> kernels;  // by host function
  std::unordered_map<const void*, CUkern_st*> handles;
  std::unordered_map<const void*, Symbol> symbols;
};

Registry& registry() {
  static Registry* const one = new Registry;
  return *one;
}

FatBinary& binary_of(void** handle) { return *reinterpret_cast<FatBinary*>(handle); }

}  // namespace

Program& program_of(FatBinary& binary, Device& device) {
  std::unique_ptr<Program>& program = binary.programs[device.number];
  if (program) return *program;
  if (!binary.images_known) {
    binary.images = ptx::images(binary.wrapper);
    binary.images_known = true;
  }
  const ptx::Image* best = nullptr;
  for (const ptx::Image& image : binary.images)
    if (image.target <= device.facts.capability && (!best || image.target > best->target)) best = &image;
  require(best, cudaErrorNoKernelImageForDevice);
  std::shared_ptr<const ptx::Module>& module = binary.modules[best->target];
  if (!module) module = std::make_shared<const ptx::Module>(ptx::parse(best->text));
  program = std::make_unique<Program>(module, device.memory, device.number);
  host_operation(state(), "loading a module");  // what is queued from now on sees the variables' first values
  return *program;
}

CUkern_st& kernel_of(const void* function) {
  Registry& all = registry();
  if (const auto found = all.kernels.find(function); found != all.kernels.end()) return *found->second;
  if (const auto found = all.handles.find(function); found != all.handles.end()) return *found->second;
  refuse(cudaErrorInvalidDeviceFunction);
}

const Kernel& kernel_on(CUkern_st& kernel, Device& device) {
  Program& program = program_of(*kernel.binary, device);
  require(program.has_kernel(kernel.name), cudaErrorInvalidDeviceFunction);
  return program.kernel(kernel.name);
}

void* symbol_on(const void* symbol, Device& device, uint64_t* bytes) {
  const auto found = registry().symbols.find(symbol);
  require(found != registry().symbols.end(), cudaErrorInvalidSymbol);
  void* address = program_of(*found->second.binary, device).variable(found->second.name, bytes);
  require(address, cudaErrorInvalidSymbol);
  return address;
}

std::vector<Resources> resources() {
  std::lock_guard lock(state().mutex);
  std::vector<Resources> found;
  for (const auto& binary : registry().binaries) {
    const auto more = ptx::machine_code(ptx::entries_of(binary->wrapper));
    found.insert(found.end(), more.begin(), more.end());
  }
  return found;
}

void unload_all(int device) {
  for (const auto& binary : registry().binaries) binary->programs.erase(device);
}

}  // namespace gpusim

// What nvcc's host code calls before main() and around <<<>>>. The toolkit's headers declare these for nvcc only.
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  using namespace gpusim;
  std::lock_guard lock(state().mutex);
  auto& binaries = registry().binaries;
  binaries.push_back(std::make_unique<FatBinary>());
  binaries.back()->wrapper = wrapper;
  return reinterpret_cast<void**>(binaries.back().get());
}

void __cudaRegisterFatBinaryEnd(void**) {}

/// The object's code is still needed by what runs at the very end.
void __cudaUnregisterFatBinary(void**) {}

char __cudaInitModule(void**) { return 0; }

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  using namespace gpusim;
  std::lock_guard lock(state().mutex);
  auto& kernel = registry().kernels[host];
  kernel.reset(new CUkern_st{.host = host, .name = name, .binary = &binary_of(binary)});
  registry().handles[kernel.get()] = kernel.get();
}

void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t, int, int) {
  using namespace gpusim;
  std::lock_guard lock(state().mutex);
  registry().symbols[host] = {.name = name, .binary = &binary_of(binary)};
}

void __cudaRegisterManagedVar(void**, void**, char*, const char* name, int, size_t, int, int) {
  fmt::print(stderr, "gpusim: {} is a __managed__ variable, and there is no managed memory here\n", name);
  std::abort();
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  using namespace gpusim;
  return call(Calls::always, [&](State&) { *kernel = &kernel_of(function); });
}

cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* function) { return __cudaGetKernel(kernel, function); }

cudaError_t cudaGetFuncBySymbol(cudaFunction_t* function, const void* symbol) {
  using namespace gpusim;
  return call([&](State&) { *function = reinterpret_cast<cudaFunction_t>(&kernel_of(symbol)); });
}
}
