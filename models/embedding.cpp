#include "models/embedding.h"

#include <cmath>
#include <limits>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/jet_features_math.h"

namespace lightcone {

using kernels::TaggingFeatures;

static TaggingFeatures selection(const EmbeddingConfig& config) {
  return config.tagging_features ? kernels::tagging_features_from(*config.tagging_features) : TaggingFeatures::none;
}

void EmbeddingConfig::validate() const {
  selection(*this);
  spurions(*this);
  if (mass_reg && !(*mass_reg >= 0 && std::isfinite(*mass_reg)))
    fail("mass_reg", "{} GeV; expected a mass of 0 or more, or null for no regulator", *mass_reg);
  if (!std::isfinite(spurion_scale)) fail("spurion_scale", "{}; expected a finite number", spurion_scale);
  if (max_particles && *max_particles < 1)
    fail("max_particles", "{}; expected 1 or more, or null for all", *max_particles);
}

std::vector<FourMomentum> spurions(const EmbeddingConfig& config) {
  std::vector<FourMomentum> out;
  if (config.beam_reference == "all") {
    out = {{1, 0, 0, 1}, {1, 0, 1, 0}, {1, 1, 0, 0}};
  } else if (config.beam_reference) {
    const std::string& kind = *config.beam_reference;
    if (kind != "lightlike" && kind != "timelike" && kind != "spacelike")
      fail("beam_reference", "unknown kind '{}'; expected lightlike, timelike, spacelike, all or null", kind);
    const double E = kind == "lightlike" ? 1 : kind == "timelike" ? std::sqrt(2.0) : 0;
    out.push_back({E, 0, 0, 1});
    if (config.two_beams) out.push_back({E, 0, 0, -1});
  }
  if (config.add_time_reference) out.push_back({1, 0, 0, 0});
  for (FourMomentum& p : out)
    for (double& x : p) x *= config.spurion_scale;
  return out;
}

namespace {

constexpr int64_t jets_per_chunk = 8;

// Jets that come in and go out: rows [from, from + count) become rows [to, to + spurions + count).
struct Layout {
  const int32_t* in;
  int32_t* out;
  int64_t spurions;
  int64_t from(int64_t jet) const { return in[jet]; }
  int64_t to(int64_t jet) const { return out[jet]; }
  int64_t count(int64_t jet) const { return out[jet + 1] - out[jet] - spurions; }
};

// Fills layout.out; returns the number of tokens.
int64_t lay_out(const Layout& layout, int64_t B, int64_t T, std::optional<int64_t> max_particles) {
  if (layout.in[0] != 0) fail("embed_jets", "ptr starts at {}, expected 0", layout.in[0]);
  if (layout.in[B] != T) fail("embed_jets", "ptr ends at {}, but fourmomenta has {} rows", layout.in[B], T);
  int64_t tokens = 0;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t count = int64_t{layout.in[b + 1]} - layout.in[b];
    if (count == 0) fail("embed_jets", "jet {} has no constituents; leave such jets out of the batch", b);
    if (count < 0) fail("embed_jets", "ptr falls from {} to {} at jet {}", layout.in[b], layout.in[b + 1], b);
    layout.out[b] = static_cast<int32_t>(tokens);
    tokens += layout.spurions + std::min(count, max_particles.value_or(count));
    if (tokens > std::numeric_limits<int32_t>::max())
      fail("embed_jets", "more than 2^31 tokens at jet {}; use smaller batches", b);
  }
  layout.out[B] = static_cast<int32_t>(tokens);
  return tokens;
}

template <class T>
FourMomentum load(const T* p) {
  return {p[0], p[1], p[2], p[3]};
}
template <class T>
void store(const FourMomentum& p, T* to) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<T>(p[i]);
}

template <class T>
FourMomentum sum(const T* p, int64_t n) {
  FourMomentum total{};
  for (int64_t t = 0; t < n; ++t)
    for (int i = 0; i < 4; ++i) total[i] += p[4 * t + i];
  return total;
}

template <class T>
void regulate_mass(T* p, double mass_reg) {
  const FourMomentum v = load(p);
  const double p2 = v[1] * v[1] + v[2] * v[2] + v[3] * v[3], m2 = mass_reg * mass_reg;
  if (v[0] * v[0] - p2 < m2) p[0] = static_cast<T>(std::sqrt(p2 + m2));
}

template <class T>
void boost_to_rest_frame(const FourMomentum& jet, T* p, int64_t n) {
  double matrix[16];
  minkowski_math::RestFrame(jet.data()).matrix(matrix);
  for (int64_t t = 0; t < n; ++t) {
    FourMomentum at_rest;
    minkowski_math::transform(matrix, load(p + 4 * t).data(), at_rest.data());
    store(at_rest, p + 4 * t);
  }
}

template <class From, class To>
void copy_scalars(Context& ctx, const Layout& layout, int64_t B, int64_t S, const From* from, To* to) {
  parallel_chunks(ctx, B, jets_per_chunk, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      To* row = to + layout.to(b) * S;
      for (int64_t k = 0; k < layout.spurions * S; ++k) *row++ = To(0);
      const From* values = from + layout.from(b) * S;
      for (int64_t k = 0; k < layout.count(b) * S; ++k) *row++ = static_cast<To>(values[k]);
    }
  });
}

}  // namespace

Embedding Embedding::on(Context& ctx) const {
  Embedding out = *this;
  if (ctx.device() == Device::cpu) return out;
  for (Tensor Embedding::*part :
       {&Embedding::fourmomenta, &Embedding::scalars, &Embedding::tagging_features, &Embedding::jets})
    out.*part = ctx.here(out.*part);
  out.ptr = ctx.offsets(ptr.offsets());
  return out;
}

Embedding embed_jets(Context& context, const EmbeddingConfig& config, const Tensor& fourmomenta, const Tensor& scalars,
                     const Tensor& ptr, DType network_dtype, EmbeddingParts parts) {
  Context& ctx = context.host();
  config.validate();
  check("embed_jets", "fourmomenta", fourmomenta).rank(2).columns(4).momentum();
  check("embed_jets", "scalars", scalars).rank(2).compute();
  check("embed_jets", "scalars", scalars).shape({fourmomenta.dim(0), scalars.dim(1)});
  check("embed_jets", "ptr", ptr).rank(1).dtype(DType::i32);
  if (ptr.dim(0) == 0) throw Error("embed_jets: ptr is empty, expected one entry more than there are jets");

  const auto reference = parts.spurions ? spurions(config) : std::vector<FourMomentum>{};
  const auto S = static_cast<int64_t>(reference.size());
  const TaggingFeatures which = parts.tagging_features ? selection(config) : TaggingFeatures::none;
  const int64_t B = ptr.dim(0) - 1, F = kernels::num_tagging_features(which);

  Embedding out;
  out.spurions = S;
  out.ptr = ctx.empty({B + 1}, DType::i32);
  const Layout layout{ptr.data<int32_t>(), out.ptr.data<int32_t>(), S};
  const int64_t tokens = lay_out(layout, B, fourmomenta.dim(0), config.max_particles);
  out.fourmomenta = ctx.empty({tokens, 4}, fourmomenta.dtype());
  out.scalars = ctx.empty({tokens, scalars.dim(1)}, network_dtype);
  out.is_spurion = ctx.empty({tokens}, DType::boolean);
  out.tagging_features = ctx.empty({tokens, F}, network_dtype);
  out.batch = ctx.empty({tokens}, DType::i32);
  out.jets = ctx.empty({B, 4}, fourmomenta.dtype());
  const auto scope =
      ctx.profiler().scope("embed_jets", fourmomenta.bytes() + out.fourmomenta.bytes() + scalars.bytes() +
                                             out.scalars.bytes() + out.tagging_features.bytes());

  dispatch_momentum("embed_jets", fourmomenta.dtype(), [&](auto type) {
    dispatch_compute("embed_jets", network_dtype, [&](auto network_type) {
      using T = typename decltype(type)::type;
      using Network = typename decltype(network_type)::type;
      parallel_chunks(ctx, B, jets_per_chunk, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          const int64_t first = layout.to(b), n = layout.count(b);
          T *p = out.fourmomenta.data<T>() + 4 * first, *constituents = p + 4 * S;
          for (int64_t s = 0; s < S; ++s) store(reference[s], p + 4 * s);
          std::copy_n(fourmomenta.data<T>() + 4 * layout.from(b), 4 * n, constituents);
          if (config.mass_reg)
            for (int64_t t = 0; t < S + n; ++t) regulate_mass(p + 4 * t, *config.mass_reg);
          if (config.laboratory)
            for (int64_t s = 0; s < S; ++s) {
              FourMomentum moved;
              minkowski_math::transform(config.laboratory->data(), load(p + 4 * s).data(), moved.data());
              store(moved, p + 4 * s);
            }
          if (config.boost_jet) boost_to_rest_frame(sum(constituents, n), p, S + n);

          T* jet = out.jets.data<T>() + 4 * b;
          store(sum(constituents, n), jet);
          Network* features = out.tagging_features.data<Network>() + F * first;
          std::fill_n(features, F * S, Network(0));
          jet_features_math::rows(which, n, constituents, jet, 0, features + F * S);
          std::fill_n(out.batch.data<int32_t>() + first, S + n, static_cast<int32_t>(b));
          std::fill_n(out.is_spurion.data<bool>() + first, S, true);
          std::fill_n(out.is_spurion.data<bool>() + first + S, n, false);
        }
      });
    });
  });
  dispatch_compute("embed_jets", scalars.dtype(), [&](auto from) {
    dispatch_compute("embed_jets", network_dtype, [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      copy_scalars(ctx, layout, B, scalars.dim(1), scalars.data<From>(), out.scalars.data<To>());
    });
  });
  return out;
}

}  // namespace lightcone
