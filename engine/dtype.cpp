#include "engine/dtype.h"

namespace lightcone {

size_t size_of(DType dtype) {
  return dispatch_all(dtype, [](auto t) { return sizeof(typename decltype(t)::type); });
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::fp8_e4m3:
      return "fp8_e4m3";
    case DType::fp8_e5m2:
      return "fp8_e5m2";
    case DType::i8:
      return "i8";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    case DType::boolean:
      return "bool";
  }
  return "?";
}

bool is_floating(DType dtype) { return dtype <= DType::fp8_e5m2; }

}  // namespace lightcone
