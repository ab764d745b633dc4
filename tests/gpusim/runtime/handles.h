#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gpusim/machine/machine.h"
#include "gpusim/runtime/work.h"

// What the opaque handles of the CUDA runtime point to.

namespace gpusim {

struct FatBinary;

/// A capture in progress: the graph that it makes, and the streams that take part.
struct Capture {
  uint64_t id = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  CUstream_st* origin = nullptr;
  CUgraph_st* graph = nullptr;
  bool owns_graph = true;
  bool invalid = false;
  std::set<CUstream_st*> streams;
};

}  // namespace gpusim

struct CUstream_st {
  enum class Kind : uint8_t { legacy, per_thread, blocking, non_blocking };
  Kind kind = Kind::blocking;
  int device = 0, priority = 0;
  uint64_t id = 0;
  uint32_t queue = 0;
  std::shared_ptr<gpusim::Work> last = {};  // what the next work stands after
  std::shared_ptr<gpusim::Capture> capture = {};
  std::vector<CUgraphNode_st*> tips = {};  // the nodes that the next captured one stands after
};

struct CUevent_st {
  int device = 0;
  unsigned flags = 0;
  std::shared_ptr<gpusim::Work> recorded = {};    // null: never recorded
  std::shared_ptr<gpusim::Capture> capture = {};  // set if it was recorded in a capturing stream
  std::vector<CUgraphNode_st*> tips = {};
};

/// A kernel that a program registered.
struct CUkern_st {
  const void* host = nullptr;  // the host function that stands for it
  std::string name;            // mangled
  gpusim::FatBinary* binary = nullptr;
  std::map<int, int> dynamic_shared_limit = {};  // by device, set by cudaFuncSetAttribute
  int carveout = -1;
};

struct CUgraphNode_st {
  CUgraph_st* graph = nullptr;
  gpusim::Task task;
  int device = 0;
  std::vector<CUgraphNode_st*> after = {};
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};

struct CUmemPoolHandle_st {
  int device = 0;
  uint64_t release_threshold = 0, used = 0, used_high = 0;
  int reuse_flags[3] = {1, 1, 1};
};
