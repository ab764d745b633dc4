#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstring>

#include "gpusim/cublaslt/run.h"
#include "gpusim/machine/findings.h"
#include "gpusim/machine/memory.h"
#include "gpusim/runtime/streams.h"

namespace gpusim::lt {
namespace {

/// The compute capability of the handle's device, as 89 for 8.9.
int capability(cublasLtHandle_t handle) {
  int current = 0, major = 0, minor = 0;
  cudaGetDevice(&current);
  if (current != handle->device) {
    Finding finding;
    finding.what = Finding::What::misuse;
    finding.text = fmt::format("a cublasLt handle of device {} is used while device {} is the current one",
                               handle->device, current);
    report(std::move(finding));
  }
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, handle->device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, handle->device);
  return major * 10 + minor;
}

/// Fills the problem; without a C layout, C's is D's.
Refused gather(cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
               cublasLtMatrixLayout_t d, Problem& to) {
  if (!op || !a || !b || !d) return invalid("a descriptor is null");
  to = {of(op), of(a), of(b), of(c ? c : d), of(d)};
  return {};
}

/// Tensor cores' own demand on what the preference promises.
Refused wide_enough(const Problem& p, const Algorithm& algorithm) {
  const int least = is_fp8(p.a.type) ? 16 : p.a.type == CUDA_R_8I ? 4 : 1;
  for (int i = 0; i < 4; ++i)
    if (algorithm.width[i] < least)
      return unsupported(fmt::format("matrix {} is promised to be aligned to {} bytes only, {} are needed", "ABCD"[i],
                                     algorithm.width[i], least));
  return {};
}

Refused fits(const Problem& p, const Algorithm& x) {
  if (x.magic != Algorithm::known || x.id > Algorithm::split_k) return invalid("not an algorithm of cublasLt's");
  const bool types = x.types[0] == p.a.type && x.types[1] == p.b.type && x.types[2] == p.c.type &&
                     x.types[3] == p.d.type && x.compute == p.op.compute && x.scale_type == p.op.scale_type;
  if (!types) return invalid("the algorithm is made for other types");
  const Layout* const layouts[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; ++i) {
    const Layout& l = *layouts[i];
    const int64_t stride = l.batch_count > 1 ? l.batch_stride : 0;
    if (l.ld * size_of(l.type) % x.width[i] != 0 || stride * size_of(l.type) % x.width[i] != 0)
      return invalid(fmt::format("the algorithm needs steps of {} bytes in {}", x.width[i], "ABCD"[i]));
  }
  return {};
}

Algorithm unpack(const cublasLtMatmulAlgo_t& algorithm) {
  Algorithm x;
  static_assert(sizeof x <= sizeof algorithm);
  std::memcpy(static_cast<void*>(&x), &algorithm, sizeof x);
  return x;
}

Refused heuristic(const Problem& p, const Preference& preference, int most, cublasLtMatmulHeuristicResult_t* results,
                  int& count) {
  if (preference.search != CUBLASLT_SEARCH_BEST_FIT) return unsupported("only the best-fit search is played here");
  if (preference.implementations != ~uint64_t{0} || preference.waves != 0)
    return unsupported("a choice of implementations or waves is not played here");
  for (const uint32_t id : {Algorithm::split_k, Algorithm::plain}) {
    const uint64_t workspace = workspace_of(p, id);
    if (count == most || workspace > preference.workspace) continue;
    if (id == Algorithm::split_k && !(preference.reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)) continue;
    const Algorithm x = algorithm(p, id, preference.alignment);
    if (Refused refused = wide_enough(p, x)) return refused;
    cublasLtMatmulHeuristicResult_t& result = results[count++];
    result = {};
    std::memcpy(&result.algo, &x, sizeof x);
    result.workspaceSize = workspace;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1;
  }
  return {};
}

Refused on_device(const void* address, const char* name) {
  if (!address) return invalid(fmt::format("{} is null", name));
  if (!memory_of(address)) return invalid(fmt::format("{} is not in device memory", name));
  return {};
}

/// The pointers of a call, as far as they can be judged before it runs.
Refused pointers(const Call& call, const Algorithm& x) {
  const Problem& p = call.problem;
  const Epilogue e = epilogue(p.op);
  const void* const matrices[] = {call.a, call.b, call.c, call.d};
  static constexpr const char* names[] = {"A", "B", "C", "D"};
  const Layout* const layouts[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; ++i) {
    if (i == 2 && !call.c) continue;
    if (Refused refused = on_device(matrices[i], names[i])) return refused;
    const int64_t step = std::max<int64_t>(x.width[i], size_of(layouts[i]->type));
    if (reinterpret_cast<uintptr_t>(matrices[i]) % uint64_t(step) != 0)
      return invalid(fmt::format("{} is not aligned to {} bytes, as the algorithm needs", names[i], step));
  }
  if (call.c == call.d && !(p.c == p.d)) return invalid("in place, C needs D's layout");
  if (e.uses_bias()) {
    if (Refused refused = on_device(p.op.bias, "the bias")) return refused;
    const int64_t step = std::max<int64_t>(x.bias_width, size_of(uint32_t(*bias_type(p))));
    if (reinterpret_cast<uintptr_t>(p.op.bias) % uint64_t(step) != 0)
      return invalid(fmt::format("the bias is not aligned to {} bytes, as the algorithm needs", step));
  }
  if (e.has(Epilogue::aux))
    if (Refused refused = on_device(p.op.aux, "the auxiliary matrix")) return refused;
  const void* const scalars[] = {p.op.a.pointer, p.op.b.pointer, p.op.c.pointer,        p.op.d.pointer,
                                 p.op.amax_d,    p.op.amax_aux,  p.op.aux_scale.pointer};
  for (const void* scalar : scalars)
    if (scalar)
      if (Refused refused = on_device(scalar, "a scale factor or largest magnitude")) return refused;
  for (const Factor* f : {&call.alpha, &call.beta})
    if (f->pointer)
      if (Refused refused = on_device(f->pointer, "alpha or beta")) return refused;
  return {};
}

Refused workspace(const Call& call, uint64_t given) {
  if (call.workspace_bytes > given)
    return invalid(fmt::format("the algorithm needs a workspace of {} bytes, not {}", call.workspace_bytes, given));
  if (reinterpret_cast<uintptr_t>(call.workspace) % 256 != 0)
    return invalid("the workspace is not aligned to 256 bytes");
  if (call.workspace_bytes == 0) return {};
  return on_device(call.workspace, "the workspace");
}

/// Reads a factor that the host holds. Returns whether it is known to be 0.
bool take(Factor& factor, const void* from, const Operator& op) {
  if (op.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE) {
    factor.pointer = from;
    return false;
  }
  std::memcpy(factor.value.data(), from, size_t(size_of(uint32_t(op.scale_type))));
  if (op.scale_type == CUDA_R_64F) return *static_cast<const double*>(from) == 0;
  if (op.scale_type == CUDA_R_32F) return *static_cast<const float*>(from) == 0;
  return *static_cast<const int32_t*>(from) == 0;
}

/// Of what the caller did not choose: the first algorithm of the default preference that fits the workspace.
Refused choose(Call& call, const cublasLtMatmulAlgo_t* chosen, uint64_t given, Algorithm& x) {
  const Problem& p = call.problem;
  if (chosen) {
    x = unpack(*chosen);
    if (Refused refused = fits(p, x)) return refused;
  } else {
    const bool room = call.workspace && workspace_of(p, Algorithm::split_k) <= given;
    x = algorithm(p, room ? Algorithm::split_k : Algorithm::plain, Preference{}.alignment);
  }
  call.workspace_bytes = workspace_of(p, x.id);
  return wide_enough(p, x);
}

}  // namespace
}  // namespace gpusim::lt

using namespace gpusim;

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!preference || most <= 0 || !results || !count)
    return lt::answer(__func__, *lt::invalid("no preference, or no room for results"));
  *count = 0;
  lt::Problem p;
  lt::Refused refused = lt::gather(op, a, b, c, d, p);
  if (!refused) refused = lt::check(p, lt::capability(handle));
  if (!refused) refused = lt::heuristic(p, lt::of(preference), most, results, *count);
  if (!refused && *count == 0) refused = lt::unsupported("no algorithm is within the preference");
  return refused ? lt::answer(__func__, *refused) : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!algorithm || !result) return lt::answer(__func__, *lt::invalid("no algorithm, or no room for the result"));
  lt::Problem p;
  lt::Refused refused = lt::gather(op, a, b, c, d, p);
  if (!refused) refused = lt::check(p, lt::capability(handle));
  const lt::Algorithm x = lt::unpack(*algorithm);
  if (!refused) refused = lt::fits(p, x);
  result->state = refused ? refused->status : CUBLAS_STATUS_SUCCESS;
  if (refused) return lt::answer(__func__, *refused);
  result->workspaceSize = lt::workspace_of(p, x.id);
  result->wavesCount = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* chosen, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  lt::Call call;
  call.a = a, call.b = b, call.c = c, call.d = d, call.workspace = workspace;
  lt::Refused refused = lt::gather(op, a_layout, b_layout, c_layout, d_layout, call.problem);
  if (!refused) refused = lt::check(call.problem, lt::capability(handle));
  if (!refused && !(alpha && beta)) refused = lt::invalid("alpha or beta is null");
  if (refused) return lt::answer(__func__, *refused);
  lt::take(call.alpha, alpha, call.problem.op);
  if (!lt::take(call.beta, beta, call.problem.op) && !c)
    return lt::answer(__func__, *lt::invalid("C is null, and beta is not known to be 0"));
  lt::Algorithm algorithm;
  refused = lt::choose(call, chosen, workspace_bytes, algorithm);
  if (!refused) refused = lt::pointers(call, algorithm);
  if (!refused) refused = lt::workspace(call, workspace_bytes);
  if (refused) return lt::answer(__func__, *refused);
  const cudaError_t error =
      enqueue(stream, "cublasLtMatmul", [call = std::move(call)](const Operation& now) { lt::run(call, now); });
  if (error == cudaSuccess) return CUBLAS_STATUS_SUCCESS;
  return lt::answer(__func__, {CUBLAS_STATUS_EXECUTION_FAILED, cudaGetErrorString(error)});
}

}  // extern "C"
