#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lightcone {

/// Tensor representations of the Lorentz group, "8x0n+2x1n": multiplicity x order, with parity n (even) or p (odd).
/// Order 0 has one component, order 1 four, order k 4^k (Spinner et al., arXiv:2505.20280, section 3). Canonical form:
/// sorted by order (stable), equal neighbours merged, zero multiplicities dropped.
class TensorReps {
 public:
  struct Term {
    int64_t multiplicity;
    int order;
    bool odd;
    int64_t dim() const { return multiplicity << (2 * order); }
  };
  TensorReps() = default;  ///< of dimension 0
  /// Throws Error naming the text if it is not of this form; orders up to 4.
  explicit TensorReps(std::string_view text);
  const std::vector<Term>& terms() const { return terms_; }
  int64_t dim() const;
  /// No component changes under any transformation.
  bool invariant() const;
  std::string text() const;

 private:
  std::vector<Term> terms_;
};

}  // namespace lightcone
