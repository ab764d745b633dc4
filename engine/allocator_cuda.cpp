#include <algorithm>
#include <cstring>

#include "engine/staging.h"

namespace lightcone::cuda {

namespace {

/// Pinned memory for what is read later, with the event after its last copy; kept for the next reading.
struct Landing {
  Pinned data;
  size_t bytes = 0;
  Event arrived;
};

class CudaAllocator final : public Allocator {
 public:
  explicit CudaAllocator(const CudaAllocator* beside) : stream_(beside ? beside->stream_ : make_stream()) {}
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
    staging_.copy_in(static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    std::lock_guard lock(copying_);
    staging_.copy_out(static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes);
  }
  std::function<Bytes()> start_copy_out(const std::vector<Piece>& pieces) override {
    staging_.require_no_recording();
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
  void synchronize() override {
    staging_.require_no_recording();
    check_cuda(cudaStreamSynchronize(stream_.get()), "waiting for the GPU");
  }

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
    bytes = std::max<size_t>(bytes, 512);
    return {make_pinned(bytes), bytes, make_event()};
  }

  std::shared_ptr<CUstream_st> stream_;
  std::mutex copying_;
  std::vector<Landing> landings_;
  Staging staging_{stream_.get()};
};

}  // namespace

std::shared_ptr<Allocator> make_allocator(const Allocator* beside) {
  return std::make_shared<CudaAllocator>(static_cast<const CudaAllocator*>(beside));
}

}  // namespace lightcone::cuda
