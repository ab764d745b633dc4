#pragma once
#include <functional>

#include "autograd/tape.h"

namespace lightcone {

/// f(x) without keeping what f computes on the way: the backward pass runs f again (with the same random numbers) and
/// differentiates that. Gradients of parameters that f uses have the same bits as without, unless such a parameter is
/// used outside of f as well.
Var checkpoint(const Var& x, const std::function<Var(const Var&)>& f);
/// The same for functions of several values, with several results.
std::vector<Var> checkpoint(const std::vector<Var>& xs,
                            const std::function<std::vector<Var>(const std::vector<Var>&)>& f);

}  // namespace lightcone
