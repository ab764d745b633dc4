#include "gpusim/tests/kernel_case.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <set>

#include "gpusim/error.h"
#include "gpusim/machine/machine.h"
#include "gpusim/ptx/parser.h"
#include "gpusim/report.h"
#include "gpusim/tests/instruction_case.h"

namespace gpusim {

std::vector<uint8_t> run_kernel(const KernelCase& kernel, const std::vector<uint8_t>& in, size_t out_bytes,
                                bool finds) {
  const std::string extra =
      kernel.parameter.empty() ? "" : fmt::format(",\n.param .align 16 .b8 extra[{}]", kernel.parameter.size());
  const std::string text = fmt::format(
      ".version 9.0\n.target sm_90\n.address_size 64\n{}\n.visible .entry kernel(\n.param .u64 p_in,\n.param .u64 "
      "p_out{}\n)\n{{\n"
      ".reg .pred %p<32>;\n.reg .b16 %h<32>;\n.reg .b32 %r<32>;\n.reg .b32 %lane;\n.reg .b64 %d<32>;\n.reg .b64 %in;\n"
      ".reg .b64 %out;\n.reg .b128 %q<32>;\nld.param.u64 %in, [p_in];\nld.param.u64 %out, [p_out];\nmov.u32 %lane, "
      "%tid.x;\n{}\nret;\n}}\n",
      kernel.module, extra, kernel.body);
  const auto module = std::make_shared<const ptx::Module>(ptx::parse(text));
  for (const std::string& v : variants(*module)) tested_variants().insert(v);

  static Memory memory("the test's device", uint64_t{1} << 32, Memory::Host::sees_nothing);
  Program program(module, memory, 0);
  const Kernel& decoded = program.kernel("kernel");
  void* const buffers[] = {memory.allocate(in.size(), "in"), memory.allocate(out_bytes, "out")};
  const Operation filling = next_operation(0, {}, "filling");
  std::memcpy(memory.storage(static_cast<uint8_t*>(buffers[0])), in.data(), in.size());
  std::memset(memory.storage(static_cast<uint8_t*>(buffers[1])), 0, out_bytes);
  memory.note_write(buffers[0], in.size(), filling);
  memory.note_write(buffers[1], out_bytes, filling);

  const Operation running = next_operation(0, filling.seen, "kernel");
  Launch launch;
  launch.block = {kernel.threads, 1, 1};
  launch.dynamic_shared = kernel.dynamic_shared;
  launch.operation = &running;
  launch.parameters.resize(info(decoded).parameter_bytes);
  const auto& parameters = info(decoded).parameters;
  std::memcpy(launch.parameters.data() + parameters[0].offset, &buffers[0], 8);
  std::memcpy(launch.parameters.data() + parameters[1].offset, &buffers[1], 8);
  if (!kernel.parameter.empty())
    std::memcpy(launch.parameters.data() + parameters[2].offset, kernel.parameter.data(), kernel.parameter.size());
  run(decoded, launch);
  const std::vector<Finding> findings = take_findings();
  CHECK(findings.empty() == !finds);
  take_launches();

  std::vector<uint8_t> out(out_bytes);
  std::memcpy(out.data(), memory.storage(static_cast<uint8_t*>(buffers[1])), out_bytes);
  const Operation freeing = next_operation(0, running.seen, "freeing");
  for (void* b : buffers) memory.free(b, freeing);
  return out;
}

std::vector<uint8_t> random_bytes(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes(n);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
  return bytes;
}

std::vector<std::string> variants_in_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.empty()) fail("{} cannot be read", path);
  // nvcc's PTX stands there as text that ends with a zero.
  std::set<std::string> all;
  for (size_t at = 0; (at = bytes.find("\n.version ", at)) != std::string::npos;) {
    const size_t end = bytes.find('\0', at);
    const std::string_view text(bytes.data() + at, end - at);
    at = end;
    if (text.find(".address_size 64") == std::string_view::npos || text.find("fmt::") != std::string_view::npos)
      continue;
    for (const std::string& v : variants(ptx::parse(text))) all.insert(v);
  }
  return {all.begin(), all.end()};
}

}  // namespace gpusim
