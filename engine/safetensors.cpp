#include "engine/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "engine/fields.h"

namespace lightcone {

static_assert(std::endian::native == std::endian::little, "files are read and written as they lie in memory");

namespace {
constexpr uint64_t longest_header = 100'000'000;  // the limit of the format's own implementation
constexpr const char* metadata_key = "__metadata__";

struct ElementType {
  const char* name;
  uint64_t bytes;
  std::optional<DType> dtype;
};
constexpr ElementType element_types[] = {
    {"F64", 8, DType::f64},       {"F32", 4, DType::f32},          {"BF16", 2, DType::bf16},
    {"F16", 2, DType::f16},       {"F8_E4M3", 1, DType::fp8_e4m3}, {"F8_E5M2", 1, DType::fp8_e5m2},
    {"I8", 1, DType::i8},         {"I32", 4, DType::i32},          {"I64", 8, DType::i64},
    {"BOOL", 1, DType::boolean},  {"U8", 1, std::nullopt},         {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},     {"U32", 4, std::nullopt},        {"U64", 8, std::nullopt},
    {"F8_E8M0", 1, std::nullopt}, {"C64", 8, std::nullopt},
};

const char* type_name(DType dtype) {
  return std::find_if(std::begin(element_types), std::end(element_types), [&](auto& t) { return t.dtype == dtype; })
      ->name;
}

/// Takes the header's JSON as it is parsed, and stops at the first thing that the format does not have: nothing is
/// built that a hostile header could make deep or large, and a repeated key is seen.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& path, std::vector<std::string>& names,
               std::map<std::string, Safetensors::Info, std::less<>>& tensors,
               std::map<std::string, std::string>& metadata)
      : path_(path), names_(names), tensors_(tensors), metadata_(metadata) {}

  bool start_object(size_t) override {
    if (depth_ == 2 || list_) wrong("an object");
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (depth_ == 2 && info_) {
      for (const char* key : {"dtype", "shape", "data_offsets"})
        if (!fields_.contains(key)) bad("has no '{}'", key);
      if (offsets_.size() != 2) bad("has {} data_offsets, expected 2", offsets_.size());
      info_->begin = offsets_[0];
      info_->end = offsets_[1];
    }
    --depth_;
    return true;
  }
  bool key(std::string& key) override {
    if (depth_ == 1) {
      name_ = key;
      info_ = nullptr;
      fields_.clear();
      offsets_.clear();
      if (!seen_.insert(key).second) bad("stands there twice");
      if (key != metadata_key) {
        names_.push_back(key);
        info_ = &tensors_[key];
      }
    } else {
      key_ = key;
      if (!fields_.insert(key).second) bad("has '{}' twice", key);
      if (info_ && key != "dtype" && key != "shape" && key != "data_offsets") bad("has the unknown field '{}'", key);
    }
    return true;
  }
  bool string(std::string& text) override {
    if (depth_ != 2 || list_ || (info_ && key_ != "dtype")) wrong("a text");
    if (info_)
      info_->type = text;
    else
      metadata_[key_] = text;
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || list_ || !info_ || key_ == "dtype") wrong("a list");
    list_ = true;
    return true;
  }
  bool end_array() override {
    list_ = false;
    return true;
  }
  bool number_unsigned(uint64_t n) override {
    if (!list_) wrong("a number");
    if (n > INT64_MAX) bad("has a {} of {}, which is too large", key_, n);
    if (key_ == "shape")
      info_->shape.push_back(static_cast<int64_t>(n));
    else
      offsets_.push_back(n);
    return true;
  }
  bool number_integer(int64_t n) override { wrong(fmt::format("{}", n)); }
  bool number_float(double, const std::string& text) override { wrong(text); }
  bool boolean(bool) override { wrong("a bool"); }
  bool null() override { wrong("null"); }
  bool binary(nlohmann::json::binary_t&) override { wrong("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(path_, "byte {}: the header is not valid JSON; the file is damaged or no safetensors file", position + 7);
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(fmt::format_string<Args...> format, Args&&... args) {
    fail(path_, "header: '{}' {}", name_, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void wrong(const std::string& what) {
    if (depth_ == 0) fail(path_, "header: {} where an object is expected", what);
    bad("has {} where {} is expected", what,
        depth_ == 1       ? "an object"
        : list_           ? "a non-negative integer"
        : !info_          ? "a text"
        : key_ == "dtype" ? "a text"
                          : "a list");
  }

  const std::string& path_;
  std::vector<std::string>& names_;
  std::map<std::string, Safetensors::Info, std::less<>>& tensors_;
  std::map<std::string, std::string>& metadata_;
  int depth_ = 0;
  bool list_ = false;
  std::string name_, key_;
  Safetensors::Info* info_ = nullptr;  // nothing inside the metadata
  std::set<std::string> seen_, fields_;
  std::vector<uint64_t> offsets_;
};

/// Elements times their size; nothing if that overflows.
std::optional<uint64_t> byte_count(const std::vector<int64_t>& shape, uint64_t element) {
  int64_t n = 1, bytes = 0;
  for (int64_t extent : shape)
    if (__builtin_mul_overflow(n, extent, &n)) return std::nullopt;
  if (__builtin_mul_overflow(n, static_cast<int64_t>(element), &bytes)) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}
}  // namespace

Safetensors::Safetensors(const Path& path) : file_(path) {
  const Bytes bytes = file_.bytes();
  uint64_t length = 0;
  if (bytes.size() < 8) fail(file_.path(), "byte {}: ends inside the header's length", bytes.size());
  std::memcpy(&length, bytes.data(), 8);
  if (length > bytes.size() - 8 || length > longest_header)
    fail(file_.path(), "byte 0: a header of {} bytes in a file of {}; it is cut off or no safetensors file", length,
         bytes.size());
  const Bytes header = bytes.subspan(8, length);
  // The parser would take a zero byte for the end, and a byte order mark for nothing.
  if (header.empty() || header[0] != '{') fail(file_.path(), "byte 8: the header does not start with '{{'");
  if (auto zero = std::find(header.begin(), header.end(), 0); zero != header.end())
    fail(file_.path(), "byte {}: a zero byte in the header", 8 + (zero - header.begin()));
  HeaderReader reader(file_.path(), names_, tensors_, metadata_);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  data_ = 8 + length;

  std::vector<std::pair<const std::string*, const Info*>> by_offset;
  for (auto& [name, info] : tensors_) {
    by_offset.emplace_back(&name, &info);
    auto type = std::find_if(std::begin(element_types), std::end(element_types),
                             [&, &t = info](auto& known) { return known.name == t.type; });
    if (info.end < info.begin)
      fail(file_.path(), "header: '{}' ends at byte {}, before its begin {}", name, info.end, info.begin);
    if (type == std::end(element_types)) continue;
    info.dtype = type->dtype;
    const auto expected = byte_count(info.shape, type->bytes);
    if (expected != info.end - info.begin)
      fail(file_.path(), "header: '{}' is {} [{}], which needs {} bytes, but it has {}", name, info.type,
           fmt::join(info.shape, ", "), expected ? fmt::format("{}", *expected) : "too many", info.end - info.begin);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](auto& a, auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  uint64_t end = 0;
  for (const auto& [name, info] : by_offset) {
    if (info->begin != end)
      fail(file_.path(), "header: '{}' begins at byte {} of the data, expected {}, where the one before it ends", *name,
           info->begin, end);
    end = info->end;
  }
  if (end != bytes.size() - data_)
    fail(file_.path(), "has {} bytes of data, the header describes {}; it is cut off or damaged", bytes.size() - data_,
         end);
}

const Safetensors::Info& Safetensors::info(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end())
    fail(path(), "has no tensor '{}'; the nearest are {}", name, fmt::join(nearest_names(name, names_), ", "));
  return it->second;
}

Tensor Safetensors::load(Context& ctx, std::string_view name) const {
  const Info& info = this->info(name);
  if (!info.dtype) fail(path(), "'{}' has elements of type {}, which Lightcone does not read", name, info.type);
  if (info.shape.size() > Shape::max_rank)
    fail(path(), "'{}' has {} axes, at most {} are possible", name, info.shape.size(), Shape::max_rank);
  Shape shape;
  for (int64_t extent : info.shape) shape.append(extent);
  const Bytes bytes = file_.bytes().subspan(data_ + info.begin, info.end - info.begin);
  if (info.dtype == DType::boolean) {
    auto bad = std::find_if(bytes.begin(), bytes.end(), [](auto b) { return b > 1; });
    if (bad != bytes.end())
      fail(path(), "byte {}: '{}' holds {} where a bool, 0 or 1, is expected",
           data_ + info.begin + (bad - bytes.begin()), name, *bad);
  }
  Tensor out = ctx.host().empty(shape, *info.dtype);
  std::copy(bytes.begin(), bytes.end(), static_cast<unsigned char*>(out.raw()));
  return out;
}

void save_safetensors(const Path& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<const std::pair<std::string, Tensor>*> order;
  for (const auto& item : tensors) {
    if (!item.second.defined()) fail(path.string(), "tensor '{}' is not there", item.first);
    order.push_back(&item);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return size_of(a->second.dtype()) > size_of(b->second.dtype()); });
  Json header = Json::object();
  std::set<std::string> seen = {metadata_key};
  if (!metadata.empty()) header[metadata_key] = metadata;
  int64_t end = 0;
  for (const auto* item : order) {
    const auto& [name, t] = *item;
    if (!seen.insert(name).second) fail(path.string(), "two tensors are named '{}'", name);
    // Not header[name]: an ordered object searches all its keys.
    header.get_ref<Json::object_t&>().emplace_back(
        name, Json{{"dtype", type_name(t.dtype())},
                   {"shape", std::vector<int64_t>(t.shape().begin(), t.shape().end())},
                   {"data_offsets", {end, end + t.bytes()}}});
    end += t.bytes();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    fail(path.string(), "a tensor's name or the metadata is not valid UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  write_atomic(path, [&](Writer& out) {
    out.write(&length, 8);
    out.write(text);
    for (const auto* item : order) out.write(item->second.raw(), item->second.bytes());
  });
}

}  // namespace lightcone
