#include "gpusim/ptx/declaration.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "gpusim/ptx/constant.h"

namespace gpusim::ptx {
namespace {

constexpr uint64_t most_bytes = uint64_t{1} << 40, most_initialised = uint64_t{1} << 31;
constexpr uint32_t most_registers = 1 << 20;

struct Type {
  std::string_view name;
  uint8_t bytes;
  bool is_float = false;
};
constexpr std::array<Type, 22> types = {{
    {".pred", 0},  {".b8", 1},        {".u8", 1},         {".s8", 1},        {".b16", 2}, {".u16", 2},
    {".s16", 2},   {".f16", 2, true}, {".bf16", 2, true}, {".b32", 4},       {".u32", 4}, {".s32", 4},
    {".f16x2", 4}, {".bf16x2", 4},    {".f32", 4, true},  {".b64", 8},       {".u64", 8}, {".s64", 8},
    {".b128", 16}, {".u128", 16},     {".s128", 16},      {".f64", 8, true},
}};

// What stands between a space and the names.
struct Head {
  Type type;
  uint32_t lanes = 1;  // of a vector type
  uint32_t align = 0;  // 0: as the type
};

Head head(Lexer& in) {
  Head h;
  while (true) {
    skip_attributes(in);
    if (in.accept(".align")) {
      h.align = in.number();
      if (!std::has_single_bit(h.align)) in.refuse("an alignment of {}", h.align);
    } else if (in.is(".v2") || in.is(".v4") || in.is(".v8")) {
      h.lanes = uint32_t(in.take().text[2] - '0');
    } else {
      break;
    }
  }
  for (const Type& type : types)
    if (in.is(type.name)) {
      h.type = type;
      in.take();
      if (in.accept(".ptr")) {  // what a pointer points to says nothing of the parameter itself
        if (space(in)) in.take();
        if (in.accept(".align")) in.number();
      }
      return h;
    }
  in.unexpected("a type");
}

// The value of a variable: `= 7`, `= {1, 2}`, `= {{1, 2}, {3}}`, with the addresses of symbols.
class Initialiser {
 public:
  // `strides`: the bytes from one element to the next, by nesting.
  Initialiser(Lexer& in, const Type& type, std::vector<uint64_t> strides, uint64_t limit, Variable& to)
      : in_(in), type_(type), strides_(std::move(strides)), limit_(limit), to_(to) {}

  void read() {
    if (in_.is("{"))
      list(0, 0);
    else
      element(0);
  }

 private:
  void list(size_t level, uint64_t at) {
    if (level == strides_.size()) in_.refuse("braces nested more deeply than the variable");
    in_.expect("{");
    if (in_.accept("}")) return;
    do {
      if (in_.is("{")) {
        list(level + 1, at);
        at += strides_[level];
      } else {
        element(at);
        at += type_.bytes;
      }
    } while (in_.accept(","));
    in_.expect("}");
  }

  uint8_t* place(uint64_t at) {
    if (at + type_.bytes > limit_) in_.refuse("more initial values than {} holds", to_.name);
    if (to_.initial.size() < at + type_.bytes) to_.initial.resize(at + type_.bytes);
    return to_.initial.data() + at;
  }

  void element(uint64_t at) {
    uint8_t* bytes = place(at);
    if (in_.is(Token::Kind::word) && !in_.is("WARP_SZ")) {
      if (type_.bytes < 4) in_.refuse("an address in {} bytes", type_.bytes);
      Variable::Pointer p = address();
      p.at = at;
      p.bytes = type_.bytes;
      to_.pointers.push_back(std::move(p));
      return;
    }
    const Constant c = constant(in_);
    if (in_.is("(")) return masked(at, c);
    using Literal = Operand::Literal;
    const auto store = [&](auto value) { std::memcpy(bytes, &value, type_.bytes); };
    if (c.literal == Literal::integer && !type_.is_float) {
      const int64_t halves[2] = {c.value, c.value < 0 ? -1 : 0};
      std::memcpy(bytes, halves, type_.bytes);
    } else {
      const double value = c.literal == Literal::f64   ? std::bit_cast<double>(c.value)
                           : c.literal == Literal::f32 ? double(std::bit_cast<float>(uint32_t(c.value)))
                                                       : double(c.value);
      if (type_.bytes == 8 && (type_.is_float || c.literal == Literal::f64))
        store(type_.is_float ? value : std::bit_cast<double>(c.value));
      else if (type_.bytes == 4 && (type_.is_float || c.literal == Literal::f32))
        store(float(value));
      else
        in_.refuse("a float constant for a variable of type {}", type_.name);
    }
  }

  // table, table+8, generic(table)-4
  Variable::Pointer address() {
    Variable::Pointer p;
    p.symbol = in_.word("a symbol");
    if (p.symbol == "generic" && in_.accept("(")) {
      p.generic = true;
      p.symbol = in_.word("a symbol");
      p.offset = offset(in_);
      in_.expect(")");
    }
    p.offset += offset(in_);
    return p;
  }

  // 0xFF00(table): byte 1 of an address, next to the byte 0 before it. Packed structures hold addresses in this way.
  void masked(uint64_t at, const Constant& mask) {
    in_.expect("(");
    Variable::Pointer p = address();
    in_.expect(")");
    const uint64_t bits = uint64_t(mask.value);
    const uint32_t byte = bits == 0 ? 0 : uint32_t(std::countr_zero(bits)) / 8;
    if (type_.bytes != 1 || bits != uint64_t{0xff} << 8 * byte) in_.refuse("the mask 0x{:x} of an address", bits);
    if (byte == 0) {
      p.at = at;
      p.bytes = 1;
      to_.pointers.push_back(std::move(p));
      return;
    }
    Variable::Pointer* last = to_.pointers.empty() ? nullptr : &to_.pointers.back();
    if (last == nullptr || last->bytes != byte || last->at + byte != at || last->symbol != p.symbol ||
        last->offset != p.offset || last->generic != p.generic)
      in_.refuse("byte {} of an address without those before it", byte);
    ++last->bytes;
  }

  Lexer& in_;
  const Type type_;
  const std::vector<uint64_t> strides_;
  const uint64_t limit_;
  Variable& to_;
};

Variable declare(Lexer& in, const Head& h, Space space, bool is_extern) {
  Variable v;
  v.name = in.word("a name");
  v.space = space;
  v.is_extern = is_extern;
  const uint64_t element = uint64_t{h.type.bytes} * h.lanes;
  v.align = h.align != 0 ? h.align : std::max(uint32_t(element), 1u);

  std::vector<uint64_t> extents;
  while (in.accept("[")) {
    if (in.is("]") && !extents.empty()) in.unexpected("an extent");
    extents.push_back(in.is("]") ? 0 : uint64_t(integer(in)));
    if (extents.size() > 16 || extents.back() > most_bytes) in.refuse("the extents of {}", v.name);
    in.expect("]");
  }
  std::vector<uint64_t> strides(extents.size());
  uint64_t stride = element;
  for (size_t i = extents.size(); i-- > 0;) {
    strides[i] = stride;
    if (extents[i] != 0 && stride > most_bytes / extents[i]) in.refuse("{} is too large", v.name);
    stride *= extents[i];
  }
  v.bytes = stride;
  if (!in.accept("=")) return v;

  if (h.lanes > 1) strides.push_back(h.type.bytes);
  const bool open = !extents.empty() && extents[0] == 0;
  Initialiser(in, h.type, strides, open ? most_initialised : std::min(v.bytes, most_initialised), v).read();
  if (open) v.bytes = (v.initial.size() + strides[0] - 1) / strides[0] * strides[0];
  v.initial.resize(v.bytes);
  return v;
}

}  // namespace

std::optional<Space> space(const Lexer& in) {
  constexpr std::array<std::pair<std::string_view, Space>, 6> spaces = {{
      {".global", Space::global},
      {".shared", Space::shared},
      {".local", Space::local},
      {".const", Space::constant},
      {".param", Space::param},
      {".generic", Space::generic},
  }};
  for (const auto& [name, value] : spaces)
    if (in.is(name)) return value;
  return std::nullopt;
}

std::vector<Variable> declare_variables(Lexer& in, bool is_extern) {
  const std::optional<Space> where = space(in);
  if (!where || *where == Space::generic) in.unexpected("a state space");
  in.take();
  const Head h = head(in);
  if (h.type.bytes == 0) in.refuse("a variable of type .pred");
  std::vector<Variable> variables;
  do variables.push_back(declare(in, h, *where, is_extern));
  while (in.accept(","));
  return variables;
}

Parameter declare_parameter(Lexer& in) {
  Parameter p;
  p.is_register = in.accept(".reg");
  if (!p.is_register) in.expect(".param");
  const Head h = head(in);
  if (h.type.bytes == 0 && !p.is_register) in.refuse("a variable of type .pred");
  p.variable = declare(in, h, Space::param, false);
  return p;
}

std::vector<Register> declare_registers(Lexer& in) {
  in.expect(".reg");
  const Head h = head(in);
  if (h.lanes > 1) in.refuse("registers of a vector type");
  std::vector<Register> registers;
  do {
    const std::string name{in.word("a register's name")};
    if (in.accept("<")) {
      const uint32_t count = in.number(most_registers);
      in.expect(">");
      for (uint32_t i = 0; i < count; ++i) registers.push_back({name + std::to_string(i), h.type.bytes});
    } else {
      registers.push_back({name, h.type.bytes});
    }
  } while (in.accept(","));
  return registers;
}

}  // namespace gpusim::ptx
