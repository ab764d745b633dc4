#include "gpusim/cublaslt/run.h"

#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "gpusim/cublaslt/accesses.h"
#include "gpusim/cublaslt/elements.h"
#include "gpusim/cublaslt/product.h"
#include "gpusim/machine/memory.h"

namespace gpusim::lt {
namespace {

template <class T>
T* storage(T* address) {
  return memory_of(address)->storage(address);
}
const void* storage(const void* address) { return storage(static_cast<const std::byte*>(address)); }
void* storage(void* address) { return storage(static_cast<std::byte*>(address)); }

// cuBLASLt's GELU is the approximation by tanh, not the one by erf.
template <class T>
constexpr T gelu_inner = T(std::numbers::sqrt2* std::numbers::inv_sqrtpi);
template <class T>
constexpr T gelu_cubic = T(0.044715);

template <class T>
T gelu(T x) {
  return T(0.5) * x * (T(1) + std::tanh(gelu_inner<T> * (x + gelu_cubic<T> * x * x * x)));
}
template <class T>
T gelu_slope(T x) {
  const T t = std::tanh(gelu_inner<T> * (x + gelu_cubic<T> * x * x * x));
  const T inner = gelu_inner<T> * (T(1) + T(3) * gelu_cubic<T> * x * x);
  return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * inner;
}

/// One call: products in Sum, and all that follows in Value, the type of alpha and beta.
template <class Sum, class Value>
class Matmul {
 public:
  Matmul(const Call& call, Value beta)
      : call_(call),
        p_(call.problem),
        e_(epilogue(p_.op)),
        m_(p_.m()),
        n_(p_.n()),
        k_(p_.k()),
        beta_(beta),
        bias_type_(uint32_t(*bias_type(p_))),
        aux_type_(aux_type(p_)) {}

  void run(Value alpha) {
    alpha_ = alpha * scale(p_.op.a) * scale(p_.op.b);
    for (int64_t b = 0; b < p_.batch(); ++b) {
      input_gradient(b);
      finish(b, products(b));
    }
    if (p_.op.amax_d) *storage(p_.op.amax_d) = float(amax_d_);
    if (p_.op.amax_aux) *storage(p_.op.amax_aux) = float(amax_aux_);
  }

 private:
  static Value scale(const Scale& s) { return s.pointer ? Value(*storage(s.pointer)) : Value(1); }
  int64_t column() const { return panels(m_, panel_rows) * panel_rows; }

  /// Columns of op(A) op(B), `column()` apart.
  std::vector<Sum> products(int64_t batch) const {
    Packed<Sum> a(m_, k_, panel_rows), b(n_, k_, panel_cols);
    const auto from = [&](const Layout& x, const void* address, int64_t row_step, int64_t col_step) {
      return [=, data = storage(address), first = batch * x.batch_stride, type = x.type](
                 int64_t row, int64_t col, bool along_rows, int64_t count, Sum* to) {
        load(type, data, first + row * row_step + col * col_step, along_rows ? row_step : col_step, count, to);
      };
    };
    a.fill(m_, p_.a_row_step() == 1, from(p_.a, call_.a, p_.a_row_step(), p_.a_col_step()));
    b.fill(n_, p_.b_col_step() == 1, from(p_.b, call_.b, p_.b_col_step(), p_.b_row_step()));
    if constexpr (std::is_same_v<Sum, float>)
      if (p_.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32)
        for (auto* packed : {&a.data(), &b.data()})
          for (float& x : *packed) x = round_to_tf32(x);
    std::vector<Sum> sums(static_cast<size_t>(column() * panels(n_, panel_cols) * panel_cols));
    multiply(a, b, m_, n_, k_, sums.data(), column());
    return sums;
  }

  void finish(int64_t batch, const std::vector<Sum>& sums) {
    const std::vector<Value> zeros(static_cast<size_t>(m_));
    std::vector<Value> v = zeros, other = zeros, bias = zeros, gradient = zeros;
    if (e_.has(Epilogue::bias)) load(bias_type_, storage(p_.op.bias), batch * p_.op.bias_stride, 1, m_, bias.data());
    for (int64_t j = 0; j < n_; ++j) {
      const Sum* sum = sums.data() + j * column();
      for (int64_t i = 0; i < m_; ++i) v[i] = alpha_ * Value(sum[i]);
      if (beta_ != Value(0)) {
        load(p_.c.type, storage(call_.c), batch * p_.c.batch_stride + j * p_.c.col_step(), p_.c.row_step(), m_,
             other.data());
        for (int64_t i = 0; i < m_; ++i) v[i] = multiply_add(beta_, other[i], v[i]);
      }
      if constexpr (std::is_floating_point_v<Value>) {
        if (e_.has(Epilogue::bias))
          for (int64_t i = 0; i < m_; ++i) v[i] += bias[i];
        activate(batch, j, v, other);
        if (e_.has(Epilogue::bias_gradient))
          for (int64_t i = 0; i < m_; ++i) gradient[i] += v[i];
        if (is_fp8(p_.d.type)) scale_down(p_.op.d, amax_d_, v);
      }
      store(p_.d.type, storage(call_.d), batch * p_.d.batch_stride + j * p_.d.col_step(), p_.d.row_step(), m_,
            v.data());
    }
    if (e_.has(Epilogue::bias_gradient)) store_bias(batch, gradient);
  }

  // For a value of 0 the mask says that ReLU passes nothing; the documentation leaves it open. A NaN passes.
  void activate(int64_t batch, int64_t j, std::vector<Value>& v, std::vector<Value>& other) {
    if (e_.aux_is_mask()) {
      auto* bits = static_cast<uint8_t*>(storage(p_.op.aux)) + (batch * p_.op.aux_stride + j * p_.op.aux_ld) / 8;
      if (e_.reads_aux()) {
        for (int64_t i = 0; i < m_; ++i) v[i] = bits[i / 8] >> (i % 8) & 1 ? v[i] : Value(0);
      } else {
        std::memset(bits, 0, size_t((m_ + 7) / 8));
        for (int64_t i = 0; i < m_; ++i) bits[i / 8] |= uint8_t((v[i] > Value(0) ? 1 : 0) << i % 8);
      }
    } else if (e_.has(Epilogue::aux)) {
      const int64_t first = batch * p_.op.aux_stride + j * p_.op.aux_ld;
      if (e_.reads_aux()) {
        load(aux_type_, storage(p_.op.aux), first, 1, m_, other.data());
      } else {
        other = v;
        if (is_fp8(aux_type_)) scale_down(p_.op.aux_scale, amax_aux_, other);
        store(aux_type_, storage(p_.op.aux), first, 1, m_, other.data());
      }
    }
    if (e_.has(Epilogue::relu))
      for (Value& x : v) x = x < Value(0) ? Value(0) : x;
    if (e_.has(Epilogue::gelu))
      for (Value& x : v) x = gelu(x);
    if (e_.has(Epilogue::dgelu))
      for (int64_t i = 0; i < m_; ++i) v[i] *= gelu_slope(other[i]);
  }

  // The largest magnitude is that of the values before their scale.
  static void scale_down(const Scale& s, Value& largest, std::vector<Value>& v) {
    for (const Value x : v) largest = std::fmax(largest, std::fabs(x));
    const Value factor = scale(s);
    for (Value& x : v) x *= factor;
  }

  /// The sums over k of op(A)'s rows or op(B)'s columns, as they are in memory: alpha has no part in them.
  void input_gradient(int64_t batch) {
    const bool of_a = e_.has(Epilogue::gradient_a);
    if (!of_a && !e_.has(Epilogue::gradient_b)) return;
    const Layout& x = of_a ? p_.a : p_.b;
    const int64_t step = of_a ? p_.a_row_step() : p_.b_col_step(), k_step = of_a ? p_.a_col_step() : p_.b_row_step();
    std::vector<Value> sums(size_t(of_a ? m_ : n_)), line(sums.size());
    for (int64_t l = 0; l < k_; ++l) {
      load(x.type, storage(of_a ? call_.a : call_.b), batch * x.batch_stride + l * k_step, step, int64_t(line.size()),
           line.data());
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += line[i];
    }
    store_bias(batch, sums);
  }

  void store_bias(int64_t batch, const std::vector<Value>& sums) {
    store(bias_type_, storage(p_.op.bias), batch * p_.op.bias_stride, 1, int64_t(sums.size()), sums.data());
  }

  const Call& call_;
  const Problem& p_;
  const Epilogue e_;
  const int64_t m_, n_, k_;
  Value alpha_{}, beta_;
  const uint32_t bias_type_, aux_type_;
  Value amax_d_{}, amax_aux_{};
};

template <class Value>
Value value(const Factor& factor) {
  Value x;
  std::memcpy(&x, factor.pointer ? storage(factor.pointer) : factor.value.data(), sizeof x);
  return x;
}

Accesses accesses_of(const Call& call, bool reads_c) {
  const Problem& p = call.problem;
  const Epilogue e = epilogue(p.op);
  Accesses x;
  for (const Scale* s : {&p.op.a, &p.op.b, &p.op.c, &p.op.d, &p.op.aux_scale})
    if (s->pointer) x.read(s->pointer, sizeof(float));
  x.read(p.a, call.a);
  x.read(p.b, call.b);
  if (reads_c) call.in_place() ? x.read_in_place(p.c, call.c) : x.read(p.c, call.c);
  x.write(p.d, call.d);
  if (e.uses_bias()) {
    const int64_t size = size_of(uint32_t(*bias_type(p)));
    const int64_t length = e.has(Epilogue::gradient_b) ? p.n() : p.m();
    for (int64_t b = 0; b < p.batch(); ++b) {
      const auto* address = static_cast<const std::byte*>(p.op.bias) + b * p.op.bias_stride * size;
      e.writes_bias() ? x.write(address, length * size) : x.read(address, length * size);
    }
  }
  if (e.has(Epilogue::aux)) {
    const int64_t bits = e.aux_is_mask() ? 1 : 8 * size_of(aux_type(p));
    for (int64_t b = 0; b < p.batch(); ++b)
      for (int64_t j = 0; j < p.n(); ++j) {
        const auto* address =
            static_cast<const std::byte*>(p.op.aux) + (b * p.op.aux_stride + j * p.op.aux_ld) * bits / 8;
        const int64_t bytes = (p.m() * bits + 7) / 8;
        e.reads_aux() ? x.read(address, bytes) : x.write(address, bytes);
      }
  }
  for (float* amax : {p.op.amax_d, p.op.amax_aux})
    if (amax) x.write(amax, sizeof(float));
  if (call.workspace_bytes > 0) x.write(call.workspace, int64_t(call.workspace_bytes));
  return x;
}

template <class Sum, class Value>
void run_as(const Call& call, const Operation& now) {
  Accesses factors;
  for (const Factor* f : {&call.alpha, &call.beta})
    if (f->pointer) factors.read(f->pointer, sizeof(Value));
  if (!factors.note(now)) return;
  const Value alpha = value<Value>(call.alpha), beta = value<Value>(call.beta);
  const Accesses accesses = accesses_of(call, beta != Value(0));
  if (!accesses.note(now)) return;
  accesses.report_overlaps();
  // What the algorithm would leave in its workspace is of use to nobody.
  if (call.workspace_bytes > 0) std::memset(storage(call.workspace), 0xcd, call.workspace_bytes);
  Matmul<Sum, Value>(call, beta).run(alpha);
}

}  // namespace

void run(const Call& call, const Operation& now) {
  const bool integer = call.problem.a.type == CUDA_R_8I;
  switch (call.problem.op.scale_type) {
    case CUDA_R_64F:
      return run_as<double, double>(call, now);
    case CUDA_R_32I:
      return run_as<int32_t, int32_t>(call, now);
    default:
      return integer ? run_as<int32_t, float>(call, now) : run_as<float, float>(call, now);
  }
}

}  // namespace gpusim::lt
