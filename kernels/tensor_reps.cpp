#include "kernels/tensor_reps.h"

#include <algorithm>
#include <charconv>

#include "engine/error.h"

namespace lightcone {

TensorReps::TensorReps(std::string_view text) {
  auto bad = [&]() {
    fail("tensor representation", "'{}' is not of the form 8x0n+2x1n (multiplicity x order, n or p)", text);
  };
  std::string compact;
  std::copy_if(text.begin(), text.end(), std::back_inserter(compact), [](char c) { return c != ' '; });
  std::vector<Term> parsed;
  for (size_t begin = 0; begin <= compact.size();) {
    const size_t end = std::min(compact.find('+', begin), compact.size());
    const char *first = compact.data() + begin, *last = compact.data() + end;
    Term term{};
    auto [x, error] = std::from_chars(first, last, term.multiplicity);
    if (error != std::errc() || x == last || *x != 'x' || term.multiplicity < 0 || term.multiplicity > 1'000'000) bad();
    auto [parity, error2] = std::from_chars(x + 1, last, term.order);
    if (error2 != std::errc() || parity + 1 != last || (*parity != 'n' && *parity != 'p') || term.order < 0 ||
        term.order > 4)
      bad();
    term.odd = *parity == 'p';
    parsed.push_back(term);
    begin = end + 1;
  }
  std::stable_sort(parsed.begin(), parsed.end(), [](const Term& a, const Term& b) { return a.order < b.order; });
  for (const Term& t : parsed) {
    if (!terms_.empty() && terms_.back().order == t.order && terms_.back().odd == t.odd)
      terms_.back().multiplicity += t.multiplicity;
    else if (t.multiplicity > 0)
      terms_.push_back(t);
  }
}

int64_t TensorReps::dim() const {
  int64_t dim = 0;
  for (const Term& t : terms_) dim += t.dim();
  return dim;
}

bool TensorReps::invariant() const {
  return std::all_of(terms_.begin(), terms_.end(), [](const Term& t) { return t.order == 0 && !t.odd; });
}

std::string TensorReps::text() const {
  std::string out;
  for (const Term& t : terms_)
    out += fmt::format("{}{}x{}{}", out.empty() ? "" : "+", t.multiplicity, t.order, t.odd ? 'p' : 'n');
  return out;
}

}  // namespace lightcone
