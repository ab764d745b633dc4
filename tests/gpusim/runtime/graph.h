#pragma once
#include "gpusim/runtime/state.h"

/// A graph made ready to run: a copy of its nodes, each after those that it stands after.
struct CUgraphExec_st {
  struct Node {
    const CUgraphNode_st* of = nullptr;  // in the graph, which may be gone
    gpusim::Task task = {};
    int device = 0;
    uint32_t lane = 0;
    std::vector<uint32_t> after = {};
  };
  std::vector<Node> nodes;
  std::vector<uint32_t> lanes;  // queues of the timeline; nodes of one lane are a chain
  std::shared_ptr<gpusim::Work> last = {};
  unsigned long long flags = 0;
};

namespace gpusim {

/// A new node of a graph built by hand.
CUgraphNode_st* add_node(CUgraph_st& graph, Task task, const cudaGraphNode_t* after, size_t count);
/// Refuses a graph that has cycles.
CUgraphExec_st* instantiate(const CUgraph_st& graph);
/// Gives an instantiated graph the tasks of another one with the same shape.
cudaGraphExecUpdateResult update(CUgraphExec_st& exec, const CUgraph_st& graph);
/// A replay: its nodes stand after the stream's works and the last replay, and the stream goes on after all of them.
void launch(CUgraphExec_st& exec, CUstream_st& stream);

cudaGraphNodeType type_of(const CUgraphNode_st& node);

}  // namespace gpusim
