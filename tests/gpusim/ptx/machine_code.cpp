#include "gpusim/ptx/machine_code.h"

#include <fstream>
#include <map>
#include <regex>

#include "gpusim/machine/machine.h"
#include "gpusim/ptx/fat_layout.h"

// Machine code is an ELF file with a section .text.<kernel> for each kernel, .nv.shared.<kernel> where it has shared
// memory, and .nv.info with attributes of symbols.

namespace gpusim {

namespace ptx {

namespace {

struct Section {
  uint32_t name, type;
  uint64_t flags, address, offset, bytes;
  uint32_t link, info;
  uint64_t alignment, entry_bytes;
};
static_assert(sizeof(Section) == 64);

class Elf {
 public:
  explicit Elf(std::string_view bytes) : bytes_(bytes) {
    if (!bytes.starts_with("\x7f"
                           "ELF\x02\x01"))
      fail("fat binary: machine code that is no ELF file of 64 bits");
    const auto table = read<uint64_t>(bytes, 40);
    const auto size = read<uint16_t>(bytes, 58), count = read<uint16_t>(bytes, 60), names = read<uint16_t>(bytes, 62);
    for (uint64_t i = 0; i < count; ++i) sections_.push_back(read<Section>(bytes, table + i * size));
    if (names >= count) fail("fat binary: an ELF file without the names of its sections");
    names_ = content(sections_[names]);
  }
  const std::vector<Section>& sections() const { return sections_; }
  std::string_view name(const Section& s) const {
    if (s.name > names_.size()) fail("fat binary: an ELF section without a name");
    const std::string_view rest = names_.substr(s.name);
    return rest.substr(0, rest.find('\0'));
  }
  std::string_view content(const Section& s) const {
    if (s.offset > bytes_.size() || s.bytes > bytes_.size() - s.offset) fail("fat binary: an ELF section is cut short");
    return bytes_.substr(s.offset, s.bytes);
  }

 private:
  std::string_view bytes_, names_;
  std::vector<Section> sections_;
};

/// f(attribute, symbol, value) for the attributes of symbols. Each attribute is a form, a number and two bytes: the size
/// of what follows for form 4, the value for the others.
template <class F>
void for_each_attribute(std::string_view info, F&& f) {
  for (uint64_t at = 0; at < info.size(); at += 4) {
    const auto form = read<uint8_t>(info, at), attribute = read<uint8_t>(info, at + 1);
    const auto bytes = read<uint16_t>(info, at + 2);
    if (form != 4) continue;
    if (bytes == 8) f(attribute, read<uint32_t>(info, at + 4), read<uint32_t>(info, at + 8));
    at += bytes;
  }
}

constexpr uint8_t frame_size = 0x11, register_count = 0x2f;

std::vector<Resources> resources_of(std::string_view bytes, int target) {
  const Elf elf(bytes);
  std::vector<Resources> found;
  std::vector<uint32_t> symbols;
  std::map<std::string_view, int> shared;
  std::string_view info;
  for (const Section& s : elf.sections()) {
    constexpr std::string_view text = ".text.", of_block = ".nv.shared.";
    const std::string_view name = elf.name(s);
    if (name.starts_with(text)) {
      found.push_back({.kernel = std::string(name.substr(text.size())), .target = target});
      symbols.push_back(s.info & 0xffffff);  // above them the registers, on some targets
    }
    // From sm_90 on it begins with the KiB that the system takes of every block.
    if (name.starts_with(of_block))
      shared[name.substr(of_block.size())] = static_cast<int>(s.bytes) - (target >= 90 ? 1024 : 0);
    if (name == ".nv.info") info = elf.content(s);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    Resources& r = found[i];
    for_each_attribute(info, [&](uint8_t attribute, uint32_t symbol, uint32_t value) {
      if (symbol != symbols[i]) return;
      if (attribute == register_count) r.registers = static_cast<int>(value);
      if (attribute == frame_size) r.local_bytes = static_cast<int>(value);
    });
    if (const auto s = shared.find(r.kernel); s != shared.end()) r.shared_bytes = s->second;
    r.kernel = demangled(r.kernel);
  }
  return found;
}

}  // namespace

std::vector<Resources> machine_code(std::string_view entries) {
  std::vector<Resources> found;
  for_each_entry(entries, [&](const FatEntry& entry, std::string_view content) {
    if (entry.kind != kind_machine_code) return;
    if (entry.compressed()) fail("fat binary: its machine code is compressed; build it with nvcc -no-compress");
    const auto more = resources_of(content, static_cast<int>(entry.target));
    found.insert(found.end(), more.begin(), more.end());
  });
  return found;
}

}  // namespace ptx

std::string short_name(const std::string& kernel) {
  static const std::regex qualifier(R"(\(anonymous namespace\)::|\b\w+::|^void )");
  const std::string name = std::regex_replace(kernel, qualifier, "");
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (depth == 0 && name[i] == '(') return name.substr(0, i);
  }
  return name;
}

std::vector<Resources> resources_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file || bytes.empty()) fail("{}: cannot be read", path);
  // Fat binaries lie anywhere in objects and archives.
  const ptx::FatHeader start{ptx::fat_magic, 1, sizeof start, 0};
  const std::string_view mark(reinterpret_cast<const char*>(&start), 8);
  std::vector<Resources> found;
  const std::string_view all = bytes;
  for (size_t at = all.find(mark); at != all.npos; at = all.find(mark, at + 1)) {
    const auto header = ptx::read<ptx::FatHeader>(all, at);
    const std::string_view rest = all.substr(at + sizeof header);
    if (header.bytes > rest.size()) continue;  // no fat binary, or a cut one
    const auto more = ptx::machine_code(rest.substr(0, header.bytes));
    found.insert(found.end(), more.begin(), more.end());
  }
  return found;
}

}  // namespace gpusim
