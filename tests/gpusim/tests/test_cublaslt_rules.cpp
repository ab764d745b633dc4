#include <functional>

#include "lt_call.h"

// What cublasLt refuses, each with its status and its reason.

using namespace lt_test;

namespace {

/// A legal call, spoilt: by the heuristic and the matmul alike it is refused for this reason.
void refused(Call call, cublasStatus_t status, const char* reason, const std::function<void(Call&)>& spoil) {
  INFO(std::string(reason));
  REQUIRE(call.heuristic() == CUBLAS_STATUS_SUCCESS);
  const cublasLtMatmulAlgo_t algorithm = call.results[0].algo;
  spoil(call);
  last_reason.clear();
  CHECK(call.heuristic() == status);
  CHECK(call.count == 0);
  CHECK_MESSAGE(last_reason.find(reason) != std::string::npos, last_reason);
  last_reason.clear();
  CHECK(call.matmul() == status);
  CHECK_MESSAGE(last_reason.find(reason) != std::string::npos, last_reason);
  CHECK(cublasLtMatmulAlgoCheck(call.handle, call.op, call.la, call.lb, call.lc, call.ld, &algorithm, call.results) ==
        status);
  CHECK(findings().empty());
}

/// The same for what only the matmul itself can see.
void refused_at_call(Call call, const char* reason, const std::function<void(Call&)>& spoil) {
  INFO(std::string(reason));
  REQUIRE(call.heuristic() == CUBLAS_STATUS_SUCCESS);
  spoil(call);
  last_reason.clear();
  CHECK(call.matmul() == INVALID);
  CHECK_MESSAGE(last_reason.find(reason) != std::string::npos, last_reason);
  CHECK(findings().empty());
}

template <class T>
std::function<void(Call&)> attribute(cublasLtMatmulDescAttributes_t what, T value) {
  return [=](Call& x) { x.op.set(what, value); };
}

}  // namespace

TEST_CASE("cublasLt refuses: types, transpositions, layouts, shapes") {
  const char* const types = "no such combination of types";
  refused(f32(), UNSUPPORTED, types, [](Call& x) { x.la.set(CUBLASLT_MATRIX_LAYOUT_TYPE, uint32_t(CUDA_R_16F)); });
  refused(f32(), UNSUPPORTED, types, attribute(CUBLASLT_MATMUL_DESC_SCALE_TYPE, int32_t(CUDA_R_64F)));
  refused(f32(), UNSUPPORTED, types, attribute(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, int32_t(CUBLAS_COMPUTE_64F)));
  refused(bf16(), UNSUPPORTED, types, [](Call& x) { x.ld.set(CUBLASLT_MATRIX_LAYOUT_TYPE, uint32_t(CUDA_R_16F)); });
  refused(bf16(), UNSUPPORTED, types, [](Call& x) { x.lc.set(CUBLASLT_MATRIX_LAYOUT_TYPE, uint32_t(CUDA_R_32F)); });
  refused(bf16(), UNSUPPORTED, types,
          attribute(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, int32_t(CUBLAS_COMPUTE_32F_FAST_TF32)));
  refused(f32(), INVALID, "not a transposition", attribute(CUBLASLT_MATMUL_DESC_TRANSB, int32_t{7}));
  refused(f32(), UNSUPPORTED, "C cannot be", attribute(CUBLASLT_MATMUL_DESC_TRANSC, int32_t(CUBLAS_OP_T)));
  refused(f32(), UNSUPPORTED, "fill mode", attribute(CUBLASLT_MATMUL_DESC_FILL_MODE, int32_t(CUBLAS_FILL_MODE_UPPER)));
  refused(f32(), UNSUPPORTED, "pointer modes",
          attribute(CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t(CUBLASLT_POINTER_MODE_DEVICE_VECTOR)));
  refused(f32(), UNSUPPORTED, "column and row order",
          [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_COL32)); });
  refused(f32(), UNSUPPORTED, "pointer arrays",
          [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_BATCH_MODE, uint32_t(CUBLASLT_BATCH_MODE_POINTER_ARRAY)); });
  refused(f32(), INVALID, "A: leading dimension", [](Call& x) { x.la.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{63}); });
  refused(f32(), INVALID, "D: leading dimension", [](Call& x) { x.ld.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{0}); });
  refused(f32(), INVALID, "D: leading dimension", [](Call& x) {
    x.lc.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_ROW));
    x.ld.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_ROW));
    x.ld.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{15});
  });
  refused(f32(), INVALID, "B: 0 by 16", [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{0}); });
  refused(f32(2), INVALID, "B: 1 matrices", [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, int32_t{1}); });
  refused(f32(), INVALID, "do not make D", [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{63}); });
  refused(f32(), INVALID, "do not make D", attribute(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_N)));
  refused(f32(), INVALID, "C is not of D's shape",
          [](Call& x) { x.lc.set(CUBLASLT_MATRIX_LAYOUT_COLS, uint64_t{15}); });
  refused(f32(), INVALID, "C is not in D's order",
          [](Call& x) { x.lc.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_ROW)); });
}

TEST_CASE("cublasLt refuses: epilogues") {
  const auto set = [](uint32_t epilogue) { return [=](Call& x) { x.epilogue(epilogue); }; };
  refused(f32(), INVALID, "is no epilogue", set(7777));
  refused(int8(), UNSUPPORTED, "default epilogue only", set(CUBLASLT_EPILOGUE_RELU));
  refused(bf16(), INVALID, "the bias is bf16, not f32", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_BIAS);
    x.op.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(CUDA_R_32F));
  });
  refused(f32(), UNSUPPORTED, "needs D in column order", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_BIAS);
    x.lc.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_ROW));
    x.ld.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_ROW));
  });
  for (const auto& [epilogue, leading] : {std::pair(CUBLASLT_EPILOGUE_RELU_AUX, 64),
                                          {CUBLASLT_EPILOGUE_GELU_AUX, 36},
                                          {CUBLASLT_EPILOGUE_DGELU, 24},
                                          {CUBLASLT_EPILOGUE_DRELU_BGRAD, 0}})
    refused(bf16(), INVALID, "auxiliary matrix' leading dimension", [&](Call& x) {
      x.epilogue(epilogue);
      x.op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t{leading});
    });
  refused(f32(2), INVALID, "auxiliary matrix' batch stride", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_RELU_AUX);
    x.op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, int64_t{64});
  });
  refused(f32(), INVALID, "not aligned to 16 bytes", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_GELU_AUX);
    x.op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, x.daux.get(8));
  });
  refused(f32(), INVALID, "wrong type of auxiliary matrix", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_GELU_AUX);
    x.op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, int32_t(CUDA_R_16F));
  });
  refused(f32(), INVALID, "A is not fp8",
          [](Call& x) { x.op.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, x.scalar.get()); });
}

TEST_CASE("cublasLt refuses: int8") {
  refused(int8(), UNSUPPORTED, "A transposed and B not", [](Call& x) {
    x.op.set(CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_N));
    x.la.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{32});
    x.la.set(CUBLASLT_MATRIX_LAYOUT_COLS, uint64_t{64});
  });
  refused(int8(), UNSUPPORTED, "multiples of 4, not 32 and 62", [](Call& x) {
    x.la.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{62});
    x.lb.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{62});
  });
  refused(int8(), UNSUPPORTED, "leading dimensions in multiples of 4",
          [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{66}); });
  refused(int8(), UNSUPPORTED, "needs column order",
          [](Call& x) { x.lb.set(CUBLASLT_MATRIX_LAYOUT_ORDER, int32_t(CUBLASLT_ORDER_ROW)); });
}

TEST_CASE("cublasLt refuses: fp8") {
  if (!has_fp8()) {
    Call x = fp8();
    CHECK(x.heuristic() == UNSUPPORTED);
    CHECK(x.matmul() == UNSUPPORTED);
    CHECK(last_reason == "fp8 needs compute capability 8.9");
    return;
  }
  const char* const types = "no such combination of types";
  refused(fp8(), UNSUPPORTED, types, [](Call& x) {
    x.la.set(CUBLASLT_MATRIX_LAYOUT_TYPE, uint32_t(CUDA_R_8F_E5M2));
    x.lb.set(CUBLASLT_MATRIX_LAYOUT_TYPE, uint32_t(CUDA_R_8F_E5M2));
  });
  refused(fp8(), UNSUPPORTED, types, [](Call& x) { x.ld.set(CUBLASLT_MATRIX_LAYOUT_TYPE, uint32_t(CUDA_R_8F_E5M2)); });
  refused(fp8(), UNSUPPORTED, types, attribute(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, int32_t(CUBLAS_COMPUTE_16F)));
  refused(fp8(), UNSUPPORTED, "A transposed and B not", [](Call& x) {
    x.op.set(CUBLASLT_MATMUL_DESC_TRANSB, int32_t(CUBLAS_OP_T));
    x.lb.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{16});
    x.lb.set(CUBLASLT_MATRIX_LAYOUT_COLS, uint64_t{64});
  });
  refused(fp8(), UNSUPPORTED, "multiples of 16, not 24, 16 and 64", [](Call& x) {
    x.la.set(CUBLASLT_MATRIX_LAYOUT_COLS, uint64_t{24});
    x.lc.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{24});
    x.ld.set(CUBLASLT_MATRIX_LAYOUT_ROWS, uint64_t{24});
  });
  refused(fp8(), UNSUPPORTED, "leading dimensions in multiples of 16 bytes",
          [](Call& x) { x.ld.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{36}); });
  refused(fp8(CUDA_R_16BF, CUDA_R_16BF, 2), UNSUPPORTED, "batch strides in multiples of 16 bytes",
          [](Call& x) { x.la.set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, int64_t{2056}); });
  refused(fp8(), INVALID, "D is not fp8 and",
          [](Call& x) { x.op.set(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, x.scalar.get()); });
  refused(fp8(), INVALID, "D is not fp8: no largest",
          [](Call& x) { x.op.set(CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, x.scalar.get()); });
  refused(fp8(CUDA_R_16BF, CUDA_R_8F_E4M3), INVALID, "C is not fp8",
          [](Call& x) { x.op.set(CUBLASLT_MATMUL_DESC_C_SCALE_POINTER, x.scalar.get()); });
  refused(fp8(), UNSUPPORTED, "one scale for the whole matrix",
          attribute(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, int32_t(CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F)));
  refused(fp8(), UNSUPPORTED, "no such epilogue with fp8", [](Call& x) { x.epilogue(CUBLASLT_EPILOGUE_DRELU); });
  refused(fp8(CUDA_R_32F, CUDA_R_32F), INVALID, "the bias is bf16, not f32", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_BIAS);
    x.op.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(CUDA_R_32F));
  });
  Call narrow = fp8();
  narrow.preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t{8});
  CHECK(narrow.heuristic() == UNSUPPORTED);
  CHECK(narrow.count == 0);
}

TEST_CASE("cublasLt refuses: pointers, workspaces, algorithms") {
  static float host = 0;
  refused_at_call(f32(), "A is null", [](Call& x) { x.pa = nullptr; });
  refused_at_call(f32(), "B is not in device memory", [](Call& x) { x.pb = &host; });
  refused_at_call(f32(), "C is null, and beta", [](Call& x) { x.pc = nullptr; });
  refused_at_call(f32(), "alpha or beta is null", [](Call& x) { x.beta = nullptr; });
  refused_at_call(f32(), "D is not aligned to 16", [](Call& x) { x.pd = x.dd.get(8); });
  refused_at_call(f32(), "in place", [](Call& x) {
    x.pc = x.pd;
    x.lc.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{36});
  });
  refused_at_call(f32(), "alpha or beta is not in device memory",
                  attribute(CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t(CUBLASLT_POINTER_MODE_DEVICE)));
  const auto bias = [](void* pointer) {
    return [=](Call& x) {
      x.epilogue(CUBLASLT_EPILOGUE_BIAS);
      x.op.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, pointer);
    };
  };
  refused_at_call(f32(), "the bias is null", bias(nullptr));
  refused_at_call(f32(), "the bias is not in device memory", bias(&host));
  refused_at_call(f32(), "the auxiliary matrix is null", [](Call& x) {
    x.epilogue(CUBLASLT_EPILOGUE_GELU_AUX);
    x.op.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(nullptr));
  });
  if (has_fp8()) refused_at_call(fp8(), "a scale factor", attribute(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &host));

  // The best algorithm wants a workspace, and is offered only to who allows for it.
  const auto with_workspace = [](Call& x) {
    x.preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{1} << 20);
    REQUIRE(x.heuristic() == CUBLAS_STATUS_SUCCESS);
    REQUIRE(x.count == 2);
    CHECK(x.results[0].workspaceSize == 32 * 16 * 4);
    CHECK(x.results[1].workspaceSize == 0);
    x.algorithm = &x.results[0].algo;
    x.workspace = x.work.get(), x.workspace_bytes = x.results[0].workspaceSize;
  };
  refused_at_call(f32(), "needs a workspace of 2048 bytes, not 2047", [&](Call& x) {
    with_workspace(x);
    --x.workspace_bytes;
  });
  refused_at_call(f32(), "the workspace is null", [&](Call& x) {
    with_workspace(x);
    x.workspace = nullptr;
  });
  refused_at_call(f32(), "the workspace is not aligned to 256", [&](Call& x) {
    with_workspace(x);
    x.workspace = x.work.get(128);
  });
  refused_at_call(f32(), "not an algorithm", [](Call& x) {
    x.results[0].algo = {};
    x.algorithm = &x.results[0].algo;
  });
  refused_at_call(bf16(), "made for other types", [](Call& x) {
    Call other = f32();
    REQUIRE(other.heuristic() == CUBLAS_STATUS_SUCCESS);
    x.results[0].algo = other.results[0].algo;
    x.algorithm = &x.results[0].algo;
  });
  refused_at_call(f32(), "needs steps of 16 bytes in B", [](Call& x) {
    x.algorithm = &x.results[0].algo;
    x.lb.set(CUBLASLT_MATRIX_LAYOUT_LD, int64_t{65});
  });
  // A promise of less alignment gives an algorithm that does with less.
  Call x = f32();
  x.preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t{4});
  REQUIRE(x.heuristic(1) == CUBLAS_STATUS_SUCCESS);
  CHECK(x.count == 1);
  x.algorithm = &x.results[0].algo;
  Buffer moved(std::vector<uint8_t>(size_t(64 * 32 * 4 + 4)));
  x.pa = moved.get(4);
  CHECK(x.matmul() == CUBLAS_STATUS_SUCCESS);
  with_workspace(x);
  x.pa = x.da.get();
  CHECK(x.matmul() == CUBLAS_STATUS_SUCCESS);
  CHECK(findings().empty());

  CHECK(cublasLtMatmulAlgoGetHeuristic(nullptr, x.op, x.la, x.lb, x.lc, x.ld, x.preference, 1, x.results, &x.count) ==
        CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(x.heuristic(0) == INVALID);
  CHECK(cublasLtMatmulAlgoGetHeuristic(x.handle, x.op, x.la, nullptr, x.lc, x.ld, x.preference, 1, x.results,
                                       &x.count) == INVALID);
}
