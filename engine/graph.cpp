#include "engine/graph.h"

#ifndef LIGHTCONE_CUDA

namespace lightcone {

struct Graph::Recording {};
Graph::Graph(Context&, std::function<void()> work) : work_(std::move(work)) { work_(); }
Graph::~Graph() = default;
void Graph::replay() { work_(); }

}  // namespace lightcone

#endif
