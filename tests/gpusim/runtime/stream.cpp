#include <algorithm>

#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/tasks.h"

using namespace gpusim;

namespace {

constexpr int greatest_priority = -5;  // as on an H100; lower numbers come first

void create(State& s, cudaStream_t* stream, unsigned flags, int priority) {
  require(stream && (flags == cudaStreamDefault || flags == cudaStreamNonBlocking));
  const bool blocking = flags == cudaStreamDefault;
  *stream = new CUstream_st{.kind = blocking ? CUstream_st::Kind::blocking : CUstream_st::Kind::non_blocking,
                            .device = device(s).number,
                            .priority = std::clamp(priority, greatest_priority, 0),
                            .id = s.next_id++,
                            .queue = new_queue()};
  s.streams.insert(*stream);
}

/// Its works still run; the handle is gone.
void destroy(State& s, CUstream_st& stream) {
  require(stream.kind == CUstream_st::Kind::blocking || stream.kind == CUstream_st::Kind::non_blocking,
          cudaErrorInvalidResourceHandle);
  if (stream.capture) {
    stream.capture->invalid = true;
    stream.capture->streams.erase(&stream);
    if (stream.capture->origin == &stream) abandon(*stream.capture);
  }
  if (stream.kind == CUstream_st::Kind::blocking && stream.last)
    device_of(s, stream.device).orphans.push_back(stream.last);
  retire_queue(stream.queue, stream.last);
  s.streams.erase(&stream);
  delete &stream;
}

}  // namespace

namespace gpusim {

Task host_task(std::string name, std::function<void()> function) {
  return {.kind = Task::Kind::host, .name = std::move(name), .run = [function = std::move(function)](const Operation&) {
            run_host_function(function);
          }};
}

}  // namespace gpusim

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return call([&](State& s) { create(s, stream, cudaStreamDefault, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call([&](State& s) { create(s, stream, flags, 0); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return call([&](State& s) { create(s, stream, flags, priority); });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call([&](State& s) { destroy(s, stream_of(s, stream)); });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call([&](State& s) {
    CUstream_st& of = stream_of(s, stream);
    check_not_capturing(of);
    check_legacy_use(s, of);
    wait_for(predecessors(of));
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call([&](State& s) {
    CUstream_st& of = stream_of(s, stream);
    check_not_capturing(of);
    check_legacy_use(s, of);
    step();
    const WorkList works = predecessors(of);
    for (const auto& work : works) require(work->state == Work::State::done, cudaErrorNotReady);
    wait_for(works);
  });
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data, unsigned flags) {
  return call([&](State& s) {
    require(callback && flags == 0);
    CUstream_st& of = stream_of(s, stream);
    check_not_capturing(of);
    submit(of, host_task("the function of cudaStreamAddCallback", [=] { callback(stream, cudaSuccess, data); }));
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return call([&](State& s) {
    require(function);
    submit(stream_of(s, stream), host_task("the function of cudaLaunchHostFunc", [=] { function(data); }));
  });
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return call([&](State& s) {
    require(priority);
    *priority = stream_of(s, stream).priority;
  });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return call([&](State& s) {
    require(flags);
    *flags = stream_of(s, stream).kind == CUstream_st::Kind::non_blocking ? cudaStreamNonBlocking : cudaStreamDefault;
  });
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  return call([&](State& s) {
    require(id);
    *id = stream_of(s, stream).id;
  });
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* number) {
  return call([&](State& s) {
    require(number);
    *number = stream_of(s, stream).device;
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return call([&](State& s) {
    device(s);
    if (least) *least = 0;
    if (greatest) *greatest = greatest_priority;
  });
}

// Attributes of streams change how fast things are, not what they do.
cudaError_t cudaStreamSetAttribute(cudaStream_t stream, cudaStreamAttrID, const cudaStreamAttrValue*) {
  return call([&](State& s) { stream_of(s, stream); });
}

cudaError_t cudaStreamCopyAttributes(cudaStream_t to, cudaStream_t from) {
  return call([&](State& s) {
    stream_of(s, to);
    stream_of(s, from);
  });
}

cudaError_t cudaCtxResetPersistingL2Cache() {
  return call([](State& s) { device(s); });
}
}
