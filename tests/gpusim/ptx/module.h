#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gpusim::ptx {

// A PTX module as its text says it, names resolved to indices where a function's own things are meant (registers,
// labels). Nothing here knows what an instruction does.

enum class Space : uint8_t { generic, global, shared, local, constant, param };

/// A source line, as .loc gives it, and where that code was inlined, if it was.
struct Location {
  uint32_t file = 0;  ///< index into Module::files; 0: unknown
  uint32_t line = 0;
  std::shared_ptr<const Location> inlined_at;
};

struct Operand {
  enum class Kind : uint8_t {
    reg,        ///< %r1, !%p1
    immediate,  ///< 5, -1, 0x1F, 0f3F800000, 0d3FF0000000000000, WARP_SZ
    special,    ///< %tid.x, %laneid, %clock64: `name` is "tid.x", without the percent sign
    symbol,     ///< a variable or function, plus offset: mov.u64 %rd1, table+8
    address,    ///< [base+offset]: base is a register (reg >= 0), a symbol (name) or neither (absolute); the rest of
                ///< [base, {%r1, %r2}] (textures, tensor maps) is in `elements`
    vector,     ///< {%r1, %r2, 0, _}
    pair,       ///< %p1|%p2, %r1|%p1
    label,      ///< a branch target: `target` is the index of its instruction
    ignored,    ///< _
  };
  enum class Literal : uint8_t { integer, f32, f64 };

  Kind kind = Kind::ignored;
  bool negated = false;                ///< reg: !%p1
  Literal literal = Literal::integer;  ///< immediate
  int32_t reg = -1;                    ///< reg, address: index into Function::registers
  int64_t value = 0;                   ///< immediate: the integer, or the bits of 0f… (32) and 0d… (64)
  int64_t offset = 0;                  ///< address, symbol
  uint32_t target = 0;                 ///< label
  std::string name;                    ///< special, symbol, address, label
  std::vector<Operand> elements;       ///< vector, pair, address
};

/// opcode.modifier.modifier operands;  A call has its callee as the only operand (a symbol, or a register: indirect)
/// and the names of .param variables beside it. brx.idx has the index and the targets as labels.
struct Instruction {
  std::string opcode;                  ///< "ld"
  std::vector<std::string> modifiers;  ///< {"global", "nc", "v2", "u64"}
  int32_t guard = -1;                  ///< the predicate register of @%p1, or -1
  bool guard_negated = false;
  std::vector<Operand> operands;
  std::vector<Operand> call_returns, call_arguments;  ///< symbols of .param variables, registers or immediates
  std::string prototype;                              ///< of an indirect call
  Location location;
  uint32_t ptx_line = 0;  ///< in the module's text, from 1

  bool has(std::string_view modifier) const;
  /// "ld.global.nc.v2.u64"
  std::string variant() const;
};

struct Register {
  std::string name;
  uint8_t bytes = 0;  ///< 0: predicate; else 1, 2, 4, 8 or 16
};

/// A variable in global, constant, shared, local or param space.
struct Variable {
  std::string name;
  Space space = Space::global;
  uint64_t bytes = 0;  ///< 0 for an array without extent (dynamic shared memory)
  uint32_t align = 1;
  bool is_extern = false;
  std::vector<uint8_t> initial;  ///< empty: zeros (global, constant) or nothing (others)
  struct Pointer {               ///< the address of a symbol within `initial`
    uint64_t at = 0;
    std::string symbol;
    int64_t offset = 0;
    bool generic = false;  ///< generic(symbol)
    uint8_t bytes = 8;
  };
  std::vector<Pointer> pointers;
};

struct Function {
  std::string name;
  bool is_entry = false;
  bool has_body = false;
  bool noreturn = false;
  std::vector<Variable> parameters;  ///< of an entry or .func; a .func's may be registers: then `parameter_registers`
  std::vector<Variable> returns;
  std::vector<int32_t> parameter_registers, return_registers;  ///< one for each: for .reg .b32 %a; -1: it is a .param
  std::vector<Register> registers;
  std::vector<Variable> variables;  ///< shared, local and param variables declared in the body (unique names)
  std::vector<Instruction> instructions;
  std::map<std::string, uint32_t> labels;  ///< index of the instruction after the label (may be one past the end)
  uint32_t max_threads = 0;                ///< .maxntid (product), 0: not given
  uint32_t required_threads = 0;           ///< .reqntid (product)
  uint32_t min_blocks = 0;                 ///< .minnctapersm
  uint32_t cluster_blocks = 0;             ///< .reqnctapercluster (product), 0: not given
  Location location;
};

struct Module {
  int version = 0;  ///< 90 for .version 9.0
  int target = 0;   ///< 80 for sm_80
  std::map<uint32_t, std::string> files;
  std::vector<Variable> variables;  ///< global, constant and module-scope shared
  std::vector<Function> functions;

  const Function* find(std::string_view name) const;
  const std::string& file(const Location& location) const;  ///< "" if unknown
};

}  // namespace gpusim::ptx
