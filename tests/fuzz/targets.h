#pragma once
#include <functional>
#include <string>

#include "engine/context.h"
#include "engine/file.h"

/// What the fuzzer does with one input: the reader of that kind gets it as a file (overrides: as text). Whatever the
/// input, a target returns; a reader may throw Error and nothing else. What else a target demands, it throws as
/// std::logic_error, which no reader throws. tests/test_fuzz.cpp calls the same functions with what was once found.
namespace lightcone::fuzz {

void safetensors(Bytes input);
void npy(Bytes input);
void npz(Bytes input);
void toml(Bytes input);
void overrides(Bytes input);

/// The path of a file in memory with these bytes, until the next call.
Path memory_file(Bytes bytes);

/// Calls `read`, which may throw Error. True if it did not.
bool allows_errors(const std::function<void()>& read);

/// Calls `read`, which may throw Error, with a new Context. Demands that it writes to no memory but its tensors', and
/// that these take no more than the input can fill: deflate yields 1032 bytes a byte, and transposing takes twice that.
void with_guards(Bytes input, const std::function<void(Context& ctx)>& read);

}  // namespace lightcone::fuzz
