// cuBLASLt, loaded when the first of its functions is called: what is linked has to be there wherever the program runs,
// and takes 150 MiB and 0.1 s of every start, GPU or not. For executables alone (CMakeLists.txt): those that simulate
// the GPU have another cuBLASLt.
#include <cublasLt.h>
#include <dlfcn.h>

#include "engine/error.h"

namespace {

void* library() {
  static void* const handle = [] {
    const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    for (const std::string& path : {name, LIGHTCONE_CUDA_LIBRARIES "/" + name})
      if (void* found = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return found;
    lightcone::fail("cuda", "{} is not to be found; install cuBLAS of CUDA {} or name its folder in LD_LIBRARY_PATH",
                    name, CUBLAS_VER_MAJOR);
  }();
  return handle;
}

template <class Function>
Function* symbol(Function*, const char* name) {
  void* const found = dlsym(library(), name);
  if (!found) lightcone::fail("cuda", "libcublasLt has no {}; install the version of CUDA {}", name, CUBLAS_VER_MAJOR);
  return reinterpret_cast<Function*>(found);
}

}  // namespace

#define LIGHTCONE_FORWARD(Result, name, parameters, arguments) \
  Result name parameters {                                     \
    static auto* const function = symbol(&name, #name);        \
    return function arguments;                                 \
  }

LIGHTCONE_FORWARD(size_t, cublasLtGetVersion, (), ())
LIGHTCONE_FORWARD(const char*, cublasLtGetStatusName, (cublasStatus_t status), (status))
LIGHTCONE_FORWARD(const char*, cublasLtGetStatusString, (cublasStatus_t status), (status))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtCreate, (cublasLtHandle_t * handle), (handle))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtDestroy, (cublasLtHandle_t handle), (handle))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmulDescInit_internal,
                  (cublasLtMatmulDesc_t operation, size_t size, cublasComputeType_t compute, cudaDataType_t scale),
                  (operation, size, compute, scale))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmulDescSetAttribute,
                  (cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const void* value,
                   size_t size),
                  (operation, attribute, value, size))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatrixLayoutInit_internal,
                  (cublasLtMatrixLayout_t layout, size_t size, cudaDataType type, uint64_t rows, uint64_t cols,
                   int64_t step),
                  (layout, size, type, rows, cols, step))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatrixLayoutSetAttribute,
                  (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                   size_t size),
                  (layout, attribute, value, size))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmulPreferenceInit_internal,
                  (cublasLtMatmulPreference_t preference, size_t size), (preference, size))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute,
                  (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                   const void* value, size_t size),
                  (preference, attribute, value, size))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,
                  (cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                   cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                   cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[],
                   int* count),
                  (handle, operation, a, b, c, d, preference, wanted, results, count))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmulAlgoCheck,
                  (cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                   cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                   const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result),
                  (handle, operation, a, b, c, d, algorithm, result))
LIGHTCONE_FORWARD(cublasStatus_t, cublasLtMatmul,
                  (cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                   cublasLtMatrixLayout_t layout_a, const void* b, cublasLtMatrixLayout_t layout_b, const void* beta,
                   const void* c, cublasLtMatrixLayout_t layout_c, void* d, cublasLtMatrixLayout_t layout_d,
                   const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_size, cudaStream_t stream),
                  (handle, operation, alpha, a, layout_a, b, layout_b, beta, c, layout_c, d, layout_d, algorithm,
                   workspace, workspace_size, stream))
