#include <algorithm>

#include "gpusim/runtime/capture.h"
#include "gpusim/runtime/graph.h"

using namespace gpusim;

// Graphs as wholes: what they hold, making them ready, running them.

namespace {

/// As all such calls do: fills `to` if it is there, and tells how many there are (or were filled in).
template <class T>
void list(const std::vector<T>& from, T* to, size_t* count) {
  require(count);
  if (to) {
    for (size_t i = 0; i < *count; ++i) to[i] = i < from.size() ? from[i] : nullptr;
    *count = std::min(*count, from.size());
  } else {
    *count = from.size();
  }
}

void instantiate_to(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  require(exec && graph);
  require((flags & cudaGraphInstantiateFlagDeviceLaunch) == 0, cudaErrorNotSupported);
  *exec = instantiate(*graph);
  (*exec)->flags = flags;
}

void change_edges(const cudaGraphNode_t* from, const cudaGraphNode_t* to, size_t count, bool add) {
  require((from && to) || count == 0);
  for (size_t i = 0; i < count; ++i) {
    require(from[i] && to[i] && from[i]->graph == to[i]->graph && from[i] != to[i]);
    auto& after = to[i]->after;
    const auto found = std::find(after.begin(), after.end(), from[i]);
    require((found == after.end()) == add);
    if (add)
      after.push_back(from[i]);
    else
      after.erase(found);
  }
}

}  // namespace

extern "C" {

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags) {
  return call([&](State&) {
    require(graph && flags == 0);
    *graph = new CUgraph_st;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call([&](State&) {
    require(graph);
    delete graph;
  });
}

cudaError_t cudaGraphClone(cudaGraph_t* clone, cudaGraph_t graph) {
  return call([&](State&) {
    require(clone && graph);
    auto made = std::make_unique<CUgraph_st>();
    std::map<const CUgraphNode_st*, CUgraphNode_st*> twin;
    for (const auto& node : graph->nodes) {
      made->nodes.push_back(std::make_unique<CUgraphNode_st>(*node));
      made->nodes.back()->graph = made.get();
      twin[node.get()] = made->nodes.back().get();
    }
    for (const auto& node : made->nodes)
      for (CUgraphNode_st*& before : node->after) before = twin.at(before);
    *clone = made.release();
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call([&](State&) {
    require(graph);
    std::vector<cudaGraphNode_t> all;
    for (const auto& node : graph->nodes) all.push_back(node.get());
    list(all, nodes, count);
  });
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call([&](State&) {
    require(graph);
    std::vector<cudaGraphNode_t> roots;
    for (const auto& node : graph->nodes)
      if (node->after.empty()) roots.push_back(node.get());
    list(roots, nodes, count);
  });
}

cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to, cudaGraphEdgeData* edges,
                              size_t* count) {
  return call([&](State&) {
    require(graph && count && !from == !to);
    std::vector<cudaGraphNode_t> starts, ends;
    for (const auto& node : graph->nodes)
      for (CUgraphNode_st* before : node->after) {
        starts.push_back(before);
        ends.push_back(node.get());
      }
    if (edges) std::fill_n(edges, std::min(*count, starts.size()), cudaGraphEdgeData{});
    size_t same = *count;
    list(starts, from, &same);
    list(ends, to, count);
  });
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t* after, cudaGraphEdgeData* edges,
                                         size_t* count) {
  return call([&](State&) {
    require(node && count);
    if (edges) std::fill_n(edges, std::min(*count, node->after.size()), cudaGraphEdgeData{});
    list(node->after, after, count);
  });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  return call([&](State&) {
    require(node && type);
    *type = type_of(*node);
  });
}

cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                     const cudaGraphEdgeData*, size_t count) {
  return call([&](State&) {
    require(graph);
    change_edges(from, to, count, true);
  });
}

cudaError_t cudaGraphRemoveDependencies(cudaGraph_t graph, const cudaGraphNode_t* from, const cudaGraphNode_t* to,
                                        const cudaGraphEdgeData*, size_t count) {
  return call([&](State&) {
    require(graph);
    change_edges(from, to, count, false);
  });
}

cudaError_t cudaGraphDestroyNode(cudaGraphNode_t node) {
  return call([&](State&) {
    require(node);
    CUgraph_st& graph = *node->graph;
    for (const auto& other : graph.nodes) std::erase(other->after, node);
    std::erase_if(graph.nodes, [&](const auto& each) { return each.get() == node; });
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return call([&](State&) { instantiate_to(exec, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return call([&](State&) { instantiate_to(exec, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t* exec, cudaGraph_t graph,
                                           cudaGraphInstantiateParams* parameters) {
  return call([&](State&) {
    require(parameters);
    parameters->errNode_out = nullptr;
    parameters->result_out = cudaGraphInstantiateError;
    instantiate_to(exec, graph, parameters->flags);
    parameters->result_out = cudaGraphInstantiateSuccess;
  });
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t exec, unsigned long long* flags) {
  return call([&](State&) {
    require(exec && flags);
    *flags = exec->flags;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call([&](State&) {
    require(exec);
    for (const uint32_t queue : exec->lanes) retire_queue(queue, exec->last);
    delete exec;
  });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* info) {
  return call([&](State&) {
    require(exec && graph && info);
    *info = {};
    info->result = update(*exec, *graph);
    require(info->result == cudaGraphExecUpdateSuccess, cudaErrorGraphExecUpdateFailure);
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return call([&](State& s) {
    require(exec);
    submit(stream_of(s, stream), {.name = "cudaGraphUpload"});
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call([&](State& s) {
    require(exec);
    launch(*exec, stream_of(s, stream));
  });
}
}
