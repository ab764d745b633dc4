#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/context.h"
#include "engine/file.h"

namespace lightcone {

/// A file of named tensors (github.com/huggingface/safetensors): u64 length of the header, a JSON header, then the
/// elements, little endian. Opening checks the whole header, so that load() can only fail on a tensor that has no
/// counterpart here (an unknown element type, more than six axes, a bool that is neither 0 nor 1).
///
///     Safetensors file("model.safetensors");
///     Tensor w = file.load(ctx, "net.linear_in.weight");
class Safetensors {
 public:
  struct Info {
    std::string type;            ///< as in the file, "F32"
    std::optional<DType> dtype;  ///< nothing for U8, I16, …
    std::vector<int64_t> shape;
    uint64_t begin = 0, end = 0;  ///< bytes, from the end of the header
  };

  explicit Safetensors(const Path& path);
  const std::string& path() const { return file_.path(); }
  /// In the order of the header.
  const std::vector<std::string>& names() const { return names_; }
  bool has(std::string_view name) const { return tensors_.contains(name); }
  /// Throws Error with the nearest names if there is no such tensor.
  const Info& info(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  Tensor load(Context& ctx, std::string_view name) const;

 private:
  MappedFile file_;
  uint64_t data_ = 0;  // offset of the first element
  std::vector<std::string> names_;
  std::map<std::string, Info, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes atomically, and the same bytes for the same arguments. Wide elements stand before narrow ones, which aligns
/// every tensor; otherwise the order is that of `tensors`. Throws Error on a repeated name or a text that is not UTF-8.
void save_safetensors(const Path& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace lightcone
