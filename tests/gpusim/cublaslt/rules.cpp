#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "gpusim/cublaslt/problem.h"

namespace gpusim::lt {
namespace {

/// The first rule that refuses.
template <class... Rule>
Refused first(const Rule&... rule) {
  Refused refused;
  ((refused = rule()) || ...);
  return refused;
}

bool multiple_of(int64_t x, int64_t step) { return x % step == 0; }

Refused types(const Problem& p) {
  if (bias_type(p)) return {};
  return unsupported(fmt::format("no such combination of types: A {}, B {}, C {}, D {}, scale {}, compute type {}",
                                 name_of_type(p.a.type), name_of_type(p.b.type), name_of_type(p.c.type),
                                 name_of_type(p.d.type), name_of_type(uint32_t(p.op.scale_type)), p.op.compute));
}

Refused operators(const Problem& p) {
  for (const int32_t t : {p.op.transpose_a, p.op.transpose_b})
    if (t != CUBLAS_OP_N && t != CUBLAS_OP_T && t != CUBLAS_OP_C) return invalid("not a transposition");
  if (p.op.transpose_c != CUBLAS_OP_N) return unsupported("C cannot be transposed");
  if (p.op.fill_mode != CUBLAS_FILL_MODE_FULL) return unsupported("only the full fill mode is known");
  if (p.op.pointer_mode != CUBLASLT_POINTER_MODE_HOST && p.op.pointer_mode != CUBLASLT_POINTER_MODE_DEVICE)
    return unsupported("pointer modes with vectors are not played here");
  if (p.op.emulation) return unsupported("emulation of floating point is not played here");
  return {};
}

Refused layout(const Problem& p, const Layout& x, const char* name) {
  if (x.order != CUBLASLT_ORDER_COL && x.order != CUBLASLT_ORDER_ROW)
    return unsupported(fmt::format("{}: only column and row order are played here", name));
  if (x.batch_mode != CUBLASLT_BATCH_MODE_STRIDED || x.plane_offset != 0)
    return unsupported(fmt::format("{}: pointer arrays and planes are not played here", name));
  constexpr uint64_t most = std::numeric_limits<int32_t>::max();
  if (x.rows == 0 || x.cols == 0 || x.rows > most || x.cols > most)
    return invalid(fmt::format("{}: {} by {} elements", name, x.rows, x.cols));
  const int64_t least = int64_t(x.order == CUBLASLT_ORDER_ROW ? x.cols : x.rows);
  const bool broadcast = &x == &p.c && x.ld == 0;  // one column, or row, for all
  if (x.ld < least && !broadcast)
    return invalid(fmt::format("{}: leading dimension {} is less than {}", name, x.ld, least));
  if (x.batch_count < 1 || x.batch_count != p.d.batch_count)
    return invalid(fmt::format("{}: {} matrices in the batch, D has {}", name, x.batch_count, p.d.batch_count));
  return {};
}

Refused shapes(const Problem& p) {
  const auto rows = [](const Layout& x, int32_t t) { return t == CUBLAS_OP_N ? x.rows : x.cols; };
  const auto cols = [](const Layout& x, int32_t t) { return t == CUBLAS_OP_N ? x.cols : x.rows; };
  const auto [ta, tb] = std::pair(p.op.transpose_a, p.op.transpose_b);
  if (rows(p.a, ta) != p.d.rows || cols(p.b, tb) != p.d.cols || cols(p.a, ta) != rows(p.b, tb))
    return invalid(fmt::format("op(A) {} by {} and op(B) {} by {} do not make D, {} by {}", rows(p.a, ta),
                               cols(p.a, ta), rows(p.b, tb), cols(p.b, tb), p.d.rows, p.d.cols));
  if (p.c.rows != p.d.rows || p.c.cols != p.d.cols) return invalid("C is not of D's shape");
  if (p.c.order != p.d.order) return invalid("C is not in D's order");
  return {};
}

// Scale factors belong to fp8 matrices only, as the largest magnitudes do.
Refused scales(const Problem& p) {
  const auto scale = [&](const Scale& s, bool fp8, const char* name) -> Refused {
    if (s.mode != CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F)
      return unsupported(fmt::format("{}: only one scale for the whole matrix is played here", name));
    if (s.pointer && !fp8) return invalid(fmt::format("{} is not fp8 and cannot have a scale", name));
    return {};
  };
  const bool fp8_aux = epilogue(p.op).writes_aux() && !epilogue(p.op).aux_is_mask() && is_fp8(aux_type(p));
  return first(
      [&] { return scale(p.op.a, is_fp8(p.a.type), "A"); }, [&] { return scale(p.op.b, is_fp8(p.b.type), "B"); },
      [&] { return scale(p.op.c, is_fp8(p.c.type), "C"); }, [&] { return scale(p.op.d, is_fp8(p.d.type), "D"); },
      [&] { return scale(p.op.aux_scale, fp8_aux, "the auxiliary matrix"); },
      [&] { return scale(p.op.d_out, false, "what D's block scales are made of"); },
      [&]() -> Refused {
        if (p.op.amax_d && !is_fp8(p.d.type)) return invalid("D is not fp8: no largest magnitude");
        if (p.op.amax_aux && !fp8_aux) return invalid("no fp8 auxiliary matrix: no largest magnitude");
        return {};
      });
}

// A documented exception: an e4m3 result of e4m3 inputs with an f16 bias may have GELU's input in f16.
bool aux_type_allowed(const Problem& p) {
  if (p.op.aux_type == -1 || uint32_t(p.op.aux_type) == p.d.type) return true;
  return p.a.type == CUDA_R_8F_E4M3 && p.b.type == CUDA_R_8F_E4M3 && p.d.type == CUDA_R_8F_E4M3 &&
         p.c.type == CUDA_R_16F && p.op.aux_type == CUDA_R_16F;
}

Refused auxiliary(const Problem& p) {
  const Epilogue e = epilogue(p.op);
  if (!e.has(Epilogue::aux)) return {};
  const int64_t step = e.aux_is_mask() ? 128 : 8;
  if (p.op.aux_ld < p.m() || !multiple_of(p.op.aux_ld, step))
    return invalid(fmt::format("the auxiliary matrix' leading dimension {} must be a multiple of {} and at least {}",
                               p.op.aux_ld, step, p.m()));
  if (p.batch() > 1 && !multiple_of(p.op.aux_stride, step))
    return invalid(fmt::format("the auxiliary matrix' batch stride {} is no multiple of {}", p.op.aux_stride, step));
  if (reinterpret_cast<uintptr_t>(p.op.aux) % 16 != 0)
    return invalid("the auxiliary matrix is not aligned to 16 bytes");
  if (e.aux_is_mask() ? p.op.aux_type != -1 : !aux_type_allowed(p)) return invalid("wrong type of auxiliary matrix");
  return {};
}

Refused epilogues(const Problem& p) {
  const Epilogue e = epilogue(p.op);
  switch (p.op.epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
      return {};
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_RELU_AUX:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DRELU:
    case CUBLASLT_EPILOGUE_DRELU_BGRAD:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DGELU:
    case CUBLASLT_EPILOGUE_DGELU_BGRAD:
    case CUBLASLT_EPILOGUE_BGRADA:
    case CUBLASLT_EPILOGUE_BGRADB:
      break;
    default:
      return invalid(fmt::format("{} is no epilogue", p.op.epilogue));
  }
  const int32_t bias = *bias_type(p);
  if (bias == no_bias) return unsupported("these types have the default epilogue only");
  if (e.uses_bias() && p.op.bias_type != -1 && p.op.bias_type != bias)
    return invalid(fmt::format("with these types the bias is {}, not {}", name_of_type(uint32_t(bias)),
                               name_of_type(uint32_t(p.op.bias_type))));
  // Beyond the documentation, and careful: vectors and auxiliary matrices go with columns, gradients not with fp8.
  if ((e.uses_bias() || e.has(Epilogue::aux)) && p.d.order != CUBLASLT_ORDER_COL)
    return unsupported("an epilogue with a bias or an auxiliary matrix needs D in column order");
  if (is_fp8(p.a.type) && (e.writes_bias() || e.reads_aux() || e.aux_is_mask()))
    return unsupported("no such epilogue with fp8");
  return auxiliary(p);
}

Refused tensor_cores(const Problem& p, int capability) {
  const bool fp8 = is_fp8(p.a.type), int8 = p.a.type == CUDA_R_8I;
  if (!fp8 && !int8) return {};
  const char* const what = fp8 ? "fp8" : "int8";
  if (fp8 && capability < 89) return unsupported("fp8 needs compute capability 8.9");
  if (p.op.transpose_a == CUBLAS_OP_N || p.op.transpose_b != CUBLAS_OP_N)
    return unsupported(fmt::format("{} needs A transposed and B not transposed", what));
  for (const Layout* x : {&p.a, &p.b, &p.c, &p.d})
    if (x->order != CUBLASLT_ORDER_COL) return unsupported(fmt::format("{} needs column order", what));
  if (int8 && !(multiple_of(p.m(), 4) && multiple_of(p.k(), 4)))
    return unsupported(fmt::format("int8 needs m and k in multiples of 4, not {} and {}", p.m(), p.k()));
  if (fp8 && !(multiple_of(p.m(), 16) && multiple_of(p.n(), 16) && multiple_of(p.k(), 16)))
    return unsupported(fmt::format("fp8 needs m, n and k in multiples of 16, not {}, {} and {}", p.m(), p.n(), p.k()));
  for (const Layout* x : {&p.a, &p.b, &p.c, &p.d}) {
    // int8: multiples of 4 elements. fp8: of 16 bytes, as all that is aligned there.
    const int64_t unit = fp8 ? size_of(x->type) : 1, step = fp8 ? 16 : 4;
    if (!multiple_of(x->ld * unit, step))
      return unsupported(fmt::format("{} needs leading dimensions in multiples of {}", what, fp8 ? "16 bytes" : "4"));
    if (p.batch() > 1 && !multiple_of(x->batch_stride * unit, step))
      return unsupported(fmt::format("{} needs batch strides in multiples of {}", what, fp8 ? "16 bytes" : "4"));
  }
  return {};
}

}  // namespace

Refused check(const Problem& p, int capability) {
  return first([&] { return types(p); }, [&] { return operators(p); }, [&] { return layout(p, p.a, "A"); },
               [&] { return layout(p, p.b, "B"); }, [&] { return layout(p, p.c, "C"); },
               [&] { return layout(p, p.d, "D"); }, [&] { return shapes(p); }, [&] { return scales(p); },
               [&] { return epilogues(p); }, [&] { return tensor_cores(p, capability); });
}

Algorithm algorithm(const Problem& p, uint32_t id, const uint32_t alignment[4]) {
  Algorithm x;
  x.magic = Algorithm::known, x.id = id, x.compute = p.op.compute, x.scale_type = p.op.scale_type;
  const Layout* const layouts[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; ++i) {
    const Layout& l = *layouts[i];
    x.types[i] = l.type;
    // The widest access, up to 16 bytes, that the promised alignment and the steps in memory allow.
    int64_t width = std::gcd(int64_t{16}, std::max<int64_t>(1, alignment[i]));
    width = std::gcd(width, l.ld * size_of(l.type));
    if (l.batch_count > 1) width = std::gcd(width, l.batch_stride * size_of(l.type));
    x.width[i] = uint8_t(width);
  }
  x.bias_width = uint8_t(std::gcd(uint64_t{16}, uint64_t(reinterpret_cast<uintptr_t>(p.op.bias))));
  return x;
}

uint64_t workspace_of(const Problem& p, uint32_t id) {
  if (id != Algorithm::split_k) return 0;
  // Room for partial sums, as split-k algorithms have it, up to a bound.
  const uint64_t sums = uint64_t(p.m()) * uint64_t(p.n()) * uint64_t(p.batch()) * 4;
  return std::min<uint64_t>((sums + 255) / 256 * 256, uint64_t{4} << 20);
}

}  // namespace gpusim::lt
