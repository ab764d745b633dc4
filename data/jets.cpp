#include "data/jets.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace lightcone {

namespace {
constexpr double padding = 1e-5;
constexpr int64_t values_per_read = 1 << 18;
constexpr double energy_rounding = 2e-2;  // of squares, in what simulations and detectors store
constexpr double most_momentum = 1e5;     // GeV, of a jet; no collider makes such

template <class T>
JetSet read_jets(Context& ctx, NpyReader& kinematics, std::string_view name) {
  const int64_t jets = kinematics.shape()[0], slots = kinematics.shape()[1];
  JetSet out;
  out.ptr = ctx.empty({jets + 1}, DType::i32);
  int32_t* ptr = out.ptr.data<int32_t>();
  ptr[0] = 0;
  std::vector<std::vector<T>> blocks;  // momenta that are kept; how many there will be is not known
  const int64_t step =
      std::clamp<int64_t>(values_per_read / std::max<int64_t>(1, slots * 4), 1, std::max<int64_t>(1, jets));
  std::vector<T> dense(step * slots * 4);
  int64_t constituents = 0;
  for (int64_t begin = 0; begin < jets; begin += step) {
    const int64_t count = std::min(step, jets - begin);
    kinematics.read(std::span<T>(dense.data(), count * slots * 4));
    std::vector<T>& kept = blocks.emplace_back();
    for (int64_t jet = begin; jet < begin + count; ++jet) {
      const int64_t before = constituents;
      double px = 0, py = 0;
      for (int64_t slot = 0; slot < slots; ++slot) {
        const T* p = &dense[((jet - begin) * slots + slot) * 4];
        for (int c = 0; c < 4; ++c)
          if (!std::isfinite(p[c]))
            fail(kinematics.where(), "{}: jet {}, constituent {} has the momentum ({}, {}, {}, {})", name, jet, slot,
                 p[0], p[1], p[2], p[3]);
        if (std::any_of(p, p + 4, [](T x) { return std::abs(static_cast<double>(x)) <= padding; })) continue;
        const double E = p[0], x = p[1], y = p[2], z = p[3];
        if (E < 0 || E * E < (1 - energy_rounding) * (x * x + y * y + z * z))
          fail(kinematics.where(),
               "{}: jet {}, constituent {} ({}, {}, {}, {}) has less energy than momentum; expected the order (E, px, "
               "py, pz)",
               name, jet, slot, p[0], p[1], p[2], p[3]);
        px += x, py += y;
        kept.insert(kept.end(), p, p + 4);
        ++constituents;
      }
      if (std::hypot(px, py) > most_momentum)
        fail(kinematics.where(), "{}: jet {} has a transverse momentum of {:.0f}; expected GeV: divide MeV by 1000",
             name, jet, std::hypot(px, py));
      if (constituents == before)
        fail(kinematics.where(), "{}: jet {} has no constituents (all have a component within {} of 0); remove it",
             name, jet, padding);
      if (constituents > std::numeric_limits<int32_t>::max())
        fail(kinematics.where(), "{}: more than 2^31 constituents up to jet {}; split the file", name, jet);
      ptr[jet + 1] = static_cast<int32_t>(constituents);
    }
  }
  out.fourmomenta = ctx.empty({constituents, 4}, dtype_of<T>);
  T* to = out.fourmomenta.data<T>();
  for (auto& block : blocks) {
    to = std::copy(block.begin(), block.end(), to);
    std::vector<T>().swap(block);  // gives its memory back before the next is copied
  }
  return out;
}

template <class From, class To>
void gather(const JetSet& jets, std::span<const int64_t> indices, JetSet& out) {
  const From* from = jets.fourmomenta.data<From>();
  const int32_t* ptr = jets.ptr.data<int32_t>();
  To* to = out.fourmomenta.data<To>();
  for (int64_t i : indices) to = std::copy(from + 4 * int64_t{ptr[i]}, from + 4 * int64_t{ptr[i + 1]}, to);
}
}  // namespace

JetSet read_jets(Context& ctx, NpyReader& kinematics, std::string_view name) {
  const Shape& shape = kinematics.shape();
  if (shape.rank() != 3 || shape[2] != 4)
    fail(kinematics.where(), "{} has shape {}, expected [jets, constituents, 4]", name, shape);
  if (kinematics.dtype() == DType::f32) return read_jets<float>(ctx, kinematics, name);
  if (kinematics.dtype() == DType::f64) return read_jets<double>(ctx, kinematics, name);
  fail(kinematics.where(), "{} is {}, expected f32 or f64", name, kinematics.dtype());
}

JetSet gather_jets(Context& ctx, const JetSet& jets, std::span<const int64_t> indices, DType dtype) {
  const int32_t* from = jets.ptr.data<int32_t>();
  const int64_t count = static_cast<int64_t>(indices.size());
  JetSet out;
  out.ptr = ctx.empty({count + 1}, DType::i32);
  int32_t* ptr = out.ptr.data<int32_t>();
  ptr[0] = 0;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t i = indices[k];
    if (i < 0 || i >= jets.size()) fail("gather_jets", "jet {} of {}", i, jets.size());
    if (ptr[k] > std::numeric_limits<int32_t>::max() - (from[i + 1] - from[i]))
      fail("gather_jets", "more than 2^31 constituents in {} jets; use a smaller batch", count);
    ptr[k + 1] = ptr[k] + from[i + 1] - from[i];
  }
  out.fourmomenta = ctx.empty({ptr[count], 4}, dtype);
  const bool from_double = jets.fourmomenta.dtype() == DType::f64;
  if (dtype == DType::f64)
    from_double ? gather<double, double>(jets, indices, out) : gather<float, double>(jets, indices, out);
  else if (dtype == DType::f32)
    from_double ? gather<double, float>(jets, indices, out) : gather<float, float>(jets, indices, out);
  else
    fail("gather_jets", "momenta in {}, expected f32 or f64", dtype);
  if (jets.labels.defined()) {
    out.labels = ctx.empty({count}, DType::i64);
    const int64_t* label = jets.labels.data<int64_t>();
    std::transform(indices.begin(), indices.end(), out.labels.data<int64_t>(), [&](int64_t i) { return label[i]; });
  }
  if (jets.scalars.defined()) {
    const int64_t row = jets.scalars.dim(1) * static_cast<int64_t>(size_of(jets.scalars.dtype()));
    out.scalars = ctx.empty({ptr[count], jets.scalars.dim(1)}, jets.scalars.dtype());
    for (int64_t k = 0; k < count; ++k)
      std::memcpy(static_cast<char*>(out.scalars.raw()) + ptr[k] * row,
                  static_cast<const char*>(jets.scalars.raw()) + from[indices[k]] * row, (ptr[k + 1] - ptr[k]) * row);
  }
  return out;
}

std::vector<JetSet> gather_parts(Context& ctx, const JetSet& jets, std::span<const int64_t> indices, DType dtype,
                                 int64_t jets_per_part) {
  const int32_t* ptr = jets.ptr.data<int32_t>();
  auto constituents = [&](int64_t i) { return int64_t{ptr[indices[i] + 1]} - ptr[indices[i]]; };
  const auto count = static_cast<int64_t>(indices.size()), parts = (count + jets_per_part - 1) / jets_per_part;
  int64_t all = 0, before = 0, end = 0;
  for (int64_t i = 0; i < count; ++i) all += constituents(i);
  std::vector<JetSet> out;
  for (int64_t part = 0; part < parts; ++part) {
    // A jet belongs where its middle falls; each part has one at least.
    const int64_t begin = end, last = count - (parts - 1 - part);
    do before += constituents(end++);
    while (end < last && (part + 1 == parts || (2 * before + constituents(end)) * parts <= 2 * all * (part + 1)));
    out.push_back(gather_jets(ctx, jets, indices.subspan(begin, end - begin), dtype));
  }
  return out;
}

}  // namespace lightcone
