#include "models/lloca_tagger.h"

#include "autograd/elementwise.h"
#include "autograd/jet_features.h"
#include "autograd/minkowski.h"
#include "autograd/segment.h"

namespace lightcone {

namespace {

int64_t features_for_frames(const EmbeddingConfig& embedding, const TaggingTask& task) {
  const auto& which = embedding.tagging_features;
  return task.extra_scalars + (which ? num_tagging_features(kernels::tagging_features_from(*which)) : 0);
}

/// The rows of the constituents among all tokens, and the constituents' offsets.
struct Constituents {
  Tensor rows, ptr;
  Constituents(Context& ctx, const Embedding& e) {
    const auto old = e.ptr.offsets();
    std::vector<int32_t> kept, offsets = {0};
    for (size_t b = 0; b + 1 < old.size(); ++b) {
      for (auto t = old[b] + static_cast<int32_t>(e.spurions); t < old[b + 1]; ++t) kept.push_back(t);
      offsets.push_back(static_cast<int32_t>(kept.size()));
    }
    rows = ctx.offsets(kept);
    ptr = ctx.offsets(offsets);
  }
};

/// (m, 0, 0, 0), what p is in its own rest frame. L p is that up to rounding, and of nothing but rounding its angles
/// would be made, another one in every laboratory.
Var at_rest(const Var& p) {
  const int64_t T = p.dim(0);
  return concat({reshape(mass(p), {T, 1}), p.tape().constant(p.context().zeros({T, 3}, p.dtype()))});
}

Var rows_of(const Var& x, const Tensor& rows) {
  const Shape shape = x.shape();
  if (shape.rank() == 2) return gather_rows(x, rows);
  return reshape(gather_rows(reshape(x, {shape[0], 16}), rows), {rows.dim(0), 4, 4});
}

}  // namespace

LlocaTagger::LlocaTagger(Context& ctx, const Json& framesnet, const TaggingTask& task, const EmbeddingConfig& embedding,
                         bool reference_behaviour, DType dtype)
    : embedding_(embedding),
      dtype_(dtype),
      trafo_fourmomenta_(ctx, TensorReps("1x1n")),
      framesnet_(make_framesnet(ctx, framesnet, features_for_frames(embedding, task), dtype, reference_behaviour)) {
  if (!framesnet_->is_learned()) {
    // No symmetry of such a network: its features must stay those of the laboratory.
    embedding_.boost_jet = false;
    embedding_.tagging_features = "all";
  }
  add("framesnet", *framesnet_);
  add("trafo_fourmomenta", trafo_fourmomenta_);
}

Embedding LlocaTagger::embed(Context& ctx, const JetSet& jets) const {
  const Tensor scalars = jets.scalars.defined() ? jets.scalars : ctx.host().empty({jets.fourmomenta.dim(0), 0}, dtype_);
  return embed_jets(ctx, embedding_, jets.fourmomenta, scalars, jets.ptr, dtype_,
                    {.spurions = !framesnet_->is_identity()})
      .on(ctx);
}

void LlocaTagger::standardise(Context& ctx, const JetSet& batch) {
  if (framesnet_->is_identity()) return;
  const Embedding e = embed(ctx, batch);
  framesnet_->standardise(ctx, e.fourmomenta, e.ptr);
}

LocalJets LlocaTagger::local_jets(Tape& tape, const JetSet& jets, bool with_fourmomenta, Intermediates* intermediates) {
  Context& ctx = tape.context();
  const Embedding e = embed(ctx, jets);
  const Var momenta = tape.constant(e.fourmomenta), scalars = tape.constant(e.scalars),
            global_features = tape.constant(e.tagging_features);
  LocalJets out{.features = {}, .fourmomenta = momenta, .frames = {}, .ptr = e.ptr};
  std::vector<Var> columns = {scalars};
  if (framesnet_->is_identity()) {
    columns.push_back(global_features);
  } else {
    const Constituents constituents(ctx, e);
    out.ptr = constituents.ptr;
    out.frames = (*framesnet_)(momenta, concat({scalars, global_features}), e.ptr, intermediates);
    out.fourmomenta = rows_of(momenta, constituents.rows);
    columns[0] = rows_of(scalars, constituents.rows);
    if (out.frames.is_identity()) {
      columns.push_back(rows_of(global_features, constituents.rows));
    } else {
      if (intermediates) (*intermediates)["frames"] = out.frames.matrices.value();
      out.frames.matrices = rows_of(out.frames.matrices, constituents.rows);
      const int64_t T = out.fourmomenta.dim(0);
      const Var jet = segment_broadcast(tape.constant(e.jets), out.ptr);
      const Var seen = reshape(cast(concat({out.fourmomenta, jet}), DType::f64), {T, 2, 4});
      const Var local = reshape(lorentz_transform(out.frames.matrices, seen), {T, 8});
      out.fourmomenta = framesnet_->is_rest_frame() ? at_rest(cast(out.fourmomenta, DType::f64)) : slice(local, 0, 4);
      columns.push_back(jet_features(out.fourmomenta, slice(local, 4, 4), TaggingFeatures::all, dtype_));
      // The backbone works in the network's dtype.
      out.frames.matrices = cast(out.frames.matrices, dtype_);
    }
  }
  if (with_fourmomenta) columns.push_back(cast(out.fourmomenta, dtype_));
  out.features = concat(columns);
  return out;
}

Frames LlocaTagger::with_global_tokens(const Frames& frames, const Tensor& longer) {
  if (frames.is_identity()) return frames;
  Tape& tape = frames.matrices.tape();
  const int64_t B = longer.dim(0) - 1, T = frames.matrices.dim(0);
  std::vector<double> identities(16 * B, 0.0);
  for (int64_t b = 0; b < B; ++b)
    for (int mu = 0; mu < 4; ++mu) identities[16 * b + 5 * mu] = 1;
  const Var first = tape.constant(tape.context().of({B, 16}, frames.matrices.dtype(), identities));
  const Var all = prepend_rows(first, reshape(frames.matrices, {T, 16}), longer);
  return {reshape(all, {all.dim(0), 4, 4}), frames.is_global};
}

}  // namespace lightcone
