#include "gpusim/cublaslt/accesses.h"

#include <fmt/format.h>

#include <algorithm>

#include "gpusim/cublaslt/problem.h"
#include "gpusim/machine/findings.h"
#include "gpusim/machine/memory.h"

namespace gpusim::lt {
namespace {

using Range = Accesses::Range;

void add(std::vector<Range>& ranges, const void* address, int64_t bytes) {
  const uint64_t begin = reinterpret_cast<uintptr_t>(address), end = begin + uint64_t(bytes);
  if (!ranges.empty() && ranges.back().end == begin)
    ranges.back().end = end;
  else
    ranges.push_back({begin, end});
}

void add(std::vector<Range>& ranges, const Layout& x, const void* address) {
  const bool by_rows = x.order == CUBLASLT_ORDER_ROW;
  const int64_t size = size_of(x.type), length = int64_t(by_rows ? x.cols : x.rows);
  const int64_t lines = x.ld == 0 ? 1 : int64_t(by_rows ? x.rows : x.cols);
  const int64_t batches = x.batch_stride == 0 ? 1 : x.batch_count;
  for (int64_t b = 0; b < batches; ++b)
    for (int64_t j = 0; j < lines; ++j)
      add(ranges, static_cast<const std::byte*>(address) + (b * x.batch_stride + j * x.ld) * size, length * size);
}

void report_race(const char* what, const Range& x, const Range& y) {
  Finding finding;
  finding.what = Finding::What::race;
  finding.kernel = "cublasLtMatmul";
  finding.address = std::max(x.begin, y.begin);
  finding.text = fmt::format("cublasLtMatmul {} [{:#x}, {:#x})", what, finding.address, std::min(x.end, y.end));
  report(std::move(finding));
}

}  // namespace

void Accesses::read(const void* address, int64_t bytes) { add(reads_, address, bytes); }
void Accesses::write(const void* address, int64_t bytes) { add(writes_, address, bytes); }
void Accesses::read(const Layout& layout, const void* address) { add(reads_, layout, address); }
void Accesses::read_in_place(const Layout& layout, const void* address) { add(in_place_, layout, address); }
void Accesses::write(const Layout& layout, const void* address) {
  add(writes_, layout, address);
  // A batch that writes all its matrices to one place.
  if (layout.batch_stride == 0 && layout.batch_count > 1) add(writes_, layout, address);
}

bool Accesses::note(const Operation& now) const {
  bool good = true;
  for (const auto* ranges : {&reads_, &in_place_})
    for (const Range& r : *ranges) {
      const void* address = reinterpret_cast<const void*>(r.begin);
      good &= memory_of(address)->note_read(address, r.end - r.begin, now);
    }
  for (const Range& r : writes_) {
    void* address = reinterpret_cast<void*>(r.begin);
    good &= memory_of(address)->note_write(address, r.end - r.begin, now);
  }
  return good;
}

void Accesses::report_overlaps() const {
  std::vector<Range> written = writes_;
  std::sort(written.begin(), written.end(), [](const Range& x, const Range& y) { return x.begin < y.begin; });
  for (size_t i = 1; i < written.size(); ++i)
    if (written[i].begin < written[i - 1].end) return report_race("writes twice to", written[i - 1], written[i]);
  for (const Range& r : reads_) {
    // Written ranges are disjoint here: the first that ends behind the start of what is read is the one to ask.
    const auto w =
        std::partition_point(written.begin(), written.end(), [&](const Range& x) { return x.end <= r.begin; });
    if (w != written.end() && w->begin < r.end) return report_race("writes what it reads:", r, *w);
  }
}

}  // namespace gpusim::lt
