#include "gpusim/ptx/body.h"

#include <optional>
#include <utility>

#include "gpusim/ptx/constant.h"
#include "gpusim/ptx/declaration.h"

namespace gpusim::ptx {
namespace {

using Kind = Operand::Kind;

class Body {
 public:
  Body(Lexer& in, const NameMap<uint32_t>& module_names, Function& f) : in_(in), module_names_(module_names), f_(f) {}

  void parse() {
    open_scope();
    for (size_t i = 0; i < f_.registers.size(); ++i) scopes_.back().registers.emplace(f_.registers[i].name, int32_t(i));
    for (const std::vector<Variable>* list : {&f_.returns, &f_.parameters})
      for (const Variable& v : *list)
        if (!scopes_.back().registers.contains(v.name)) scopes_.back().variables.emplace(v.name, unique(v.name));
    in_.expect("{");
    while (!scopes_.empty()) statement();
  }

 private:
  // A branch to a label that stands further down, perhaps.
  struct Jump {
    uint32_t instruction, operand;
  };
  struct Scope {
    NameMap<int32_t> registers;
    NameMap<std::string> variables, labels;  // the unique names of both
    NameMap<std::vector<std::string>> target_lists;
    std::vector<Jump> jumps;
  };

  void open_scope() {
    if (scopes_.size() > 256) in_.refuse("scopes nested too deeply");
    scopes_.emplace_back();
  }

  void close_scope() {
    Scope& scope = scopes_.back();
    Scope* outer = scopes_.size() > 1 ? &scopes_[scopes_.size() - 2] : nullptr;
    for (const Jump& jump : scope.jumps) {
      Operand& o = f_.instructions[jump.instruction].operands[jump.operand];
      if (const auto it = scope.labels.find(o.name); it != scope.labels.end()) {
        o.name = it->second;
        o.target = f_.labels.at(o.name);
      } else if (outer != nullptr) {
        outer->jumps.push_back(jump);
      } else {
        fail("PTX line {}: no label {} in {}", f_.instructions[jump.instruction].ptx_line, o.name, f_.name);
      }
    }
    scopes_.pop_back();
  }

  // A '#' is part of no PTX name, so that what it makes is new; names of the module are left to the module.
  std::string unique(std::string_view name) {
    const auto it = uses_.try_emplace(std::string(name), module_names_.contains(name) ? 1 : 0).first;
    if (++it->second == 1) return it->first;
    return fmt::format("{}#{}", name, it->second);
  }

  // The innermost thing of that name in one of Scope's maps, or null.
  template <class T>
  const T* innermost(NameMap<T> Scope::*map, std::string_view name) const {
    for (size_t i = scopes_.size(); i-- > 0;)
      if (const auto it = (scopes_[i].*map).find(name); it != (scopes_[i].*map).end()) return &it->second;
    return nullptr;
  }

  void statement() {
    if (in_.is(Token::Kind::word)) {
      const Token word = in_.take();
      if (in_.accept(":"))
        label(word);
      else
        instruction(word, -1, false);
    } else if (in_.accept("@")) {
      const bool negated = in_.accept("!");
      const std::string_view name = in_.word("a predicate");
      const int32_t* guard = innermost(&Scope::registers, name);
      if (guard == nullptr || f_.registers[size_t(*guard)].bytes != 0) in_.refuse("{} is not a predicate", name);
      instruction(in_.expect(Token::Kind::word, "an instruction"), *guard, negated);
    } else if (in_.accept("{")) {
      open_scope();
    } else if (in_.accept("}")) {
      close_scope();
    } else if (in_.is(".loc")) {
      location();
    } else if (in_.is(".reg")) {
      for (Register& r : declare_registers(in_)) {
        if (!scopes_.back().registers.emplace(r.name, int32_t(f_.registers.size())).second)
          in_.refuse("register {} is declared twice", r.name);
        f_.registers.push_back(std::move(r));
      }
      in_.expect(";");
    } else if (in_.is(".param") || in_.is(".local") || in_.is(".shared")) {
      for (Variable& v : declare_variables(in_, false)) {
        const std::string name = unique(v.name);
        if (!scopes_.back().variables.emplace(v.name, name).second) in_.refuse("{} is declared twice", v.name);
        v.name = name;
        f_.variables.push_back(std::move(v));
      }
      in_.expect(";");
    } else if (in_.accept(".pragma")) {
      do in_.expect(Token::Kind::string, "a string");
      while (in_.accept(","));
      in_.expect(";");
    } else if (!in_.accept(";")) {
      in_.unexpected("a statement");
    }
  }

  // .loc file line column, function_name label+offset, inlined_at file line column
  void location() {
    in_.expect(".loc");
    Location here;
    here.file = in_.number(max_file);
    here.line = in_.number(max_line);
    const uint32_t column = in_.number();
    while (in_.accept(",")) {
      if (in_.accept("function_name")) {
        in_.word("a label");
        offset(in_);
      } else {
        in_.expect("inlined_at");
        const uint32_t file = in_.number(max_file), line = in_.number(max_line), at = in_.number();
        // The place was itself inlined where the latest .loc of the same place says.
        const auto it = locations_.find(place(file, line, at));
        here.inlined_at =
            it != locations_.end() ? it->second : std::make_shared<const Location>(Location{file, line, nullptr});
      }
    }
    locations_.insert_or_assign(place(here.file, here.line, column), std::make_shared<const Location>(here));
    if (f_.location.line == 0) f_.location = here;
    location_ = std::move(here);
  }
  static constexpr uint32_t max_file = (1 << 16) - 1, max_line = (1 << 24) - 1;
  static uint64_t place(uint32_t file, uint32_t line, uint32_t column) {
    return uint64_t{file} << 48 | uint64_t{line} << 24 | (column & max_line);
  }

  void label(const Token& name) {
    if (in_.accept(".branchtargets")) {
      std::vector<std::string> targets;
      do targets.emplace_back(in_.word("a label"));
      while (in_.accept(","));
      in_.expect(";");
      if (!scopes_.back().target_lists.emplace(name.text, std::move(targets)).second)
        in_.refuse("{} is declared twice", name.text);
    } else if (in_.is(".callprototype") || in_.is(".calltargets")) {
      // An indirect call goes by the function that it reaches, whatever was announced here.
      while (!in_.accept(";")) {
        if (in_.is(Token::Kind::end)) in_.unexpected(";");
        in_.take();
      }
    } else {
      const std::string unique_name = unique(name.text);
      if (!scopes_.back().labels.emplace(name.text, unique_name).second)
        in_.refuse("label {} is declared twice", name.text);
      f_.labels.emplace(unique_name, uint32_t(f_.instructions.size()));
    }
  }

  void instruction(const Token& opcode, int32_t guard, bool negated) {
    Instruction& i = f_.instructions.emplace_back();
    i.opcode = opcode.text;
    i.guard = guard;
    i.guard_negated = negated;
    i.ptx_line = opcode.line;
    i.location = location_;
    while (in_.is(Token::Kind::directive)) i.modifiers.emplace_back(in_.take().text.substr(1));
    if (opcode.text == "call") {
      call(i);
    } else if (opcode.text == "bra") {
      target(i, in_.word("a label"));
    } else if (opcode.text == "brx") {
      i.operands.push_back(operand());
      in_.expect(",");
      const std::string_view name = in_.word("a list of labels");
      const std::vector<std::string>* list = innermost(&Scope::target_lists, name);
      if (list == nullptr) in_.refuse("no list of labels {}", name);
      for (const std::string& label : *list) target(i, label);
    } else if (!in_.is(";")) {
      do i.operands.push_back(operand());
      while (in_.accept(","));
    }
    in_.expect(";");
  }

  void target(Instruction& i, std::string_view label) {
    Operand& o = i.operands.emplace_back();
    o.kind = Kind::label;
    o.name = label;
    scopes_.back().jumps.push_back({uint32_t(f_.instructions.size() - 1), uint32_t(i.operands.size() - 1)});
  }

  // call (r), f, (a, b), prototype;  all but f may be left out
  void call(Instruction& i) {
    if (in_.is("(")) {
      i.call_returns = arguments();
      in_.expect(",");
    }
    Operand callee = single();
    if (callee.kind != Kind::symbol && callee.kind != Kind::reg)
      in_.refuse("a call of neither a function nor a register");
    i.operands.push_back(std::move(callee));
    if (!in_.accept(",")) return;
    if (in_.is("(")) {
      i.call_arguments = arguments();
      if (!in_.accept(",")) return;
    }
    i.prototype = in_.word("a prototype");
  }

  std::vector<Operand> arguments() {
    std::vector<Operand> list;
    in_.expect("(");
    if (in_.accept(")")) return list;
    do list.push_back(single());
    while (in_.accept(","));
    in_.expect(")");
    return list;
  }

  Operand operand() {
    Operand first = in_.is("{") ? vector() : in_.is("[") ? address() : single();
    if (!in_.accept("|")) return first;
    Operand pair;
    pair.kind = Kind::pair;
    pair.elements.push_back(std::move(first));
    pair.elements.push_back(single());
    return pair;
  }

  Operand vector() {
    Operand o;
    o.kind = Kind::vector;
    in_.expect("{");
    do o.elements.push_back(single());
    while (in_.accept(","));
    in_.expect("}");
    return o;
  }

  Operand address() {
    in_.expect("[");
    Operand o;
    if (at_constant(in_)) {
      o.offset = integer(in_);
    } else {
      o = single();
      if (o.kind != Kind::reg && o.kind != Kind::symbol) in_.refuse("an address of neither a register nor a symbol");
      o.offset += offset(in_);
    }
    o.kind = Kind::address;
    while (in_.accept(",")) o.elements.push_back(in_.is("{") ? vector() : single());
    in_.expect("]");
    return o;
  }

  // Anything without brackets: a register, constant, symbol, special register, or _.
  Operand single() {
    Operand o;
    if (at_constant(in_)) {
      const Constant c = constant(in_);
      o.kind = Kind::immediate;
      o.literal = c.literal;
      o.value = c.value;
      return o;
    }
    o.negated = in_.accept("!");
    const std::string_view name = in_.word("an operand");
    if (const int32_t* reg = innermost(&Scope::registers, name)) {
      o.kind = Kind::reg;
      o.reg = *reg;
    } else if (o.negated) {
      in_.refuse("{} is not a predicate", name);
    } else if (name[0] == '%') {
      o.kind = Kind::special;
      o.name = name.substr(1);
    } else if (name != "_") {
      const std::string* variable = innermost(&Scope::variables, name);
      if (variable == nullptr && !module_names_.contains(name)) in_.refuse("{} is not declared", name);
      o.kind = Kind::symbol;
      o.name = variable != nullptr ? *variable : std::string(name);
      o.offset = in_.is("+") || in_.is("-") ? offset(in_) : 0;
    }
    return o;
  }

  Lexer& in_;
  const NameMap<uint32_t>& module_names_;
  Function& f_;
  std::vector<Scope> scopes_;
  NameMap<uint32_t> uses_;
  Location location_;
  std::unordered_map<uint64_t, std::shared_ptr<const Location>> locations_;
};

}  // namespace

void parse_body(Lexer& in, const NameMap<uint32_t>& module_names, Function& function) {
  Body(in, module_names, function).parse();
}

}  // namespace gpusim::ptx
