#include "gpusim/runtime/graph.h"

#include <algorithm>

#include "gpusim/runtime/capture.h"

namespace gpusim {

namespace {

using Nodes = std::vector<const CUgraphNode_st*>;

/// The nodes, each after those that it stands after; otherwise in the order in which they were made.
Nodes sorted(const CUgraph_st& graph) {
  Nodes order;
  std::set<const CUgraphNode_st*> placed;
  while (order.size() < graph.nodes.size()) {
    const size_t before = order.size();
    for (const auto& node : graph.nodes) {
      if (placed.contains(node.get())) continue;
      if (!std::all_of(node->after.begin(), node->after.end(), [&](const auto* each) { return placed.contains(each); }))
        continue;
      placed.insert(node.get());
      order.push_back(node.get());
    }
    require(order.size() > before);  // a cycle
  }
  return order;
}

std::vector<uint32_t> numbers_of(const std::vector<CUgraphNode_st*>& nodes, const Nodes& order) {
  std::vector<uint32_t> numbers;
  for (const CUgraphNode_st* node : nodes)
    numbers.push_back(static_cast<uint32_t>(std::find(order.begin(), order.end(), node) - order.begin()));
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

/// Nodes share a lane only if each stands after the one before, so that branches which nothing orders are told apart.
void give_lanes(CUgraphExec_st& exec) {
  std::vector<uint32_t> tails;  // by lane: its last node
  for (uint32_t i = 0; i < exec.nodes.size(); ++i) {
    CUgraphExec_st::Node& node = exec.nodes[i];
    const auto lane = std::find_if(tails.begin(), tails.end(), [&](uint32_t tail) {
      return std::find(node.after.begin(), node.after.end(), tail) != node.after.end();
    });
    node.lane = static_cast<uint32_t>(lane - tails.begin());
    if (lane == tails.end())
      tails.push_back(i);
    else
      *lane = i;
  }
  for (size_t i = 0; i < tails.size(); ++i) exec.lanes.push_back(new_queue());
}

/// A replay in a stream that is captured itself: its nodes become nodes of that graph.
void launch_captured(const CUgraphExec_st& exec, CUstream_st& stream) {
  const std::vector<CUgraphNode_st*> start = stream.tips;
  std::vector<CUgraphNode_st*> made, ends;
  for (const CUgraphExec_st::Node& node : exec.nodes) {
    stream.tips = node.after.empty() ? start : std::vector<CUgraphNode_st*>{};
    for (const uint32_t before : node.after) stream.tips.push_back(made[before]);
    capture(stream, node.task);
    made.push_back(stream.tips.front());
    made.back()->device = node.device;
    std::erase_if(ends, [&](const auto* end) {
      return std::find(made.back()->after.begin(), made.back()->after.end(), end) != made.back()->after.end();
    });
    ends.push_back(made.back());
  }
  if (!ends.empty()) stream.tips = ends;
}

}  // namespace

CUgraphNode_st* add_node(CUgraph_st& graph, Task task, const cudaGraphNode_t* after, size_t count) {
  require(after || count == 0);
  for (size_t i = 0; i < count; ++i) require(after[i] && after[i]->graph == &graph);
  graph.nodes.push_back(std::make_unique<CUgraphNode_st>(CUgraphNode_st{
      .graph = &graph, .task = std::move(task), .device = current_device(), .after = {after, after + count}}));
  return graph.nodes.back().get();
}

CUgraphExec_st* instantiate(const CUgraph_st& graph) {
  const Nodes order = sorted(graph);
  auto exec = std::make_unique<CUgraphExec_st>();
  for (const CUgraphNode_st* node : order)
    exec->nodes.push_back(
        {.of = node, .task = node->task, .device = node->device, .after = numbers_of(node->after, order)});
  give_lanes(*exec);
  return exec.release();
}

cudaGraphExecUpdateResult update(CUgraphExec_st& exec, const CUgraph_st& graph) {
  const Nodes order = sorted(graph);
  if (order.size() != exec.nodes.size()) return cudaGraphExecUpdateErrorTopologyChanged;
  for (size_t i = 0; i < order.size(); ++i) {
    const CUgraphExec_st::Node& node = exec.nodes[i];
    if (numbers_of(order[i]->after, order) != node.after) return cudaGraphExecUpdateErrorTopologyChanged;
    if (order[i]->task.kind != node.task.kind) return cudaGraphExecUpdateErrorNodeTypeChanged;
    if (order[i]->device != node.device) return cudaGraphExecUpdateErrorParametersChanged;
  }
  for (size_t i = 0; i < order.size(); ++i) {
    exec.nodes[i].of = order[i];
    exec.nodes[i].task = order[i]->task;
  }
  return cudaGraphExecUpdateSuccess;
}

void launch(CUgraphExec_st& exec, CUstream_st& stream) {
  if (stream.capture) return launch_captured(exec, stream);
  const auto begin = submit(stream, {.name = "cudaGraphLaunch"}, exec.last ? WorkList{exec.last} : WorkList{});
  WorkList works;
  for (const CUgraphExec_st::Node& node : exec.nodes) {
    WorkList after{begin};
    for (const uint32_t before : node.after) after.push_back(works[before]);
    works.push_back(submit(node.device, exec.lanes[node.lane], node.task, std::move(after)));
  }
  exec.last = submit(stream, {.name = "the end of a graph"}, works);
}

cudaGraphNodeType type_of(const CUgraphNode_st& node) {
  switch (node.task.kind) {
    case Task::Kind::kernel:
      return cudaGraphNodeTypeKernel;
    case Task::Kind::copy:
      return cudaGraphNodeTypeMemcpy;
    case Task::Kind::set:
      return cudaGraphNodeTypeMemset;
    case Task::Kind::host:
      return cudaGraphNodeTypeHost;
    case Task::Kind::allocate:
      return cudaGraphNodeTypeMemAlloc;
    case Task::Kind::free:
      return cudaGraphNodeTypeMemFree;
    default:
      return cudaGraphNodeTypeEmpty;
  }
}

}  // namespace gpusim
