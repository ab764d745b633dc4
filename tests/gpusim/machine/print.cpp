// printf and assert of kernels.
#include <bit>
#include <cstdio>
#include <cstring>

#include "gpusim/machine/block.h"
#include "gpusim/machine/memory.h"

namespace gpusim {

namespace {

/// A string in device memory, up to its end or that of its allocation.
std::string text_at(uint64_t address) {
  const void* p = reinterpret_cast<const void*>(address);
  const Memory* m = memory_of(p);
  const auto a = m ? m->find(p) : std::nullopt;
  if (!a || a->freed_by || address >= a->address + a->bytes) return fmt::format("(no text at {:#x})", address);
  const char* begin = m->storage(static_cast<const char*>(p));
  return std::string(begin, strnlen(begin, a->address + a->bytes - address));
}

/// printf with arguments in memory, each aligned to its size: what a kernel hands over.
std::string formatted(const std::string& format, const std::byte* arguments, size_t bytes) {
  std::string out;
  size_t at = 0;
  auto next = [&]<class T>(T) {
    at = (at + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    T value{};
    if (at + sizeof(T) <= bytes) std::memcpy(&value, arguments + at, sizeof(T));
    at += sizeof(T);
    return value;
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const size_t end = format.find_first_of("diouxXeEfFgGaAcsp%", i + 1);
    if (end == std::string::npos) break;
    std::string spec = format.substr(i, end - i + 1);
    for (size_t star; (star = spec.find('*')) != std::string::npos;)
      spec.replace(star, 1, std::to_string(next(int32_t{})));
    char buffer[512];
    const bool wide = spec.find('l') != std::string::npos || spec.find('z') != std::string::npos ||
                      spec.find('j') != std::string::npos;
    int n = 0;
    switch (spec.back()) {
      case '%':
        n = std::snprintf(buffer, sizeof buffer, "%%");
        break;
      case 's':
        n = 0, out += text_at(next(uint64_t{}));
        break;
      case 'p':
        n = std::snprintf(buffer, sizeof buffer, spec.c_str(), next(uint64_t{}));
        break;
      case 'd':
      case 'i':
      case 'o':
      case 'u':
      case 'x':
      case 'X':
      case 'c':
        n = wide ? std::snprintf(buffer, sizeof buffer, spec.c_str(), next(int64_t{}))
                 : std::snprintf(buffer, sizeof buffer, spec.c_str(), next(int32_t{}));
        break;
      default:
        n = std::snprintf(buffer, sizeof buffer, spec.c_str(), next(double{}));
        break;
    }
    out.append(buffer, n > 0 ? std::min<size_t>(n, sizeof buffer - 1) : 0);
    i = end;
  }
  return out;
}

}  // namespace

void Block::print(Warp& w, const Step& s, uint32_t lanes) {
  for (; lanes; lanes &= lanes - 1) {
    const int l = std::countr_zero(lanes);
    uint64_t format = 0, arguments = 0;
    std::memcpy(&format, local_of(w, l, s.targets.at(0)), 8);
    std::memcpy(&arguments, local_of(w, l, s.targets.at(1)), 8);
    // The arguments lie in the thread's own memory; without any the pointer is null.
    const uint64_t at = arguments - local_window;
    const bool some = arguments >= local_window && at < kernel_.local_storage;
    const std::string text =
        formatted(text_at(format), some ? local_of(w, l, at) : nullptr, some ? kernel_.local_storage - at : 0);
    std::fputs(text.c_str(), stdout);
    if (s.target != ~0u) {
      const int32_t n = 0;
      std::memcpy(local_of(w, l, s.target), &n, 4);
      std::memset(w.local_written.data() + l * kernel_.local_storage + s.target, 1, 4);
    }
  }
}

void Block::assertion(Warp& w, const Step& s, uint32_t lanes) {
  const int l = std::countr_zero(lanes);
  uint64_t message = 0, file = 0;
  uint32_t line = 0;
  std::memcpy(&message, local_of(w, l, s.targets.at(0)), 8);
  std::memcpy(&file, local_of(w, l, s.targets.at(1)), 8);
  std::memcpy(&line, local_of(w, l, s.targets.at(2)), 4);
  find(Finding::What::trap, w, s, l,
       fmt::format("assertion `{}` failed at {}:{}", text_at(message), text_at(file), line), true);
}

}  // namespace gpusim
