#pragma once
#include <driver_types.h>

#include <functional>
#include <string>

#include "gpusim/machine/timeline.h"

namespace gpusim {

/// Adds work to a stream (or to the graph that captures it): it runs when something waits for the stream, after all
/// that is ordered before it, with the operation it is. For libraries on top of the runtime, as cublasLt's stand-in is.
/// The answer is an error where a launch would have one: a destroyed stream, a lost context, an invalid capture.
cudaError_t enqueue(cudaStream_t stream, std::string name, std::function<void(const Operation&)> work);

}  // namespace gpusim
