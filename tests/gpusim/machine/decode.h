#pragma once
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "gpusim/machine/kernel.h"

namespace gpusim {

/// Turns one entry into a Kernel; functions that it calls are decoded in place, each time anew.
class Decoder {
 public:
  Decoder(const Program& program, Kernel& kernel) : program_(program), kernel_(kernel) {}
  void decode_entry(const ptx::Function& entry);

  /// Where a symbol is.
  struct Address {
    ptx::Space space = ptx::Space::global;
    uint64_t at = 0;
  };

 private:
  // A function being decoded.
  struct Frame {
    const ptx::Function* function = nullptr;
    const Frame* caller = nullptr;
    std::vector<Slot> registers;
    std::map<std::string, Address> symbols;
    std::vector<uint32_t> step_of;  // per instruction, and one past the end
    struct Jump {
      uint32_t step = 0, which = 0, instruction = 0;
    };
    std::vector<Jump> jumps;      // whose targets are not known yet
    std::vector<uint32_t> exits;  // steps of `ret` in a function that is inlined
  };

  void decode_body(Frame& frame);
  void decode(Frame& frame, const ptx::Instruction& i);
  void decode_arithmetic(Frame& frame, const ptx::Instruction& i, Step& step);
  void decode_call(Frame& frame, const ptx::Instruction& i);
  void decode_library_call(Frame& frame, const ptx::Instruction& i, const std::string& callee);
  void decode_barrier(Frame& frame, const ptx::Instruction& i, Step& step);
  // decode_memory.cpp
  bool decode_memory(Frame& frame, const ptx::Instruction& i, Step& step);
  void decode_access(Frame& frame, const ptx::Instruction& i, Step& step, bool loads);
  void decode_atomic(Frame& frame, const ptx::Instruction& i, Step& step, bool returns);
  void decode_matrix(Frame& frame, const ptx::Instruction& i, Step& step);
  void decode_wmma(Frame& frame, const ptx::Instruction& i, Step& step);
  void decode_copy_async(Frame& frame, const ptx::Instruction& i, Step& step);
  void decode_window(Frame& frame, const ptx::Instruction& i, Step& step);
  void set_address(Frame& frame, const ptx::Instruction& i, const ptx::Operand& operand, Step& step);

  Step start(Frame& frame, const ptx::Instruction& i);
  void push(Step step) { kernel_.steps.push_back(std::move(step)); }
  /// A register, immediate, symbol or special register of so many bytes (0: a predicate).
  Slot slot_of(Frame& frame, const ptx::Instruction& i, const ptx::Operand& operand, uint8_t bytes);
  Slot register_of(Frame& frame, const ptx::Instruction& i, const ptx::Operand& operand, uint8_t* bytes);
  Slot constant(uint64_t value, uint8_t bytes);
  Slot special(const std::string& name, uint8_t bytes);
  Slot new_slot(uint8_t bytes);
  void set_operands(Step& step, const std::vector<Slot>& slots);
  Address address_of(const Frame& frame, const ptx::Instruction& i, const std::string& symbol) const;
  uint64_t generic(const Address& address) const;
  void place_variables(Frame& frame);
  uint64_t place_local(uint64_t bytes, uint32_t align, bool counts);
  void place_shared(const ptx::Variable& variable);
  void place_all_shared(const ptx::Function& entry);
  [[noreturn]] void refuse(const ptx::Instruction& i, const std::string& why) const;

  // What stands for a register until it has its slot.
  static constexpr Slot first_stand_in = 1u << 31;

  const Program& program_;
  Kernel& kernel_;
  std::map<Slot, uint8_t> registers_;
  std::map<std::pair<uint64_t, uint8_t>, Slot> constants_;
  std::map<std::string, Slot> specials_;
  std::map<std::tuple<uint32_t, uint32_t, std::string>, uint32_t> sites_;
  uint64_t local_next_ = 0;
  std::map<std::string, uint32_t> shared_;
};

/// The line that a programmer wrote: for what was inlined from the toolkit's headers (atomicAdd, __shfl_sync, CUB) the
/// line that it was inlined at.
const ptx::Location& in_program(const ptx::Module& module, const ptx::Location& location);

/// Operands with vectors and pairs taken apart.
std::vector<const ptx::Operand*> flatten(const std::vector<ptx::Operand>& operands);

/// "u16", "f32", "b64" …; bytes 0 if it is no such type.
struct TypeName {
  uint8_t bytes = 0;
  bool is_signed = false, is_float = false;
};
TypeName type_named(std::string_view name);

}  // namespace gpusim
