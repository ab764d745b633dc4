#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "engine/cuda.h"

namespace lightcone::cuda {

struct Destroy {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  void operator()(unsigned char* pinned) const { cudaFreeHost(pinned); }
};
using Stream = std::unique_ptr<CUstream_st, Destroy>;
using Event = std::unique_ptr<CUevent_st, Destroy>;
using Pinned = std::unique_ptr<unsigned char, Destroy>;

Stream make_stream();
Event make_event();
Pinned make_pinned(size_t bytes);

/// Copies between the CPU's memory and the GPU's through a ring of pinned memory, in order with the kernels of one
/// stream. Not for two threads at once.
///
/// To the GPU the host goes on as soon as its bytes are in the ring, and waits only where the GPU is a whole ring
/// behind. Copies of at least `beside` bytes travel beside the kernels: on a stream of their own into a ring of the
/// GPU's memory, which no kernel knows, and from there to their place in order with the kernels.
class Staging {
 public:
  explicit Staging(cudaStream_t stream) : stream_(stream) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// While the stream is recorded (graph.h) the bytes are kept for every replay.
  void copy_in(unsigned char* to, const unsigned char* from, size_t bytes);
  /// Waits for what the stream does before.
  void copy_out(unsigned char* to, const unsigned char* from, size_t bytes);

  /// Throws Error while the stream is recorded.
  void require_no_recording() const;

  static constexpr size_t ring = size_t{16} << 20, piece = size_t{2} << 20, beside = size_t{64} << 10;

 private:
  /// Bytes of the ring that are in use until `free`.
  struct Region {
    size_t begin, end;
    Event free;
  };
  /// Where in the ring `bytes` (at most a piece) are free; waits for them if need be.
  size_t reserve(size_t bytes);
  /// The bytes at `begin` are free again when the stream gets here.
  void occupy(size_t begin, size_t bytes);
  void travel_beside(size_t at, size_t bytes);
  bool recorded() const;

  cudaStream_t stream_;
  Pinned pinned_;
  unsigned char* on_gpu_ = nullptr;
  Stream copies_;
  Event arrived_;
  size_t next_ = 0;
  std::deque<Region> in_use_;  // the oldest first
  std::vector<Event> spare_;
  std::vector<Pinned> kept_;  // what graphs copy from
};

}  // namespace lightcone::cuda
