#include "models/learned_frames.h"

#include <algorithm>

#include "autograd/elementwise.h"
#include "autograd/segment.h"

namespace lightcone {

namespace {

const std::vector<std::pair<std::string, int64_t>>& vectors_of_types() {
  static const std::vector<std::pair<std::string, int64_t>> table = {{"LearnedPDFrames", 3},   {"LearnedSO13Frames", 3},
                                                                     {"LearnedRestFrames", 2}, {"LearnedSO3Frames", 2},
                                                                     {"LearnedSO2Frames", 1},  {"LearnedZFrames", 2}};
  return table;
}

/// The same four-vector for every token, [T, 4].
Var everywhere(Tape& tape, int64_t T, std::array<double, 4> v, DType dtype) {
  std::vector<double> rows;
  rows.reserve(4 * T);
  for (int64_t t = 0; t < T; ++t) rows.insert(rows.end(), v.begin(), v.end());
  return tape.constant(tape.context().of({T, 4}, dtype, rows));
}

}  // namespace

std::vector<std::string> learned_frames_types() {
  std::vector<std::string> names;
  for (const auto& [name, vectors] : vectors_of_types()) names.push_back(name);
  return names;
}

LearnedFrames::LearnedFrames(Context& ctx, const Json& options, int64_t num_scalars, DType dtype,
                             bool reference_behaviour) {
  read_fields(options, config_, "model.framesnet");
  const auto& table = vectors_of_types();
  const auto it = std::find_if(table.begin(), table.end(), [&](auto& entry) { return entry.first == config_.type; });
  if (it == table.end()) fail("model", "model.framesnet.type has no option '{}'", config_.type);
  type_ = static_cast<Type>(it - table.begin());
  auto refuse = [&](const char* name, const std::string& value, const char* expected) {
    fail("model", "model.framesnet.{} is {}, expected {}", name, value, expected);
  };
  if (config_.deterministic_boost)
    refuse("deterministic_boost", "'" + *config_.deterministic_boost + "'", "null (the option was withdrawn)");
  if (config_.gamma_max && type_ != Type::pd && type_ != Type::z)
    refuse("gamma_max", fmt::format("{}", *config_.gamma_max),
           "null: only LearnedPDFrames and LearnedZFrames limit it");
  if (config_.gamma_max && !(*config_.gamma_max >= 1))
    refuse("gamma_max", fmt::format("{}", *config_.gamma_max), "a number of 1 or more, or null for no limit");
  if (config_.gamma_hardness && !(*config_.gamma_hardness > 0))
    refuse("gamma_hardness", fmt::format("{}", *config_.gamma_hardness), "a number above 0, or null for a hard limit");
  config_.ortho_kwargs.checks |= config_.checks;
  equivectors_ = make_equivectors(ctx, config_.equivectors, it->second, num_scalars, dtype, reference_behaviour);
  add("equivectors", *equivectors_);
  if (config_.random || config_.fix_params)
    for (auto& [name, parameter] : equivectors_->parameters()) parameter->trainable = false;
}

void LearnedFrames::begin_batch(Context& ctx) {
  if (config_.random) equivectors_->initialise(ctx);
}

Frames LearnedFrames::operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr,
                                 Intermediates* intermediates) {
  const Var vectors = (*equivectors_)(fourmomenta, scalars, ptr);
  if (intermediates) (*intermediates)["equivectors"] = vectors.value();
  return from_vectors(fourmomenta, vectors, ptr, intermediates);
}

Frames LearnedFrames::from_vectors(const Var& fourmomenta, Var vectors, const Tensor& ptr,
                                   Intermediates* intermediates) const {
  if (config_.is_global) {
    const Shape shape = vectors.shape();
    const Var rows = reshape(vectors, {shape[0], shape[1] * 4});
    vectors = reshape(segment_broadcast(segment_mean(rows, ptr), ptr), shape);
  }
  return {matrices(fourmomenta, vectors, intermediates), config_.is_global};
}

Var LearnedFrames::matrices(const Var& fourmomenta, const Var& vectors, Intermediates* intermediates) const {
  Tape& tape = vectors.tape();
  const int64_t T = vectors.dim(0), n = vectors.dim(1);
  auto observe = [&](const char* name, const Tensor& value, Observation::Kind kind) {
    tape.observe(name, value, kind, static_cast<double>(T));
    if (intermediates) (*intermediates)[std::string("tracker/") + name] = value;
  };
  auto finish = [&](const RegularisedFrames& made, const char* dependent) {
    observe("reg_lightlike", made.counts.narrow(0, 1), Observation::sum);
    observe(dependent, made.counts.narrow(1, 1), Observation::sum);
    return made.frames;
  };
  if (type_ == Type::so13) return finish(orthonormal_frames(vectors, config_.ortho_kwargs), "reg_coplanar");

  const Var rows = reshape(vectors, {T, 4 * n});
  auto vector = [&](int64_t k) { return slice(rows, 4 * k, 4); };
  const DType dtype = vectors.dtype();
  Var boost, references;
  const Var z_axis = everywhere(tape, T, {0, 0, 0, 1}, dtype);
  switch (type_) {
    case Type::pd:
      boost = vector(0), references = slice(rows, 4, 8);
      break;
    case Type::rest:
      boost = fourmomenta, references = rows;
      break;
    case Type::so2:
      references = concat({z_axis, rows});
      break;
    case Type::z:
      boost = multiply(vector(0), everywhere(tape, T, {1, 0, 0, 1}, dtype)), references = concat({vector(1), z_axis});
      break;
    default:
      references = rows;
  }
  if (type_ == Type::so2 || type_ == Type::so3) boost = everywhere(tape, T, {1, 0, 0, 0}, dtype);
  if (type_ == Type::pd || type_ == Type::z) {
    const ClampedBoost clamped = clamp_boost(boost, config_.gamma_max, config_.gamma_hardness);
    boost = clamped.boost;
    observe("gamma_mean", clamped.statistics.narrow(0, 1), Observation::mean);
    observe("gamma_max", clamped.statistics.narrow(1, 1), Observation::max);
    if (config_.gamma_max) observe("reg_gammamax", clamped.statistics.narrow(2, 1), Observation::sum);
  }
  return finish(polar_decomposition(boost, reshape(references, {T, 2, 4}), config_.ortho_kwargs), "reg_collinear");
}

}  // namespace lightcone
