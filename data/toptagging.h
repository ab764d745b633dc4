#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "data/jets.h"

namespace lightcone {

/// The jets of one part ("train", "val" or "test") of a top-tagging file, an npz with
///
///   kinematics_<part>  [N, P, 4]  f32 or f64   (E, px, py, pz) in GeV, padded with zeros
///   labels_<part>      [N]        any type, 1 top, 0 QCD
///
/// Padding is dropped as in read_jets(). Throws Error for a missing array (naming those that are there), a wrong shape
/// or dtype, lengths that differ, and a label that is neither 0 nor 1.
JetSet read_toptagging(Context& ctx, const Path& path, std::string_view part);

/// Which array read_jets() takes: "kinematics of jets.npz", "jets.npy".
std::string jets_array(const Path& path, const std::optional<std::string>& key = std::nullopt);

/// Jets to predict: an .npy file, or an .npz file's array `key`; without a key `kinematics`, `kinematics_test` or, if
/// there is only one array, that one. No labels.
JetSet read_jets(Context& ctx, const Path& path, const std::optional<std::string>& key = std::nullopt);

}  // namespace lightcone
