#include <algorithm>

#include "gpusim/runtime/graph.h"
#include "gpusim/runtime/tasks.h"

using namespace gpusim;

// Nodes of graphs that are built by hand, and what may be changed in them.

namespace {

template <class Make>
cudaError_t add(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after, size_t count, Make&& make) {
  return call([&](State& s) {
    require(node && graph);
    *node = add_node(*graph, make(s), after, count);
  });
}

Task kernel_task(State& s, const cudaKernelNodeParams* p) {
  require(p && p->kernelParams);
  return launch_task(device(s), kernel_of(p->func), {p->gridDim, p->blockDim, p->sharedMemBytes}, p->kernelParams);
}

Task memset_task(State& s, const cudaMemsetParams* p) {
  require(p && p->width > 0 && p->height > 0);
  require(p->elementSize == 1 || p->elementSize == 2 || p->elementSize == 4);
  return set_task(s,
                  {"a memset node", p->dst, p->pitch, p->value, p->width * p->elementSize, p->height, p->elementSize});
}

Task memcpy_task(State& s, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  require(bytes > 0);
  return copy_task(s, {.call = "a memcpy node", .to = to, .from = from, .width = bytes, .kind = kind});
}

Task function_task(const cudaHostNodeParams* p) {
  require(p && p->fn);
  return host_task("the function of a host node", [function = p->fn, data = p->userData] { function(data); });
}

void set(CUgraphNode_st* node, Task task) {
  require(node && node->task.kind == task.kind);
  node->task = std::move(task);
}

void set(CUgraphExec_st* exec, const CUgraphNode_st* node, Task task) {
  require(exec && node);
  const auto found =
      std::find_if(exec->nodes.begin(), exec->nodes.end(), [&](const auto& each) { return each.of == node; });
  require(found != exec->nodes.end() && found->task.kind == task.kind);
  found->task = std::move(task);
}

}  // namespace

extern "C" {

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                  size_t count) {
  return add(node, graph, after, count, [](State&) { return Task{.name = "an empty node"}; });
}

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after, size_t count,
                                   const cudaKernelNodeParams* parameters) {
  return add(node, graph, after, count, [&](State& s) { return kernel_task(s, parameters); });
}

cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after, size_t count,
                                   const cudaMemsetParams* parameters) {
  return add(node, graph, after, count, [&](State& s) { return memset_task(s, parameters); });
}

cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                     size_t count, void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return add(node, graph, after, count, [&](State& s) { return memcpy_task(s, to, from, bytes, kind); });
}

cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after, size_t count,
                                 const cudaHostNodeParams* parameters) {
  return add(node, graph, after, count, [&](State&) { return function_task(parameters); });
}

cudaError_t cudaGraphKernelNodeSetParams(cudaGraphNode_t node, const cudaKernelNodeParams* parameters) {
  return call([&](State& s) { set(node, kernel_task(s, parameters)); });
}

cudaError_t cudaGraphMemsetNodeSetParams(cudaGraphNode_t node, const cudaMemsetParams* parameters) {
  return call([&](State& s) { set(node, memset_task(s, parameters)); });
}

cudaError_t cudaGraphMemcpyNodeSetParams1D(cudaGraphNode_t node, void* to, const void* from, size_t bytes,
                                           cudaMemcpyKind kind) {
  return call([&](State& s) { set(node, memcpy_task(s, to, from, bytes, kind)); });
}

cudaError_t cudaGraphHostNodeSetParams(cudaGraphNode_t node, const cudaHostNodeParams* parameters) {
  return call([&](State&) { set(node, function_task(parameters)); });
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* parameters) {
  return call([&](State& s) { set(exec, node, kernel_task(s, parameters)); });
}

cudaError_t cudaGraphExecMemsetNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaMemsetParams* parameters) {
  return call([&](State& s) { set(exec, node, memset_task(s, parameters)); });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t exec, cudaGraphNode_t node, void* to, const void* from,
                                               size_t bytes, cudaMemcpyKind kind) {
  return call([&](State& s) { set(exec, node, memcpy_task(s, to, from, bytes, kind)); });
}

cudaError_t cudaGraphExecHostNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                           const cudaHostNodeParams* parameters) {
  return call([&](State&) { set(exec, node, function_task(parameters)); });
}
}
