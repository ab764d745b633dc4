#pragma once
#include <cublasLt.h>

#include <optional>
#include <string>

struct cublasLtContext {
  int device = 0;  ///< the current one when the handle was made
};

namespace gpusim::lt {

/// Why cuBLASLt does not do something: the status it answers with, and the rule in words.
struct Refusal {
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  std::string why;
};
using Refused = std::optional<Refusal>;

inline Refused invalid(std::string why) { return Refusal{CUBLAS_STATUS_INVALID_VALUE, std::move(why)}; }
inline Refused unsupported(std::string why) { return Refusal{CUBLAS_STATUS_NOT_SUPPORTED, std::move(why)}; }

/// The status, with the rule told to the logger: a program that is refused can ask why, as with cuBLASLt
/// (CUBLASLT_LOG_LEVEL=1, or cublasLtLoggerSetLevel or a callback).
cublasStatus_t answer(const char* function, const Refusal& refusal);

}  // namespace gpusim::lt
