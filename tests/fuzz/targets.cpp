#include "tests/fuzz/targets.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>

#include "engine/error.h"

namespace lightcone::fuzz {

Path memory_file(Bytes bytes) {
  static const int file = ::memfd_create("input", MFD_CLOEXEC);
  if (file < 0 || ::ftruncate(file, 0) != 0 ||
      ::pwrite(file, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw std::logic_error("no file in memory");
  return fmt::format("/proc/self/fd/{}", file);
}

bool allows_errors(const std::function<void()>& read) {
  try {
    read();
    return true;
  } catch (const Error&) {
    return false;
  }
}

void with_guards(Bytes input, const std::function<void(Context& ctx)>& read) {
  Context ctx(1);
  ctx.allocator().set_guard(true);
  allows_errors([&] { read(ctx); });
  if (ctx.allocator().guard_violations() != 0) throw std::logic_error("a write outside of a tensor");
  if (static_cast<size_t>(ctx.allocator().statistics().peak) > 65536 + 3000 * input.size())
    throw std::logic_error("a small file took a lot of memory");
}

}  // namespace lightcone::fuzz
