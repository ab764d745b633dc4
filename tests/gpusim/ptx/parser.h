#pragma once
#include <string_view>

#include "gpusim/ptx/module.h"

namespace gpusim::ptx {

/// Reads the text of a module (PTX ISA 9.0, what nvcc emits and inline assembly may hold: nested scopes with registers
/// and variables of their own, which get unique names). Throws Error with the text's line for what it does not know.
Module parse(std::string_view text);

}  // namespace gpusim::ptx
