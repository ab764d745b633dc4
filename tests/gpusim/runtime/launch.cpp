#include <cstring>

#include "gpusim/runtime/occupancy.h"
#include "gpusim/runtime/tasks.h"

namespace gpusim {

namespace {

thread_local std::vector<Configuration> configurations;

void check(const Configuration& with, const KernelInfo& kernel, const CUkern_st& handle, const Device& device) {
  const unsigned grid[3] = {with.grid.x, with.grid.y, with.grid.z};
  const unsigned block[3] = {with.block.x, with.block.y, with.block.z};
  for (int i = 0; i < 3; ++i) {
    require(grid[i] > 0 && grid[i] <= static_cast<unsigned>(max_grid[i]), cudaErrorInvalidConfiguration);
    require(block[i] > 0 && block[i] <= static_cast<unsigned>(max_block[i]), cudaErrorInvalidConfiguration);
  }
  const uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
  require(threads <= max_threads_per_block, cudaErrorInvalidConfiguration);
  // __launch_bounds__: registers are handed out for no more threads than that.
  require(threads <= kernel.max_threads, cudaErrorLaunchOutOfResources);
  require(with.shared <= dynamic_limit(handle, kernel, device.number));
}

/// What later calls answer after a fault.
cudaError_t error_of(Finding::What fault) {
  switch (fault) {
    case Finding::What::out_of_bounds:
    case Finding::What::use_after_free:
      return cudaErrorIllegalAddress;
    case Finding::What::misaligned:
      return cudaErrorMisalignedAddress;
    case Finding::What::deadlock:
      return cudaErrorLaunchTimeout;
    default:
      return cudaErrorLaunchFailure;
  }
}

std::vector<std::byte> pack(const KernelInfo& kernel, void** arguments) {
  std::vector<std::byte> packed(kernel.parameter_bytes);
  for (size_t i = 0; i < kernel.parameters.size(); ++i)
    std::memcpy(packed.data() + kernel.parameters[i].offset, arguments[i], kernel.parameters[i].bytes);
  return packed;
}

}  // namespace

Task launch_task(Device& device, CUkern_st& handle, const Configuration& with, void** arguments, bool cooperative) {
  const Kernel& kernel = kernel_on(handle, device);
  const KernelInfo& facts = info(kernel);
  check(with, facts, handle, device);
  Launch launch{.grid = {with.grid.x, with.grid.y, with.grid.z},
                .block = {with.block.x, with.block.y, with.block.z},
                .dynamic_shared = static_cast<uint32_t>(with.shared),
                .parameters = pack(facts, arguments)};
  if (cooperative) {
    const int threads = static_cast<int>(with.block.x * with.block.y * with.block.z);
    const uint64_t fit = uint64_t(blocks_per_multiprocessor(facts, device.facts, threads, with.shared)) *
                         uint64_t(device.facts.multiprocessors);
    require(uint64_t{with.grid.x} * with.grid.y * with.grid.z <= fit, cudaErrorCooperativeLaunchTooLarge);
  }
  return {.kind = Task::Kind::kernel,
          .name = facts.name,
          .run = [&kernel, launch = std::move(launch), number = device.number](const Operation& now) mutable {
            launch.operation = &now;
            Finding::What fault{};
            if (!run(kernel, launch, &fault)) lose_context(number, error_of(fault));
          }};
}

namespace {

void launch(State& s, CUkern_st& kernel, const Configuration& with, void** arguments, bool cooperative) {
  CUstream_st& stream = stream_of(s, with.stream);
  Device& device = gpusim::device(s);
  require(stream.device == device.number, cudaErrorInvalidResourceHandle);
  submit(stream, launch_task(device, kernel, with, arguments, cooperative));
}

cudaError_t launch_call(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                        cudaStream_t stream, bool cooperative = false) {
  return call([&](State& s) { launch(s, kernel_of(function), {grid, block, shared, stream}, arguments, cooperative); });
}

cudaStream_t per_thread_if_null(cudaStream_t stream) { return stream ? stream : cudaStreamPerThread; }

/// Attributes that change only how fast a launch is are passed over.
bool is_cooperative(const cudaLaunchConfig_t& config) {
  bool cooperative = false;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    switch (attribute.id) {
      case cudaLaunchAttributeIgnore:
      case cudaLaunchAttributeAccessPolicyWindow:
      case cudaLaunchAttributeSynchronizationPolicy:
      case cudaLaunchAttributeClusterSchedulingPolicyPreference:
      case cudaLaunchAttributeProgrammaticStreamSerialization:
      case cudaLaunchAttributePriority:
      case cudaLaunchAttributeMemSyncDomainMap:
      case cudaLaunchAttributeMemSyncDomain:
      case cudaLaunchAttributePreferredClusterDimension:
      case cudaLaunchAttributePreferredSharedMemoryCarveout:
      case cudaLaunchAttributeNvlinkUtilCentricScheduling:
        break;
      case cudaLaunchAttributeCooperative:
        cooperative = attribute.val.cooperative != 0;
        break;
      case cudaLaunchAttributeClusterDimension:
        if (uint64_t{attribute.val.clusterDim.x} * attribute.val.clusterDim.y * attribute.val.clusterDim.z > 1)
          not_supported("clusters of more than one block");
        break;
      default:
        not_supported(fmt::format("launch attribute {}", static_cast<int>(attribute.id)));
    }
  }
  return cooperative;
}

cudaError_t launch_config_call(const cudaLaunchConfig_t* config, const void* function, void** arguments,
                               cudaStream_t stream) {
  return call([&](State& s) {
    require(config);
    launch(s, kernel_of(function), {config->gridDim, config->blockDim, config->dynamicSmemBytes, stream}, arguments,
           is_cooperative(*config));
  });
}

}  // namespace

}  // namespace gpusim

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  gpusim::configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (gpusim::configurations.empty()) return gpusim::record_error(cudaErrorMissingConfiguration);
  const gpusim::Configuration last = gpusim::configurations.back();
  gpusim::configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return gpusim::launch_call(kernel, grid, block, arguments, shared, stream);
}

cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                                    cudaStream_t stream) {
  return gpusim::launch_call(kernel, grid, block, arguments, shared, gpusim::per_thread_if_null(stream));
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return gpusim::launch_call(function, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernel_ptsz(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                                  cudaStream_t stream) {
  return gpusim::launch_call(function, grid, block, arguments, shared, gpusim::per_thread_if_null(stream));
}

cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                                        cudaStream_t stream) {
  return gpusim::launch_call(function, grid, block, arguments, shared, stream, true);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return gpusim::launch_config_call(config, function, arguments, config ? config->stream : nullptr);
}

cudaError_t cudaLaunchKernelExC_ptsz(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return gpusim::launch_config_call(config, function, arguments,
                                    gpusim::per_thread_if_null(config ? config->stream : nullptr));
}
}
