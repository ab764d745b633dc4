#include "gpusim/runtime/state.h"

#include <algorithm>
#include <cstdlib>

#include "gpusim/machine/findings.h"
#include "gpusim/runtime/exit.h"

namespace gpusim {

namespace {

constexpr uint64_t pinned_capacity = uint64_t{64} << 30;
constexpr int most_devices = 64;  // peer access is kept as bits

thread_local int thread_device = 0;
thread_local cudaError_t thread_error = cudaSuccess;
thread_local bool thread_in_host_function = false;

int number_in(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text && *text ? std::atoi(text) : otherwise;
}

CUstream_st* new_stream(State& s, int device, CUstream_st::Kind kind) {
  auto* stream = new CUstream_st{.kind = kind, .device = device, .id = s.next_id++, .queue = new_queue()};
  s.streams.insert(stream);
  return stream;
}

}  // namespace

Device::Device(int number, const DeviceFacts& facts)
    : number(number),
      facts(facts),
      memory("device " + std::to_string(number), facts.memory_bytes, Memory::Host::sees_nothing),
      legacy{.kind = CUstream_st::Kind::legacy, .device = number},
      default_pool{.device = number} {}

State::State() : pinned("pinned host memory", pinned_capacity, Memory::Host::sees_bytes) {
  const DeviceFacts& facts = device_facts(number_in("GPUSIM_ARCH", 90));
  const int count = std::clamp(number_in("GPUSIM_DEVICES", 2), 0, most_devices);
  for (int number = 0; number < count; ++number) {
    Device& made = devices.emplace_back(number, facts);
    made.legacy.queue = queues++;
    made.legacy.id = next_id++;
    pools.insert(&made.default_pool);
  }
  finish_at_exit();
}

State& state() {
  static State* const one = new State;
  return *one;
}

int current_device() { return thread_device; }
void set_current_device(int device) { thread_device = device; }

void refuse(cudaError_t error, Finding::What what, std::string text, const void* address) {
  Finding finding;
  finding.what = what;
  finding.text = std::move(text);
  finding.address = reinterpret_cast<uint64_t>(address);
  report(std::move(finding));
  refuse(error);
}

void not_supported(std::string_view text) {
  fmt::print(stderr, "gpusim: {}\n", text);
  refuse(cudaErrorNotSupported);
}

cudaError_t record_error(cudaError_t error) {
  if (error != cudaSuccess) thread_error = error;
  return error;
}

namespace detail {

bool in_host_function() { return thread_in_host_function; }

cudaError_t lost_error() {
  const State& s = state();
  const auto number = static_cast<size_t>(current_device());
  return number < s.devices.size() ? s.devices[number].lost : cudaSuccess;
}

cudaError_t answer_of_exception() {
  try {
    throw;
  } catch (const Refusal& refusal) {
    return refusal.error;
  } catch (const Error& error) {
    Finding finding;
    finding.text = fmt::format("gpusim cannot do this: {}", error.what());
    report(std::move(finding));
    return cudaErrorNotSupported;
  }
}

}  // namespace detail

void run_host_function(const std::function<void()>& function) {
  State& s = state();
  const bool before = thread_in_host_function;
  thread_in_host_function = true;
  s.mutex.unlock();
  function();
  s.mutex.lock();
  thread_in_host_function = before;
}

Device& device_of(State& s, int number) {
  require(number >= 0 && static_cast<size_t>(number) < s.devices.size(),
          s.devices.empty() ? cudaErrorNoDevice : cudaErrorInvalidDevice);
  return s.devices[static_cast<size_t>(number)];
}

CUstream_st& stream_of(State& s, cudaStream_t handle) {
  thread_local std::map<int, CUstream_st*> own;
  if (handle == nullptr || handle == cudaStreamLegacy) return device(s).legacy;
  if (handle == cudaStreamPerThread) {
    CUstream_st*& stream = own[device(s).number];
    if (!stream) stream = new_stream(s, device(s).number, CUstream_st::Kind::per_thread);
    return *stream;
  }
  if (!s.streams.contains(handle))
    refuse(cudaErrorInvalidResourceHandle, Finding::What::misuse, "a stream that was destroyed, or never was one");
  return *handle;
}

CUevent_st& event_of(State& s, cudaEvent_t handle) {
  if (!s.events.contains(handle))
    refuse(cudaErrorInvalidResourceHandle, Finding::What::misuse, "an event that was destroyed, or never was one");
  return *handle;
}

Operation host_operation(State& s, std::string name) {
  Operation now = next_operation(0, s.host, std::move(name));
  join(s.host, now.seen);
  return now;
}

void lose_context(int device, cudaError_t error) { device_of(state(), device).lost = error; }

}  // namespace gpusim

extern "C" {

cudaError_t cudaGetLastError() {
  gpusim::State& s = gpusim::state();
  std::lock_guard lock(s.mutex);
  if (const cudaError_t lost = gpusim::detail::lost_error(); lost != cudaSuccess) return lost;
  return std::exchange(gpusim::thread_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError() {
  gpusim::State& s = gpusim::state();
  std::lock_guard lock(s.mutex);
  if (const cudaError_t lost = gpusim::detail::lost_error(); lost != cudaSuccess) return lost;
  return gpusim::thread_error;
}
}
