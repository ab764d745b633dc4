#include <algorithm>
#include <cstring>

#include "engine/cuda.h"

namespace lightcone::cuda {

namespace {

struct Destroy {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  void operator()(unsigned char* pinned) const { cudaFreeHost(pinned); }
};
using Stream = std::unique_ptr<CUstream_st, Destroy>;
using Event = std::unique_ptr<CUevent_st, Destroy>;
using Pinned = std::unique_ptr<unsigned char, Destroy>;

/// Copies through two pieces of pinned memory, so that one is filled or emptied while the other travels.
class Staging {
 public:
  void copy_in(cudaStream_t stream, unsigned char* to, const unsigned char* from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += piece) {
      const size_t count = std::min(piece, bytes - at);
      Piece& p = next();
      check_cuda(cudaEventSynchronize(p.free.get()), "waiting for a copy");
      std::memcpy(p.data.get(), from + at, count);
      check_cuda(cudaMemcpyAsync(to + at, p.data.get(), count, cudaMemcpyHostToDevice, stream), "copying to the GPU");
      check_cuda(cudaEventRecord(p.free.get(), stream), "copying to the GPU");
    }
  }

  void copy_out(cudaStream_t stream, unsigned char* to, const unsigned char* from, size_t bytes) {
    auto ask = [&](size_t at) -> Piece* {
      if (at >= bytes) return nullptr;
      // What still reads this piece, a copy to the GPU, comes before on the same stream.
      Piece& p = next();
      check_cuda(cudaMemcpyAsync(p.data.get(), from + at, std::min(piece, bytes - at), cudaMemcpyDeviceToHost, stream),
                 "copying from the GPU");
      check_cuda(cudaEventRecord(p.free.get(), stream), "copying from the GPU");
      return &p;
    };
    Piece* p = ask(0);
    for (size_t at = 0; p; at += piece) {
      Piece* following = ask(at + piece);
      check_cuda(cudaEventSynchronize(p->free.get()), "copying from the GPU");
      std::memcpy(to + at, p->data.get(), std::min(piece, bytes - at));
      p = following;
    }
  }

 private:
  static constexpr size_t piece = size_t{2} << 20;
  struct Piece {
    Pinned data;
    Event free;  // after the last copy from or to it
  };
  Piece& next() {
    Piece& p = pieces_[use_++ % 2];
    if (!p.free) {
      void* data = nullptr;
      cudaEvent_t event = nullptr;
      check_cuda(cudaMallocHost(&data, piece), "pinned memory");
      p.data.reset(static_cast<unsigned char*>(data));
      check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
      p.free.reset(event);
    }
    return p;
  }
  Piece pieces_[2];
  unsigned use_ = 0;
};

/// Pinned memory for what is read later, with the event after its last copy; kept for the next reading.
struct Landing {
  Pinned data;
  size_t bytes = 0;
  Event arrived;
};

class CudaAllocator final : public Allocator {
 public:
  CudaAllocator() {
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    stream_.reset(stream);
  }
  ~CudaAllocator() override {
    cudaStreamSynchronize(stream_.get());
    free_blocks();
  }

  Block allocate(size_t bytes) override {
    size_t index = class_of(bytes);
    std::lock_guard lock(mutex_);
    if (guard_) {
      void* data = bytes ? from_system(bytes) : nullptr;
      count(static_cast<int64_t>(bytes), true);
      return {data, bytes, index};
    }
    void* data = reuse(index);
    const bool fresh = !data;
    if (fresh) {
      lists_[index].blocks.reserve(lists_[index].known + 1);
      data = from_system(class_size(index));
      ++lists_[index].known;
    }
    count(static_cast<int64_t>(class_size(index)), fresh);
    return {data, bytes, index};
  }

  void release(const Block& block) noexcept override {
    if (!block.data) return;
    std::lock_guard lock(mutex_);
    if (guard_) {
      cudaFree(block.data);  // waits for the GPU; its errors come back with the next call
      statistics_.reserved -= static_cast<int64_t>(block.bytes);
      statistics_.in_use -= static_cast<int64_t>(block.bytes);
    } else {
      lists_[block.size_class].blocks.push_back(block.data);
      statistics_.in_use -= static_cast<int64_t>(class_size(block.size_class));
    }
  }

  void trim() override {
    std::lock_guard lock(mutex_);
    free_blocks();
  }

  void set_guard(bool on) override {
    std::lock_guard lock(mutex_);
    if (statistics_.in_use != 0) throw Error("memory: the guard can only be switched while nothing is allocated");
    free_blocks();
    guard_ = on;
  }

  Device device() const override { return Device::cuda; }
  CUstream_st* stream() const override { return stream_.get(); }

  void clear(void* data, size_t bytes) override {
    if (bytes) check_cuda(cudaMemsetAsync(data, 0, bytes, stream_.get()), "clearing memory");
  }
  void copy_in(void* to, const void* from, size_t bytes) override {
    std::lock_guard lock(copying_);
    staging_.copy_in(stream_.get(), static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    std::lock_guard lock(copying_);
    staging_.copy_out(stream_.get(), static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes);
  }
  std::function<Bytes()> start_copy_out(const std::vector<Piece>& pieces) override {
    size_t bytes = 0;
    for (const Piece& piece : pieces) bytes += piece.bytes;
    const auto landing = std::make_shared<Landing>(take_landing(bytes));
    size_t at = 0;
    for (const Piece& piece : pieces) {
      check_cuda(
          cudaMemcpyAsync(landing->data.get() + at, piece.data, piece.bytes, cudaMemcpyDeviceToHost, stream_.get()),
          "copying from the GPU");
      at += piece.bytes;
    }
    check_cuda(cudaEventRecord(landing->arrived.get(), stream_.get()), "copying from the GPU");
    return [this, landing, bytes] {
      check_cuda(cudaEventSynchronize(landing->arrived.get()), "copying from the GPU");
      Bytes out(landing->data.get(), landing->data.get() + bytes);
      std::lock_guard lock(copying_);
      landings_.push_back(std::move(*landing));
      return out;
    };
  }
  void copy_within(void* to, const void* from, size_t bytes) override {
    if (bytes)
      check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.get()), "copying on the GPU");
  }
  void synchronize() override { check_cuda(cudaStreamSynchronize(stream_.get()), "waiting for the GPU"); }

 private:
  // Returns cached blocks if that is what it takes.
  void* from_system(size_t size) {
    void* data = nullptr;
    cudaError_t status = cudaMalloc(&data, size);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      free_blocks();
      status = cudaMalloc(&data, size);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail("memory", "no room for {} bytes on the GPU ({} in use); use a smaller batch", size, statistics_.in_use);
    }
    check_cuda(status, "memory");
    return data;
  }

  void free_blocks() {
    for (size_t index = 0; index < lists_.size(); ++index) {
      FreeList& list = lists_[index];
      if (list.blocks.empty()) continue;
      for (void* block : list.blocks) cudaFree(block);  // waits for the GPU
      statistics_.reserved -= static_cast<int64_t>(class_size(index) * list.blocks.size());
      list.known -= list.blocks.size();
      list.blocks.clear();
    }
  }

  Landing take_landing(size_t bytes) {
    {
      std::lock_guard lock(copying_);
      for (size_t i = landings_.size(); i-- > 0;)
        if (landings_[i].bytes >= bytes) {
          Landing found = std::move(landings_[i]);
          landings_.erase(landings_.begin() + static_cast<int64_t>(i));
          return found;
        }
    }
    Landing fresh;
    void* data = nullptr;
    cudaEvent_t event = nullptr;
    fresh.bytes = std::max<size_t>(bytes, 512);
    check_cuda(cudaMallocHost(&data, fresh.bytes), "pinned memory");
    fresh.data.reset(static_cast<unsigned char*>(data));
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
    fresh.arrived.reset(event);
    return fresh;
  }

  Stream stream_;
  std::mutex copying_;
  std::vector<Landing> landings_;
  Staging staging_;
};

}  // namespace

std::shared_ptr<Allocator> make_allocator() { return std::make_shared<CudaAllocator>(); }

}  // namespace lightcone::cuda
