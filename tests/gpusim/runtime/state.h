#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gpusim/error.h"
#include "gpusim/machine/memory.h"
#include "gpusim/report.h"
#include "gpusim/runtime/device_facts.h"
#include "gpusim/runtime/handles.h"

namespace gpusim {

struct Device {
  Device(int number, const DeviceFacts& facts);

  const int number;
  const DeviceFacts& facts;
  Memory memory;
  cudaError_t lost = cudaSuccess;  ///< a fault ended the context: every later call answers this
  CUstream_st legacy;
  Clock done;        ///< all that ran here so far
  WorkList orphans;  ///< the last works of blocking streams that were destroyed since the legacy stream's last one
  CUmemPoolHandle_st default_pool;
  CUmemPoolHandle_st* pool = &default_pool;
  unsigned flags = 0;
  std::map<cudaLimit, size_t> limits;
};

/// Everything that the runtime knows; made at the first call, never destroyed.
struct State {
  State();

  std::mutex mutex;
  std::condition_variable_any changed;  ///< a work that another thread runs is done

  std::deque<Device> devices;
  Memory pinned;
  std::map<uint64_t, uint64_t> registered;  ///< cudaHostRegister: start and bytes

  std::set<CUstream_st*> streams;
  std::set<CUevent_st*> events;
  std::set<CUmemPoolHandle_st*> pools;
  std::map<void*, CUmemPoolHandle_st*> pool_of;
  std::vector<std::shared_ptr<Capture>> captures;
  uint64_t next_id = 1;  ///< of streams and captures

  WorkList pending;  ///< in the order in which they were queued
  Clock host;        ///< what the host has waited for
  std::vector<std::pair<uint32_t, std::shared_ptr<Work>>> retired_queues;
  uint32_t queues = 1;  ///< 0 is the host
  uint64_t seed = 0;    ///< with which `random` was started
  std::mt19937_64 random;
};
State& state();

// Of the calling thread.
int current_device();
void set_current_device(int device);

/// Thrown by the body of a call: what the call answers.
struct Refusal {
  cudaError_t error;
};
[[noreturn]] inline void refuse(cudaError_t error) { throw Refusal{error}; }
inline void require(bool condition, cudaError_t error = cudaErrorInvalidValue) {
  if (!condition) refuse(error);
}
/// Also a finding, for what CUDA leaves undefined or programs tend not to check.
[[noreturn]] void refuse(cudaError_t error, Finding::What what, std::string text, const void* address = nullptr);
/// Says what gpusim lacks, and refuses with cudaErrorNotSupported.
[[noreturn]] void not_supported(std::string_view text);

/// Whether a call may be made after a fault ended the context, and in a host function.
enum class Calls : uint8_t { need_context, always };

cudaError_t record_error(cudaError_t error);
namespace detail {
bool in_host_function();
cudaError_t lost_error();
cudaError_t answer_of_exception();
}  // namespace detail

/// The frame of every function of the runtime: one at a time, errors kept for cudaGetLastError().
template <class Body>
cudaError_t call(Calls calls, Body&& body) {
  if (calls == Calls::need_context && detail::in_host_function()) return record_error(cudaErrorNotPermitted);
  State& s = state();
  std::lock_guard lock(s.mutex);
  cudaError_t answer = calls == Calls::need_context ? detail::lost_error() : cudaSuccess;
  if (answer == cudaSuccess) {
    try {
      body(s);
    } catch (...) {
      answer = detail::answer_of_exception();
    }
    if (calls == Calls::need_context && detail::lost_error() != cudaSuccess) answer = detail::lost_error();
  }
  return record_error(answer);
}
template <class Body>
cudaError_t call(Body&& body) {
  return call(Calls::need_context, std::forward<Body>(body));
}

/// Runs a host function of a stream, without the lock; it may not call the runtime.
void run_host_function(const std::function<void()>& function);

Device& device_of(State& s, int number);
inline Device& device(State& s) { return device_of(s, current_device()); }
/// The stream of a handle, 0 and the two special ones included.
CUstream_st& stream_of(State& s, cudaStream_t handle);
CUevent_st& event_of(State& s, cudaEvent_t handle);

/// The host's own doing, ordered after all that it has waited for and before all that it queues from now on.
Operation host_operation(State& s, std::string name);

/// A kernel's fault, or what gpusim cannot do in one: the context of the device is lost.
void lose_context(int device, cudaError_t error);

}  // namespace gpusim
