#include "engine/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <set>
#include <vector>

namespace lightcone {

namespace {
constexpr std::string_view magic = "\x93NUMPY";
constexpr std::pair<std::string_view, DType> element_types[] = {
    {"<f8", DType::f64}, {"<f4", DType::f32}, {"<f2", DType::f16},    {"|i1", DType::i8},
    {"<i4", DType::i32}, {"<i8", DType::i64}, {"|b1", DType::boolean}};

/// The header is a Python dict literal, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderParser {
 public:
  HeaderParser(std::string where, std::string_view text) : where_(std::move(where)), text_(text) {}
  std::string descr;
  bool fortran = false;
  std::vector<int64_t> shape;

  void parse() {
    std::set<std::string> seen;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      if (!seen.insert(key).second) bad("one '" + key + "'");
      expect(':');
      if (key == "descr")
        descr = string();
      else if (key == "fortran_order")
        fortran = boolean();
      else if (key == "shape")
        tuple();
      else
        bad("descr, fortran_order or shape, not '" + key + "'");
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    space();
    if (seen.size() != 3) bad("all of descr, fortran_order and shape");
    if (at_ != text_.size()) bad("the end of the header");
  }

 private:
  [[noreturn]] void bad(const std::string& expected) const {
    fail(where_, "the npy header is damaged or of a kind that is not read: at its character {}, expected {}", at_,
         expected);
  }
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad(fmt::format("'{}'", c));
  }
  std::string string() {
    space();
    if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"'))
      bad("a text (arrays of records are not read)");
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == text_.npos) bad("the end of this text");
    const std::string out(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return out;
  }
  bool boolean() {
    space();
    for (std::string_view word : {"True", "False"})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return word == "True";
      }
    bad("True or False");
  }
  void tuple() {
    expect('(');
    while (!accept(')')) {
      space();
      int64_t extent = -1;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), extent);
      if (error != std::errc() || extent < 0) bad("a non-negative integer");
      shape.push_back(extent);
      at_ = end - text_.data();
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
  }

  std::string where_;
  std::string_view text_;
  size_t at_ = 0;
};
}  // namespace

NpyReader::NpyReader(std::unique_ptr<Source> source) : source_(std::move(source)) {
  std::array<char, 8> start;
  const std::string begin = where();
  source_->read(start.data(), start.size());
  if (std::string_view(start.data(), 6) != magic) fail(begin, "no npy array starts here");
  const int version = start[6];
  if (version < 1 || version > 3 || start[7] != 0)
    fail(begin, "npy version {}.{}, expected 1 to 3", version, +start[7]);
  uint32_t length = 0;
  source_->read(&length, version == 1 ? 2 : 4);
  if (length > source_->left()) fail(where(), "an npy header of {} bytes, {} are left", length, source_->left());
  // Anything that can be read has a short header; a long one could be a small file that claims to inflate to a lot.
  if (length > 65536) fail(where(), "an npy header of {} bytes, expected at most 65536", length);
  std::string text(length, ' ');
  const std::string header = where();
  source_->read(text.data(), length);
  HeaderParser parser(header, text);
  parser.parse();

  const auto type = std::find_if(std::begin(element_types), std::end(element_types),
                                 [&](auto& known) { return known.first == parser.descr; });
  if (type == std::end(element_types))
    fail(header, "an array of '{}'; expected f8, f4, f2, i1, i4, i8 or b1, little endian (convert it with astype())",
         parser.descr);
  dtype_ = type->second;
  fortran_ = parser.fortran;
  if (parser.shape.size() > Shape::max_rank)
    fail(header, "an array of {} axes, at most {} are possible", parser.shape.size(), Shape::max_rank);
  int64_t bytes = static_cast<int64_t>(size_of(dtype_));
  for (int64_t extent : parser.shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) fail(header, "the shape has too many elements");
    shape_.append(extent);
  }
  if (static_cast<uint64_t>(bytes) != source_->left())
    fail(where(), "{} {} needs {} bytes of data, {} are here; the file is cut off or damaged", dtype_, shape_, bytes,
         source_->left());
}

void NpyReader::read_elements(void* to, size_t values) {
  const std::string begin = where();
  source_->read(to, values * size_of(dtype_));
  if (dtype_ != DType::boolean) return;
  const auto* bytes = static_cast<const unsigned char*>(to);
  const auto* bad = std::find_if(bytes, bytes + values, [](auto b) { return b > 1; });
  if (bad != bytes + values)
    fail(begin, "value {} from here is {} where a bool, 0 or 1, is expected", bad - bytes, *bad);
}

void NpyReader::read(void* to, size_t values) {
  if (fortran_ && shape_.rank() > 1)
    fail(where(), "the array is in Fortran order; write it with numpy.ascontiguousarray()");
  read_elements(to, values);
}

Tensor NpyReader::load(Context& ctx) {
  Tensor out = ctx.empty(shape_, dtype_);
  if (!fortran_ || shape_.rank() < 2 || out.numel() == 0) {
    read_elements(out.raw(), out.numel());
    return out;
  }
  Tensor columns = ctx.empty(shape_, dtype_);
  read_elements(columns.raw(), columns.numel());
  // Walks the output in row-major order; `from` follows with the strides of the first-axis-fastest layout.
  const size_t width = size_of(dtype_);
  std::array<int64_t, Shape::max_rank> index{}, stride{};
  for (int64_t a = 0, s = 1; a < shape_.rank(); s *= shape_[a++]) stride[a] = s;
  int64_t from = 0;
  for (int64_t i = 0; i < out.numel(); ++i) {
    std::memcpy(static_cast<char*>(out.raw()) + i * width, static_cast<char*>(columns.raw()) + from * width, width);
    for (int a = shape_.rank() - 1; a >= 0; --a) {
      from += stride[a];
      if (++index[a] < shape_[a]) break;
      from -= stride[a] * shape_[a];
      index[a] = 0;
    }
  }
  return out;
}

Tensor load_npy(Context& ctx, const Path& path) { return NpyReader(open_source(path)).load(ctx); }

std::string npy_header(const Tensor& tensor) {
  const auto type = std::find_if(std::begin(element_types), std::end(element_types),
                                 [&](auto& known) { return known.second == tensor.dtype(); });
  if (!tensor.defined() || type == std::end(element_types))
    fail("npy", "{} cannot be written, NumPy has no such type; cast to f32", tensor.dtype());
  std::string shape;
  for (int64_t extent : tensor.shape()) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", extent);
  if (tensor.rank() == 1) shape += ",";
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type->first, shape);
  text.resize((text.size() + 1 + 10 + 63) / 64 * 64 - 10, ' ');  // data begins at a multiple of 64
  text.back() = '\n';
  const uint16_t length = static_cast<uint16_t>(text.size());
  std::string out(magic);
  out += {'\x01', '\x00', static_cast<char>(length & 0xff), static_cast<char>(length >> 8)};
  return out + text;
}

void save_npy(const Path& path, const Tensor& tensor) {
  const std::string header = npy_header(tensor);
  write_atomic(path, [&](Writer& out) {
    out.write(header);
    out.write(tensor.raw(), tensor.bytes());
  });
}

}  // namespace lightcone
