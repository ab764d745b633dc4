#include "engine/staging.h"

#include <algorithm>
#include <cstring>

namespace lightcone::cuda {

Stream make_stream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
  return Event(event);
}

Pinned make_pinned(size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMallocHost(&data, bytes), "pinned memory");
  return Pinned(static_cast<unsigned char*>(data));
}

Staging::~Staging() {
  if (copies_) cudaStreamSynchronize(copies_.get());
  cudaFree(on_gpu_);
}

size_t Staging::reserve(size_t bytes) {
  if (!pinned_) pinned_ = make_pinned(ring);
  if (next_ + bytes > ring) next_ = 0;
  auto overlaps = [&](const Region& r) { return r.begin < next_ + bytes && next_ < r.end; };
  while (std::any_of(in_use_.begin(), in_use_.end(), overlaps)) {
    check_cuda(cudaEventSynchronize(in_use_.front().free.get()), "waiting for a copy");
    spare_.push_back(std::move(in_use_.front().free));
    in_use_.pop_front();
  }
  return next_;
}

void Staging::occupy(size_t begin, size_t bytes) {
  if (spare_.empty()) spare_.push_back(make_event());
  check_cuda(cudaEventRecord(spare_.back().get(), stream_), "an event");
  constexpr size_t aligned = 256;
  next_ = begin + (bytes + aligned - 1) / aligned * aligned;
  in_use_.push_back({begin, next_, std::move(spare_.back())});
  spare_.pop_back();
}

void Staging::travel_beside(size_t at, size_t bytes) {
  if (!on_gpu_) {
    void* data = nullptr;
    check_cuda(cudaMalloc(&data, ring), "memory for copies");
    on_gpu_ = static_cast<unsigned char*>(data);
    copies_ = make_stream();
    arrived_ = make_event();
  }
  check_cuda(cudaMemcpyAsync(on_gpu_ + at, pinned_.get() + at, bytes, cudaMemcpyHostToDevice, copies_.get()),
             "copying to the GPU");
  check_cuda(cudaEventRecord(arrived_.get(), copies_.get()), "copying to the GPU");
  check_cuda(cudaStreamWaitEvent(stream_, arrived_.get()), "copying to the GPU");
}

bool Staging::recorded() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream_, &status), "asking for a recording");
  return status != cudaStreamCaptureStatusNone;
}

void Staging::require_no_recording() const {
  if (recorded())
    fail("graph", "numbers were to be read from the GPU while its work is recorded; read them afterwards");
}

void Staging::copy_in(unsigned char* to, const unsigned char* from, size_t bytes) {
  if (bytes && recorded()) {
    kept_.push_back(make_pinned(bytes));
    std::memcpy(kept_.back().get(), from, bytes);
    check_cuda(cudaMemcpyAsync(to, kept_.back().get(), bytes, cudaMemcpyHostToDevice, stream_), "copying to the GPU");
    return;
  }
  for (size_t done = 0; done < bytes; done += piece) {
    const size_t count = std::min(piece, bytes - done), at = reserve(count);
    std::memcpy(pinned_.get() + at, from + done, count);
    if (count >= beside) travel_beside(at, count);
    const bool there = count >= beside;
    check_cuda(cudaMemcpyAsync(to + done, (there ? on_gpu_ : pinned_.get()) + at, count,
                               there ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice, stream_),
               "copying to the GPU");
    occupy(at, count);
  }
}

void Staging::copy_out(unsigned char* to, const unsigned char* from, size_t bytes) {
  require_no_recording();
  struct Part {
    size_t at;
    cudaEvent_t arrived;
  };
  auto ask = [&](size_t done) {
    const size_t count = std::min(piece, bytes - done), at = reserve(count);
    check_cuda(cudaMemcpyAsync(pinned_.get() + at, from + done, count, cudaMemcpyDeviceToHost, stream_),
               "copying from the GPU");
    occupy(at, count);
    return Part{at, in_use_.back().free.get()};
  };
  // One part travels while the other is emptied; a ring has room for many more.
  Part part = bytes ? ask(0) : Part{};
  while (bytes) {
    const size_t count = std::min(piece, bytes);
    const Part following = bytes > count ? ask(count) : Part{};
    check_cuda(cudaEventSynchronize(part.arrived), "copying from the GPU");
    std::memcpy(to, pinned_.get() + part.at, count);
    to += count, from += count, bytes -= count;
    part = following;
  }
}

}  // namespace lightcone::cuda
