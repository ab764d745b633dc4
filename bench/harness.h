#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "engine/context.h"

namespace lightcone::bench {

/// What a kernel's speed is held against; both are measured in the same run, on the same threads.
enum class Ceiling {
  copy,  ///< bytes per second of a copy between buffers larger than the last-level cache, reads plus writes
  gemm,  ///< FLOP per second of multiply-adds of registers in the case's dtype (AMX tiles for bf16)
};

/// One thing to check and to time.
struct Case {
  std::string name;
  DType dtype = DType::f32;
  double bytes = 0;  ///< read and written, at least
  double flops = 0;
  Ceiling ceiling = Ceiling::copy;
  std::function<double()> error;  ///< relative error of the result, from a computation by other means
  double tolerance = 0;
  /// Makes a fresh set of operands and returns the call to time. Several sets, together larger than the last-level
  /// cache, are made and used in turn.
  std::function<std::function<void()>()> make;
};

/// A case in short: a kernel with one result y, held against the same in f64. `bytes` are those of operands and result.
struct KernelCase {
  std::string name;
  DType dtype = DType::f32;  ///< of y
  Shape shape;               ///< of y
  std::function<std::vector<Tensor>()> operands;
  std::function<void(std::vector<Tensor>& x, Tensor& y)> kernel;
  /// From the numbers of the operands (none for integers) to those of y, which come as zeros.
  std::function<void(const std::vector<std::vector<double>>& x, std::vector<double>& y)> naive;
  double flops = 0;
  double tolerance = 0;  ///< 0: that of the dtype
};

struct Result {
  std::string name;
  bool ok = false;  ///< the check passed; only then it was timed
  double error = 0, tolerance = 0;
  int64_t runs = 0;
  double median = 0;  ///< seconds
  double spread = 0;  ///< half the distance from the 10 % to the 90 % quantile, relative to the median
  double bytes_per_second = 0, flops_per_second = 0;
  double share = 0;  ///< of the ceiling
  Ceiling ceiling = Ceiling::copy;
};

struct Options {
  std::string filter;  ///< only cases whose name contains this
  int threads = 0;     ///< 0: all
  bool quick = false;  ///< three runs of each case, ceilings from small sizes: shows that all work, measures nothing
};

class Runner {
 public:
  explicit Runner(const Options& options);

  Context& context() { return ctx_; }
  /// Checks and times one case, and prints its line.
  void operator()(const Case& c);
  void operator()(const KernelCase& c);
  const std::vector<Result>& results() const { return results_; }
  /// Everything, with the machine, the date and the commit.
  nlohmann::json json() const;

  /// A tensor of seeded normal numbers, repeating after 4096 of them.
  Tensor normal(Shape shape, DType dtype, uint64_t seed = 1);
  Tensor empty(Shape shape, DType dtype) { return ctx_.empty(shape, dtype); }

 private:
  double ceiling(Ceiling kind, DType dtype);
  Options options_;
  Context ctx_;
  std::vector<Result> results_;
  std::vector<std::pair<std::string, double>> ceilings_;  // measured when first asked for
};

/// The largest |a - b| relative to the largest |b|; infinite if a NaN is in it. Any two dtypes, one shape.
double relative_error(const Tensor& a, const Tensor& b);
/// A copy in another dtype.
Tensor converted(Context& ctx, const Tensor& t, DType dtype);
/// What rounding in this dtype may cost a kernel: f64 1e-12, f32 2e-5, bf16 3e-2, as in the tests.
double tolerance(DType dtype);

/// A family's cases; one object per file, at namespace scope, is all that it takes to take part.
struct Family {
  explicit Family(void (*cases)(Runner&));
};
/// Runs the cases of all families.
void run_all(Runner& runner);

}  // namespace lightcone::bench
