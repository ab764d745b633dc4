#include <cstring>
#include <functional>

#include "lt_call.h"

// When cublasLt reads what it is given, what the checks of memory find in a matmul, and what descriptors hold.

using namespace lt_test;

TEST_CASE("cublasLt: scales are read when it runs") {
  if (!has_fp8()) return;
  Call x = fp8(CUDA_R_32F, CUDA_R_32F);
  x.op.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, x.scalar.get());
  float zero = 0, two = 2;
  x.beta = &zero;
  cudaStream_t stream;
  REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  REQUIRE(x.matmul(stream) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
  const float once = x.dd.read<float>(1)[0];
  REQUIRE(cudaMemcpyAsync(x.scalar.get(), &two, sizeof two, cudaMemcpyHostToDevice, stream) == cudaSuccess);
  REQUIRE(x.matmul(stream) == CUBLAS_STATUS_SUCCESS);
  CHECK(findings().empty());
  CHECK(once != 0);
  CHECK(x.dd.read<float>(1)[0] == 2 * once);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

TEST_CASE("cublasLt: in a graph it runs when the graph does") {
  Call x = f32();
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  REQUIRE(x.matmul(stream) == CUBLAS_STATUS_SUCCESS);
  x.op.set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_N));  // the descriptors are not needed any more
  x.one = 100;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  REQUIRE(cudaMemset(x.dd.get(), 0, sizeof(float)) == cudaSuccess);
  CHECK(x.dd.value() == 0);
  double expected = x.c(0, 0, 0);
  for (int k = 0; k < 64; ++k) expected += x.a(0, k, 0) * x.b(0, k, 0);
  for (int run = 0; run < 2; ++run) {
    REQUIRE(cudaGraphLaunch(executable, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(x.dd.value() == float(expected));
    x.dd.set(0);
  }
  CHECK(expected != 0);
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  x.op.set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_T));
  CHECK(x.matmul(stream) == CUBLAS_STATUS_EXECUTION_FAILED);  // the stream is gone
  cudaGetLastError();
  findings();
}

TEST_CASE("cublasLt: a handle belongs to the device it was made on") {
  int devices = 0;
  REQUIRE(cudaGetDeviceCount(&devices) == cudaSuccess);
  if (devices < 2) return;
  Call x = f32();
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  CHECK(x.heuristic() == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  const auto found = findings();
  REQUIRE(found.size() == 1);
  CHECK(found[0].what == gpusim::Finding::What::misuse);
}

TEST_CASE("cublasLt: a matmul's accesses are checked as a kernel's are") {
  using What = gpusim::Finding::What;
  const auto found_in = [](Call x, What what, const std::function<void(Call&)>& spoil) {
    spoil(x);
    REQUIRE(x.matmul() == CUBLAS_STATUS_SUCCESS);
    const auto all = findings();
    bool any = false;
    for (const auto& finding : all) any |= finding.what == what;
    CHECK(any);
  };
  const auto found = [&](What what, const std::function<void(Call&)>& spoil) { found_in(f32(), what, spoil); };
  found(What::uninitialised_read, [](Call& x) { x.pb = x.work.get(); });
  found(What::uninitialised_read, [](Call& x) {
    x.op.set(CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t(CUBLASLT_POINTER_MODE_DEVICE));
    x.alpha = x.work.get(), x.beta = x.scalar.get();
  });
  // Only the batch's first matrix is written.
  found_in(f32(2), What::uninitialised_read, [](Call& x) {
    x.pa = x.work.get();
    REQUIRE(cudaMemset(x.work.get(), 0, 64 * 32 * 4) == cudaSuccess);
  });
  if (has_fp8())
    found_in(fp8(), What::uninitialised_read,
             [](Call& x) { x.op.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, x.work.get()); });
  found(What::use_after_free, [](Call& x) { x.dc = Buffer(); });
  found(What::out_of_bounds, [](Call& x) { x.la.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{68}); });
  found(What::out_of_bounds, [](Call& x) { x.ld.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{36}); });
  // D over A; all of a batch over one D.
  found(What::race, [](Call& x) { x.pd = x.da.get(4096); });
  Call batch = f32(2);
  batch.ld.set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, int64_t{0});
  REQUIRE(batch.matmul() == CUBLAS_STATUS_SUCCESS);
  const auto twice = findings();
  REQUIRE(twice.size() == 1);
  CHECK(twice[0].what == What::race);

  // Two streams that nothing orders, with one D, or one workspace.
  for (const bool share_workspace : {false, true}) {
    cudaStream_t streams[2];
    for (cudaStream_t& s : streams) REQUIRE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
    Call x = f32(), y = f32();
    cudaDeviceSynchronize();
    if (share_workspace)
      x.workspace = y.workspace = x.work.get(), x.workspace_bytes = y.workspace_bytes = size_t{1} << 20;
    else
      y.pd = x.pd;
    REQUIRE(x.matmul(streams[0]) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(y.matmul(streams[1]) == CUBLAS_STATUS_SUCCESS);
    const auto all = findings();
    REQUIRE(all.size() == 1);
    CHECK(all[0].what == What::unordered);
    for (cudaStream_t s : streams) cudaStreamDestroy(s);
  }
}

TEST_CASE("cublasLt: descriptors hold what they are given, sizes and defaults are cublasLt's") {
  cublasLtMatmulDesc_t op = nullptr;
  REQUIRE(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
  // Attribute, size, default.
  const int64_t expected[][3] = {{0, 4, 68}, {1, 4, 0},  {2, 4, 0},  {3, 4, 0},   {4, 4, 0},  {5, 4, 0},  {6, 4, 2},
                                 {7, 4, 1},  {8, 8, 0},  {10, 8, 0}, {11, 8, 0},  {12, 8, 0}, {13, 8, 0}, {14, 8, 0},
                                 {15, 4, 0}, {17, 8, 0}, {18, 8, 0}, {19, 8, 0},  {20, 8, 0}, {21, 8, 0}, {22, 4, -1},
                                 {23, 8, 0}, {24, 8, 0}, {25, 1, 0}, {26, 4, -1}, {31, 4, 0}, {32, 4, 0}, {33, 4, 0},
                                 {34, 4, 0}, {35, 4, 0}, {36, 8, 0}, {37, 4, 0},  {38, 8, 0}};
  for (const auto& [number, size, value] : expected) {
    CAPTURE(number);
    const auto attribute = cublasLtMatmulDescAttributes_t(number);
    size_t written = 0;
    uint8_t bytes[9] = {}, other[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    CHECK(cublasLtMatmulDescGetAttribute(op, attribute, nullptr, 0, &written) == CUBLAS_STATUS_SUCCESS);
    CHECK(written == size_t(size));
    CHECK(cublasLtMatmulDescGetAttribute(op, attribute, bytes, size_t(size), nullptr) == CUBLAS_STATUS_SUCCESS);
    CHECK(std::memcmp(bytes, &value, size_t(size)) == 0);
    CHECK(cublasLtMatmulDescSetAttribute(op, attribute, other, size_t(size) + 1) == INVALID);
    CHECK(cublasLtMatmulDescSetAttribute(op, attribute, nullptr, size_t(size)) == INVALID);
    CHECK(cublasLtMatmulDescSetAttribute(op, attribute, other, size_t(size)) == CUBLAS_STATUS_SUCCESS);
    CHECK(cublasLtMatmulDescGetAttribute(op, attribute, bytes, size_t(size) + 1, nullptr) == INVALID);
  }
  // Each has a place of its own.
  for (const auto& [number, size, value] : expected) {
    uint8_t bytes[8] = {}, other[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    cublasLtMatmulDescGetAttribute(op, cublasLtMatmulDescAttributes_t(number), bytes, size_t(size), nullptr);
    CHECK(std::memcmp(bytes, other, size_t(size)) == 0);
  }
  CHECK(cublasLtMatmulDescGetAttribute(op, cublasLtMatmulDescAttributes_t(9), nullptr, 0, nullptr) == INVALID);
  CHECK(cublasLtMatmulDescDestroy(op) == CUBLAS_STATUS_SUCCESS);
  cublasLtMatmulDescOpaque_t opaque;
  CHECK(cublasLtMatmulDescInit_internal(&opaque, 8, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_ALLOC_FAILED);

  cublasLtMatrixLayout_t layout = nullptr;
  REQUIRE(cublasLtMatrixLayoutCreate(&layout, CUDA_R_16F, 3, 4, 5) == CUBLAS_STATUS_SUCCESS);
  const int64_t fields[][3] = {{0, 4, 2}, {1, 4, 0}, {2, 8, 3}, {3, 8, 4}, {4, 8, 5},
                               {5, 4, 1}, {6, 8, 0}, {7, 8, 0}, {8, 4, 0}};
  for (const auto& [number, size, value] : fields) {
    int64_t got = 0;
    CHECK(cublasLtMatrixLayoutGetAttribute(layout, cublasLtMatrixLayoutAttribute_t(number), &got, size_t(size),
                                           nullptr) == CUBLAS_STATUS_SUCCESS);
    CHECK(got == value);
  }
  CHECK(cublasLtMatrixLayoutDestroy(layout) == CUBLAS_STATUS_SUCCESS);

  cublasLtMatmulPreference_t preference = nullptr;
  REQUIRE(cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS);
  uint32_t alignment = 0;
  CHECK(cublasLtMatmulPreferenceGetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment,
                                             sizeof alignment, nullptr) == CUBLAS_STATUS_SUCCESS);
  CHECK(alignment == 256);
  CHECK(cublasLtMatmulPreferenceDestroy(preference) == CUBLAS_STATUS_SUCCESS);

  CHECK(std::string(cublasLtGetStatusName(INVALID)) == "CUBLAS_STATUS_INVALID_VALUE");
  CHECK(cublasLtGetStatusString(UNSUPPORTED)[0] != 0);
  CHECK(cublasLtGetVersion() == CUBLAS_VERSION);
  CHECK(cublasLtGetCudartVersion() == CUDART_VERSION);
  CHECK(cublasLtDestroy(nullptr) == INVALID);
}
