#pragma once
#include <functional>
#include <string>
#include <vector>

#include "autograd/tape.h"

namespace lightcone::test {

/// A plain array in f64: what oracles read and write.
struct Array {
  Shape shape;
  std::vector<double> values;
  double& operator[](int64_t i) { return values[i]; }
  double operator[](int64_t i) const { return values[i]; }
  /// Element of a matrix.
  double& at(int64_t row, int64_t col) { return values[row * shape[-1] + col]; }
  double at(int64_t row, int64_t col) const { return values[row * shape[-1] + col]; }
};

Array zeros(Shape shape);
/// Seeded numbers: standard normal, or uniform in [low, high).
Array normal(Shape shape, uint64_t seed, double scale = 1);
Array uniform(Shape shape, uint64_t seed, double low, double high);
Array to_array(const Tensor& tensor);
Tensor to_tensor(Context& ctx, const Array& array, DType dtype);

/// One function at one size. check_op() then demands, for each dtype in `dtypes`:
///  - the result agrees with the oracle (an independent, naive f64 implementation) within the table of tolerances
///  below;
///  - in f64, gradients agree with central differences of the function itself for a random cotangent;
///  - in f32 and bf16, gradients agree with those in f64 (from the same rounded inputs) within the table;
///  - no write outside of any allocated block, no result left unwritten (memory is handed out as NaN);
///  - the same bits for 1 and 2 threads and from run to run;
///  - and on every other device of devices.h: results and gradients that agree with the CPU's within the table, and the
///  same bits from run to run. Blocks are then exact allocations, so that the device or its tools see what is outside.
struct OpCase {
  std::string name;
  std::vector<Array> inputs;  ///< differentiable inputs
  std::function<std::vector<Var>(std::vector<Var>&)> op;
  std::function<std::vector<Array>(const std::vector<Array>&)> oracle;
  std::vector<DType> dtypes = {DType::f64, DType::f32, DType::bf16};
  bool differentiable = true;
  bool narrowed = false;  ///< the inputs come as rows in the middle of a longer tensor, at any alignment
  /// Multiplies the table; a value other than 1 is derived in a comment where it is set.
  double tolerance_factor = 1;
  /// Step of the central differences, relative to the largest input, and what they may differ by (relative to the
  /// largest gradient).
  double step = 1e-5;
  double gradient_tolerance = 1e-6;
  uint64_t seed = 1;  ///< of the context (dropout and the like) and of the cotangent
};

/// Relative tolerance of a result in `dtype` whose inputs are rounded to it: f64 1e-12, f32 2e-5, bf16 3e-2, of the
/// largest magnitude in the expected array. Sums of a few hundred terms lose about 1e-6 in f32 and 1e-2 in bf16; one
/// lost operation is far above.
double tolerance(DType dtype);

/// What is wrong, one line per finding; empty if the case holds.
std::vector<std::string> find_faults(const OpCase& c);
/// CHECKs that find_faults() finds none.
void check_op(const OpCase& c);

/// Largest |a - b| relative to the largest |b|; infinite if a shape differs or NaN stands on one side only.
double relative_error(const Array& a, const Array& b);
/// Largest |a - b|; likewise.
double largest_difference(const Array& a, const Array& b);
inline double largest_difference(const Tensor& a, const Tensor& b) {
  return largest_difference(to_array(a), to_array(b));
}

}  // namespace lightcone::test
