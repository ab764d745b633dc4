#include "engine/cuda.h"
#include "engine/graph.h"

namespace lightcone {

struct Graph::Recording {
  std::shared_ptr<Allocator> memory;  // nobody else gets a block of it
  cudaStream_t stream = nullptr;
  cudaGraphExec_t executable = nullptr;
  ~Recording() {
    if (!executable) return;
    cudaStreamSynchronize(stream);
    cudaGraphExecDestroy(executable);
  }
};

Graph::Graph(Context& ctx, std::function<void()> work) {
  if (ctx.device() == Device::cpu)
    (work_ = std::move(work))();
  else
    record(ctx, work);
}

Graph::~Graph() = default;

void Graph::record(Context& ctx, const std::function<void()>& work) {
  using cuda::check_cuda;
  if (ctx.recording()) fail("graph", "work that is being recorded was to record a graph");
  auto recording = std::make_unique<Recording>();
  recording->memory = cuda::make_allocator(&ctx.allocator());
  recording->stream = ctx.stream();

  struct Restore {
    Context& ctx;
    std::shared_ptr<Allocator> memory;
    ~Restore() {
      ctx.recording_ = false;
      ctx.allocator_ = memory;
    }
  } restore{ctx, std::exchange(ctx.allocator_, recording->memory)};
  work();  // algorithms are chosen, and memory is there

  ctx.recording_ = true;
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeRelaxed), "recording");
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(ctx.stream(), &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check_cuda(cudaStreamEndCapture(ctx.stream(), &graph), "recording");
  const cudaError_t status = cudaGraphInstantiate(&recording->executable, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(status, "making a graph of what was recorded");
  recording_ = std::move(recording);
}

void Graph::replay() {
  if (recording_)
    cuda::check_cuda(cudaGraphLaunch(recording_->executable, recording_->stream), "replaying a graph");
  else
    work_();
}

}  // namespace lightcone
