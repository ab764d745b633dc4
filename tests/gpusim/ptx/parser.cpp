#include "gpusim/ptx/parser.h"

#include <algorithm>
#include <utility>

#include "gpusim/ptx/body.h"
#include "gpusim/ptx/declaration.h"

namespace gpusim::ptx {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : in_(text) {}

  Module parse() {
    version();
    while (!in_.is(Token::Kind::end)) statement();
    return std::move(module_);
  }

 private:
  // .version 9.0  .target sm_90a, debug  .address_size 64
  void version() {
    in_.expect(".version");
    const std::string_view number = in_.expect(Token::Kind::number, "a version").text;
    const size_t dot = number.find('.');
    if (dot == number.npos) in_.refuse("the version {}", number);
    module_.version = 10 * decimal(number.substr(0, dot)) + decimal(number.substr(dot + 1));
    in_.expect(".target");
    const std::string_view target = in_.word("a target");
    if (!target.starts_with("sm_")) in_.refuse("the target {}", target);
    module_.target = decimal(target.substr(3, target.find_first_not_of("0123456789", 3) - 3));
    while (in_.accept(",")) in_.word("a target's option");
    in_.expect(".address_size");
    if (in_.number() != 64) in_.refuse("only 64-bit addresses are known");
  }

  int decimal(std::string_view digits) {
    if (digits.empty() || digits.size() > 4) in_.refuse("the number '{}'", digits);
    int value = 0;
    for (const char c : digits) {
      if (c < '0' || c > '9') in_.refuse("the number '{}'", digits);
      value = 10 * value + (c - '0');
    }
    return value;
  }

  void statement() {
    if (in_.accept(".file")) {
      const uint32_t index = in_.number();
      module_.files[index] = in_.expect(Token::Kind::string, "a file's name").text;
      while (in_.accept(",")) in_.expect(Token::Kind::number, "a number");  // time and size
    } else if (in_.accept(".section")) {
      in_.take();
      in_.skip("{", "}");
    } else if (in_.accept(".pragma")) {
      in_.expect(Token::Kind::string, "a string");
      in_.expect(";");
    } else if (!in_.accept(";")) {
      declaration();
    }
  }

  void declaration() {
    bool is_extern = false;
    while (in_.is(".visible") || in_.is(".weak") || in_.is(".common") || in_.is(".extern"))
      is_extern |= in_.take().text == ".extern";
    if (in_.is(".func") || in_.is(".entry")) {
      function();
    } else if (space(in_) && !in_.is(".param") && !in_.is(".generic")) {
      for (Variable& v : declare_variables(in_, is_extern)) declare(module_.variables, std::move(v), !is_extern);
      in_.expect(";");
    } else {
      in_.unexpected("a declaration");
    }
  }

  // Adds a variable or function, or puts a definition in the place of what declared it before; its index.
  template <class T>
  uint32_t declare(std::vector<T>& list, T thing, bool is_definition) {
    const auto [it, is_new] = names_.try_emplace(thing.name, uint32_t(list.size()));
    const uint32_t index = it->second;
    if (is_new) {
      list.push_back(std::move(thing));
      return index;
    }
    if (index >= list.size() || list[index].name != thing.name)
      in_.refuse("{} is a variable and a function", thing.name);
    if (is_definition) {
      if (is_defined(list[index])) in_.refuse("{} is defined twice", thing.name);
      list[index] = std::move(thing);
    }
    return index;
  }
  static bool is_defined(const Variable& v) { return !v.is_extern; }
  static bool is_defined(const Function& f) { return f.has_body; }

  void function() {
    Function f;
    f.is_entry = in_.take().text == ".entry";
    skip_attributes(in_);
    if (!f.is_entry && in_.is("(")) parameters(f, f.returns, f.return_registers);
    f.name = in_.word("a function's name");
    if (in_.is("(")) parameters(f, f.parameters, f.parameter_registers);
    while (in_.is(Token::Kind::directive)) property(f);
    if (in_.accept(";")) {
      declare(module_.functions, std::move(f), false);
      return;
    }
    f.has_body = true;
    const uint32_t index = declare(module_.functions, std::move(f), true);
    parse_body(in_, names_, module_.functions[index]);
  }

  void parameters(Function& f, std::vector<Variable>& variables, std::vector<int32_t>& registers) {
    in_.expect("(");
    if (in_.accept(")")) return;
    do {
      Parameter p = declare_parameter(in_);
      registers.push_back(p.is_register ? int32_t(f.registers.size()) : -1);
      if (p.is_register) f.registers.push_back({p.variable.name, uint8_t(p.variable.bytes)});
      variables.push_back(std::move(p.variable));
    } while (in_.accept(","));
    in_.expect(")");
  }

  void property(Function& f) {
    if (in_.accept(".maxntid")) {
      f.max_threads = product();
    } else if (in_.accept(".reqntid")) {
      f.required_threads = product();
    } else if (in_.accept(".minnctapersm")) {
      f.min_blocks = in_.number();
    } else if (in_.accept(".reqnctapercluster")) {
      f.cluster_blocks = product();
    } else if (in_.accept(".noreturn")) {
      f.noreturn = true;
    } else if (in_.accept(".pragma")) {
      in_.expect(Token::Kind::string, "a string");
      in_.expect(";");
    } else if (in_.is(".attribute")) {
      skip_attributes(in_);
    } else if (in_.accept(".maxnreg") || in_.accept(".maxnctapersm") || in_.accept(".maxclusterrank")) {
      in_.number();
    } else if (!in_.accept(".explicitcluster")) {
      in_.unexpected("a function's property or its body");
    }
  }

  uint32_t product() {
    uint64_t threads = in_.number(1 << 20);
    while (in_.accept(",")) threads *= in_.number(1 << 10);
    if (threads > 1 << 20) in_.refuse("{} threads or blocks", threads);
    return uint32_t(threads);
  }

  Lexer in_;
  Module module_;
  NameMap<uint32_t> names_;  // indices into variables or functions
};

}  // namespace

Module parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace gpusim::ptx
