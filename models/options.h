#pragma once
#include <optional>
#include <string>

#include "engine/fields.h"

// Options that many networks have in common.
namespace lightcone {

/// Sets a size that the data and the other options make; throws Error naming it if the configuration has another.
void derive(const char* name, std::optional<int64_t>& given, int64_t value);

/// Throws Error unless it is one of the references' names; one attention serves all of them here.
void check_attention_backend(const std::string& name);

}  // namespace lightcone
