#include "gpusim/tests/instruction_case.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "gpusim/error.h"
#include "gpusim/ptx/parser.h"

namespace gpusim {
namespace {

ptx::Function function_with(std::string_view text) {
  const std::string module = fmt::format(
      ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry kernel()\n{{\n.reg .pred %p<16>;\n"
      ".reg .b8 %b8_<16>;\n.reg .b16 %h<16>;\n.reg .b32 %r<16>;\n.reg .b64 %d<16>;\n.reg .b128 %q<16>;\n{}\nret;\n}}\n",
      text);
  ptx::Function function = ptx::parse(module).functions.at(0);
  if (function.instructions.size() != 2) fail("'{}' is not one instruction", text);
  return function;
}

Bits immediate(const ptx::Operand& operand, uint8_t bytes) {
  using Literal = ptx::Operand::Literal;
  if (operand.literal == Literal::f32 && bytes == 8) return to_bits(double(from_bits<float>(Bits(operand.value))));
  if (operand.literal == Literal::f64 && bytes == 4) return to_bits(float(from_bits<double>(Bits(operand.value))));
  return Bits(int128_t(operand.value));
}

/// Reproducible values, as odd as possible.
class Values {
 public:
  Bits random(Reference::Type type) {
    if (type.bytes == 0) return random_() & 1;
    const Bits bits = Bits(random_()) << 64 | random_();
    // Half of the integers are small or a power of two off, so that shifts, lengths and quotients vary.
    if (!type.is_float && (random_() & 1)) return cut(bits >> (random_() % (8 * type.bytes)) % 128, type.bytes);
    return cut(bits, type.bytes);
  }
  uint64_t operator()() { return random_(); }

  static Bits cut(Bits bits, uint8_t bytes) { return bytes >= 16 ? bits : bits & ((Bits{1} << 8 * bytes) - 1); }

 private:
  std::mt19937_64 random_{20};
};

template <class T>
std::vector<Bits> float_edges() {
  using Limits = std::numeric_limits<T>;
  std::vector<Bits> edges;
  for (const T x :
       {T(0), T(0.5), T(1), T(1.5), T(2), T(3), T(1) / 3, T(1e10), Limits::denorm_min(), Limits::min() / 2,
        Limits::min() - Limits::denorm_min(), Limits::min(), Limits::epsilon(), Limits::max(), Limits::infinity()}) {
    edges.push_back(to_bits(x));
    edges.push_back(to_bits(-x));
  }
  edges.push_back(to_bits(Limits::infinity()) + 1);  // signalling
  edges.push_back(to_bits(Limits::quiet_NaN()));
  edges.push_back(to_bits(-Limits::quiet_NaN()) + 5);
  return edges;
}

std::vector<Bits> edges_of(Reference::Type type) {
  if (type.bytes == 0) return {0, 1};
  if (type.is_float) return type.bytes == 4 ? float_edges<float>() : float_edges<double>();
  const Bits top = Bits{1} << (8 * type.bytes - 1);
  std::vector<Bits> edges{0, 1, 2, 3, 7, 8, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256};
  for (const Bits bits :
       {Bits(0) - 1, Bits(0) - 2, Bits(0) - 128, top - 1, top, top + 1, Bits(0x12345678), Bits(0x80000000)})
    edges.push_back(bits);
  for (Bits& edge : edges) edge = Values::cut(edge, type.bytes);
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  return edges;
}

void flatten(const ptx::Operand& operand, std::vector<const ptx::Operand*>& flat) {
  if (operand.elements.empty()) flat.push_back(&operand);
  for (const ptx::Operand& element : operand.elements) flatten(element, flat);
}

std::string hex(Bits bits) {
  const uint64_t high = uint64_t(bits >> 64);
  return high ? fmt::format("0x{:x}{:016x}", high, uint64_t(bits)) : fmt::format("0x{:x}", uint64_t(bits));
}

/// One check_instruction under way.
class Check {
 public:
  Check(std::string_view text, const Reference& reference, const CheckOptions& options)
      : text_(text), reference_(reference), options_(options), case_(text) {
    for (size_t i = 0; i < case_.operands(); ++i)
      if (i < reference.results.size())
        expect_width(i, reference.results[i]);
      else if (case_.is_register(i))
        sources_.push_back(i);
    if (sources_.size() != reference.arguments.size())
      fail("'{}' has {} source registers, its reference {}", text, sources_.size(), reference.arguments.size());
    for (size_t i = 0; i < sources_.size(); ++i) {
      expect_width(sources_[i], reference.arguments[i]);
      const bool given = i < options.values.size() && !options.values[i].empty();
      edges_.push_back(given ? options.values[i] : edges_of(reference.arguments[i]));
    }
  }

  /// False if a lane or register was wrong; said already.
  bool run() {
    constexpr size_t most_crossed = 4096;
    size_t crossed = 1;
    for (const auto& edges : edges_) crossed = std::min(crossed * edges.size(), most_crossed + 1);
    const bool all = crossed <= most_crossed;
    if (!all) crossed = most_crossed;
    for (size_t from = 0; from < crossed; from += warp_size)
      if (!warp([&](size_t i, int l) { return all ? nth_crossed(i, (from + l) % crossed) : any_edge(i); }))
        return false;
    for (int i = 0; i < 32; ++i)
      if (!warp([&](size_t source, int) { return any(source); })) return false;
    return true;
  }

  /// The same with each destination in the register of each source that could be it.
  bool run_shared() {
    for (size_t i = 0; i < reference_.results.size(); ++i)
      for (const size_t source : sources_) {
        if (case_.is_ignored(i) || case_.bytes(i) != case_.bytes(source)) continue;
        const InstructionCase apart = case_;
        case_.share(i, source);
        for (int k = 0; k < 8; ++k)
          if (!warp([&](size_t s, int) { return any(s); })) return false;
        case_ = apart;
      }
    return true;
  }

 private:
  void expect_width(size_t operand, Reference::Type type) const {
    if (!case_.is_ignored(operand) && case_.bytes(operand) != type.bytes)
      fail("operand {} of '{}' has {} bytes, in its reference {}", operand, text_, case_.bytes(operand), type.bytes);
  }

  Bits any_edge(size_t source) { return edges_[source][values_() % edges_[source].size()]; }
  Bits any(size_t source) { return values_() & 3 ? values_.random(reference_.arguments[source]) : any_edge(source); }
  Bits nth_crossed(size_t source, size_t n) const {
    for (size_t i = 0; i < source; ++i) n /= edges_[i].size();
    return edges_[source][n % edges_[source].size()];
  }

  template <class F>
  bool warp(F&& value) {
    for (int l = 0; l < warp_size; ++l) case_.set_carry(l, values_() & 1);
    for (size_t i = 0; i < reference_.results.size(); ++i)
      if (!case_.is_ignored(i))
        for (int l = 0; l < warp_size; ++l) case_.set(i, l, values_.random(reference_.results[i]));
    for (size_t i = 0; i < sources_.size(); ++i)
      for (int l = 0; l < warp_size; ++l) case_.set(sources_[i], l, value(i, l));
    const uint32_t mask = values_() % 3 != 0 ? all_lanes : std::max(1u, uint32_t(values_() & values_()));
    return compare(mask);
  }

  bool compare(uint32_t mask) {
    const size_t count = reference_.results.size();
    std::vector<Bits> arguments(sources_.size()), results(warp_size * count);
    std::vector<Carry> carries(warp_size);
    for (int l = 0; l < warp_size; ++l) {
      for (size_t i = 0; i < sources_.size(); ++i) arguments[i] = case_.get(sources_[i], l);
      carries[l].flag = case_.carry(l);
      if (mask >> l & 1) reference_.run(arguments.data(), &results[l * count], carries[l]);
    }
    std::vector<InstructionCase::Line> memory = case_.memory;
    if (const char* fault = case_.run(mask)) return wrong(0, mask, {}, fmt::format("fault: {}", fault));
    memory.swap(case_.memory);  // case_ is as before the run again, and gets what it should have got
    for (int l = 0; l < warp_size; ++l) {
      if (!(mask >> l & 1)) continue;
      for (size_t i = 0; i < sources_.size(); ++i) arguments[i] = case_.get(sources_[i], l);
      case_.set_carry(l, carries[l].flag);
      for (size_t i = 0; i < count; ++i) {
        if (case_.is_ignored(i)) continue;
        const Bits want = results[l * count + i], got = case_.get(i, l, memory);
        if (options_.same ? !options_.same(want, got) : want != got)
          return wrong(l, mask, arguments, fmt::format("result {} is {}, expected {}", i, hex(got), hex(want)));
        case_.set(i, l, got);
      }
    }
    if (std::memcmp(memory.data(), case_.memory.data(), memory.size() * sizeof memory[0]) != 0)
      return wrong(0, mask, {}, "another lane, register or the carry flag changed");
    return true;
  }

  bool wrong(int lane, uint32_t mask, const std::vector<Bits>& arguments, const std::string& what) const {
    std::string values;
    for (const Bits bits : arguments) values += fmt::format(" {}", hex(bits));
    const std::string message = fmt::format("'{}' lane {} of {:08x}:{}: {}", text_, lane, mask, values, what);
    FAIL_CHECK(message);
    return false;
  }

  std::string_view text_;
  const Reference& reference_;
  const CheckOptions& options_;
  InstructionCase case_;
  std::vector<size_t> sources_;
  std::vector<std::vector<Bits>> edges_;
  Values values_;
};

}  // namespace

std::set<std::string>& tested_variants() {
  static std::set<std::string> variants;
  return variants;
}

InstructionCase::InstructionCase(std::string_view text) {
  const ptx::Function function = function_with(text);
  instruction_ = function.instructions[0];
  std::vector<const ptx::Operand*> flat;
  for (const ptx::Operand& operand : instruction_.operands) flatten(operand, flat);
  for (const ptx::Operand* operand : flat) {
    const bool is_register = operand->kind == ptx::Operand::Kind::reg;
    shapes_.push_back({is_register, is_register ? function.registers.at(operand->reg).bytes : uint8_t(0)});
  }
  const Choice choice = choose(instruction_, shapes_);
  if (!choice.run) fail("'{}' is not known", text);
  Slot end = sizeof(Line);  // the carry flag has the first line
  std::vector<std::pair<int32_t, Slot>> registers;
  for (size_t i = 0; i < flat.size(); ++i) {
    bytes_.push_back(choice.bytes[i]);
    slots_.push_back(no_slot);
    if (flat[i]->kind == ptx::Operand::Kind::ignored) continue;
    if (shapes_[i].is_register && shapes_[i].bytes != bytes_[i])
      fail("operand {} of '{}' has {} bytes, not {}", i, text, shapes_[i].bytes, bytes_[i]);
    for (const auto& [reg, slot] : registers)
      if (shapes_[i].is_register && reg == flat[i]->reg) slots_[i] = slot;
    if (slots_[i] != no_slot) continue;
    slots_[i] = end;
    if (shapes_[i].is_register) registers.emplace_back(flat[i]->reg, end);
    end += std::max<Slot>(sizeof(Line), warp_size * bytes_[i]);
  }
  memory.resize(end / sizeof(Line));
  for (size_t i = 0; i < flat.size(); ++i) {
    if (flat[i]->kind == ptx::Operand::Kind::immediate)
      for (int l = 0; l < warp_size; ++l) set(i, l, immediate(*flat[i], bytes_[i]));
    op_.negated |= uint32_t(flat[i]->negated) << i;
  }
  op_.run = choice.run;
  op_.immediate = choice.immediate;
}

void InstructionCase::store(Slot slot, uint8_t bytes, int lane, Bits value) {
  if (slot == no_slot) fail("an ignored operand has no value");
  std::byte* at = std::as_writable_bytes(std::span(memory)).data() + slot;
  if (bytes != 0) {
    std::memcpy(at + lane * bytes, &value, bytes);
    return;
  }
  uint32_t lanes;
  std::memcpy(&lanes, at, sizeof lanes);
  lanes = (lanes & ~(1u << lane)) | (value != 0 ? 1u : 0u) << lane;
  std::memcpy(at, &lanes, sizeof lanes);
}

Bits InstructionCase::load(const std::vector<Line>& from, Slot slot, uint8_t bytes, int lane) {
  if (slot == no_slot) fail("an ignored operand has no value");
  const std::byte* at = std::as_bytes(std::span(from)).data() + slot;
  Bits value = 0;
  if (bytes != 0) {
    std::memcpy(&value, at + lane * bytes, bytes);
    return value;
  }
  uint32_t lanes;
  std::memcpy(&lanes, at, sizeof lanes);
  return lanes >> lane & 1;
}

const char* InstructionCase::run(uint32_t mask, uint32_t exited) {
  tested_variants().insert(instruction_.variant());
  Lanes lanes;
  lanes.registers = std::as_writable_bytes(std::span(memory)).data();
  lanes.mask = mask;
  lanes.exited = exited;
  op_.operands = slots_.data();
  op_.x.fill(no_slot);
  std::copy_n(slots_.begin(), std::min(slots_.size(), op_.x.size()), op_.x.begin());
  op_.run(lanes, op_);
  return lanes.fault;
}

void check_instruction(std::string_view text, const Reference& reference, const CheckOptions& options) {
  Check check(text, reference, options);
  CHECK((check.run() && check.run_shared()));
}

void check_unknown(std::string_view text) {
  try {
    InstructionCase known(text);
    FAIL_CHECK(fmt::format("'{}' is known", text));
  } catch (const Error& error) {
    CHECK_MESSAGE(std::string_view(error.what()).ends_with("is not known"), error.what());
  }
}

}  // namespace gpusim
