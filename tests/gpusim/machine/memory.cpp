#include "gpusim/machine/memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <shared_mutex>
#include <vector>

#include "gpusim/error.h"
#include "gpusim/machine/findings.h"
#include "gpusim/machine/shadow.h"

namespace gpusim {

namespace {

// Addresses are cheap (only what is touched takes memory), and never used twice.
constexpr uint64_t range_bytes = uint64_t{1} << 40;
constexpr uint64_t range_pages = range_bytes / page_bytes;

// Fixed size, so that a signal handler can walk it.
constexpr int most_memories = 16;
std::atomic<Memory*> memories[most_memories];

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

void* map_or_fail(uint64_t bytes, int protection, int flags, int file) {
  void* p = mmap(nullptr, bytes, protection, flags | MAP_NORESERVE, file, 0);
  if (p == MAP_FAILED) fail("cannot reserve {} bytes of addresses: {}", bytes, std::strerror(errno));
  return p;
}

struct sigaction previous_handler;

// The host touched pinned memory that a pending copy holds, or device memory.
void on_segmentation_fault(int signal, siginfo_t* info, void* context) {
  const uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
  if (Memory* memory = memory_of(info->si_addr)) {
    Finding f;
    f.what = Finding::What::host_access;
    f.address = address;
    if (bool held = false; memory->release_page(address, held)) {
      if (!held) return;
      f.text = fmt::format(
          "the host touches {:#x}, pinned memory that a pending copy still reads or writes: "
          "synchronise first",
          address);
      report(f);
      return;  // and tries again, the page being there now
    }
    std::fprintf(stderr, "gpusim: the host touches %#lx, an address of %s: copy to host memory first\n", address,
                 memory->name().c_str());
  }
  sigaction(SIGSEGV, &previous_handler, nullptr);
  (void)signal, (void)context;
}

// Again whenever pages are taken away: a test framework may have put its own there.
void install_handler() {
  struct sigaction ours {
  }, before{};
  ours.sa_sigaction = on_segmentation_fault;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &ours, &before);
  if (before.sa_sigaction != on_segmentation_fault) previous_handler = before;
}

}  // namespace

Memory::Memory(std::string name, uint64_t capacity, Host host) : name_(std::move(name)), capacity_(capacity) {
  install_handler();
  if (host == Host::sees_bytes) seen_by_ = ~uint64_t{0};
  pages_ = static_cast<Page*>(
      map_or_fail(range_pages * sizeof(Page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
  // Two views of one file: the device's, and the host's, which sees nothing or can be taken away.
  file_ = memfd_create("gpusim", 0);
  if (file_ < 0 || ftruncate(file_, range_bytes) != 0)
    fail("cannot make memory for {}: {}", name_, std::strerror(errno));
  const uint64_t storage =
      reinterpret_cast<uint64_t>(map_or_fail(range_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_));
  base_ = host == Host::sees_bytes
              ? reinterpret_cast<uint64_t>(map_or_fail(range_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_))
              : reinterpret_cast<uint64_t>(map_or_fail(range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
  next_ = base_ + page_bytes;
  delta_ = storage - base_;
  for (auto& slot : memories) {
    Memory* none = nullptr;
    if (slot.compare_exchange_strong(none, this)) return;
  }
  fail("more than {} memories", most_memories);
}

Memory::~Memory() {
  for (auto& slot : memories)
    if (slot == this) slot = nullptr;
  for (const auto& [address, allocation] : allocations_)
    for (uint64_t p = address; p < address + std::max<uint64_t>(1, allocation.bytes); p += page_bytes)
      page(p).drop_cells();
  munmap(pages_, range_pages * sizeof(Page));
  munmap(reinterpret_cast<void*>(base_ + delta_), range_bytes);
  munmap(reinterpret_cast<void*>(base_), range_bytes);
  close(file_);
}

void* Memory::allocate(uint64_t bytes, std::string name) {
  std::lock_guard lock(mutex_);
  const uint64_t length = round_up(std::max<uint64_t>(bytes, 1), page_bytes);
  if (in_use_ + bytes > capacity_ || next_ + length + page_bytes > base_ + range_bytes) return nullptr;
  const uint64_t address = next_;
  next_ += length + page_bytes;
  in_use_ += bytes;
  for (uint64_t at = 0; at < length; at += page_bytes) {
    Page& p = page(address + at);
    p.bytes = static_cast<uint16_t>(std::min(page_bytes, bytes > at ? bytes - at : 0));
    p.state = Page::State::live;
  }
  // What nothing wrote reads as NaN in every floating-point type: results show it even where checks are off.
  std::memset(storage(reinterpret_cast<char*>(address)), 0xff, length);
  allocations_[address] = {address, bytes, 0, std::move(name)};
  return reinterpret_cast<void*>(address);
}

bool Memory::free(void* pointer, const Operation& now) {
  std::lock_guard lock(mutex_);
  const auto it = allocations_.find(reinterpret_cast<uint64_t>(pointer));
  if (it == allocations_.end() || it->second.freed_by) return false;
  Allocation& a = it->second;
  a.freed_by = now.id;
  in_use_ -= a.bytes;
  const uint64_t length = round_up(std::max<uint64_t>(a.bytes, 1), page_bytes);
  for (uint64_t at = 0; at < length; at += page_bytes) {
    Page& p = page(a.address + at);
    p.lock();
    p.state = Page::State::freed;
    p.drop_cells();
    p.unlock();
  }
  fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, a.address - base_, length);
  return true;
}

bool Memory::contains(const void* pointer) const {
  const uint64_t address = reinterpret_cast<uint64_t>(pointer);
  return address >= base_ && address < base_ + range_bytes;
}

std::optional<Memory::Allocation> Memory::find(const void* pointer) const {
  const uint64_t address = reinterpret_cast<uint64_t>(pointer);
  std::lock_guard lock(mutex_);
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin()) return std::nullopt;
  return std::prev(it)->second;
}

std::vector<Memory::Allocation> Memory::live() const {
  std::lock_guard lock(mutex_);
  std::vector<Allocation> all;
  for (const auto& [address, allocation] : allocations_)
    if (!allocation.freed_by) all.push_back(allocation);
  return all;
}

uint64_t Memory::in_use() const {
  std::lock_guard lock(mutex_);
  return in_use_;
}

void Memory::show_to(int device, bool on) {
  const uint64_t bit = uint64_t{1} << device;
  if (on)
    seen_by_ |= bit;
  else
    seen_by_ &= ~bit;
}

void Memory::protect(const void* address, uint64_t bytes, bool on) {
  if (bytes == 0) return;
  std::lock_guard lock(mutex_);
  if (on) install_handler();
  const uint64_t first = reinterpret_cast<uint64_t>(address) / page_bytes * page_bytes;
  const uint64_t last = (reinterpret_cast<uint64_t>(address) + bytes - 1) / page_bytes * page_bytes;
  const std::pair range{reinterpret_cast<uint64_t>(address), reinterpret_cast<uint64_t>(address) + bytes - 1};
  if (on)
    held_.push_back(range);
  else if (const auto found = std::find(held_.begin(), held_.end(), range); found != held_.end())
    held_.erase(found);
  for (uint64_t p = first; p <= last; p += page_bytes) {
    int& count = protected_[p];
    count += on ? 1 : -1;
    if (on && count == 1) mprotect(reinterpret_cast<void*>(p), page_bytes, PROT_NONE);
    if (!on && count == 0) mprotect(reinterpret_cast<void*>(p), page_bytes, PROT_READ | PROT_WRITE);
    if (count == 0) protected_.erase(p);
  }
}

bool Memory::release_page(uint64_t address, bool& held) {
  // No lock: this is a signal handler, and the thread that faulted holds none of ours in ordinary code.
  const uint64_t p = address / page_bytes * page_bytes;
  if (!protected_.contains(p)) return false;
  for (const auto& [begin, end] : held_) held |= address >= begin && address <= end;
  mprotect(reinterpret_cast<void*>(p), page_bytes, PROT_READ | PROT_WRITE);
  return true;
}

std::string Memory::describe(uint64_t address) const {
  std::lock_guard lock(mutex_);
  auto text = [](const Allocation& a) {
    return fmt::format("{} bytes of {} at {:#x}{}", a.bytes, a.name, a.address,
                       a.freed_by ? fmt::format(", freed by {}", name_of_operation(a.freed_by)) : "");
  };
  const auto next = allocations_.upper_bound(address);
  if (next != allocations_.begin()) {
    const Allocation& a = std::prev(next)->second;
    const uint64_t from_start = address - a.address;
    if (from_start < a.bytes) return fmt::format("{:#x}, {} bytes into {}", address, from_start, text(a));
    const uint64_t behind = from_start - a.bytes;
    if (next == allocations_.end() || behind < next->first - address)
      return behind ? fmt::format("{:#x}, {} bytes behind the end of {}", address, behind, text(a))
                    : fmt::format("{:#x}, just at the end of {}", address, text(a));
  }
  if (next == allocations_.end()) return fmt::format("{:#x}, which no allocation of {} is near", address, name_);
  return fmt::format("{:#x}, {} bytes before the start of {}", address, next->first - address, text(next->second));
}

bool Memory::check_range(uint64_t address, uint64_t bytes, const Operation& now, const char* verb) {
  if (bytes == 0) return true;
  const auto a = find(reinterpret_cast<const void*>(address));
  const bool inside = a && address + bytes <= a->address + a->bytes && address + bytes > address;
  if (inside && !a->freed_by) return true;
  Finding f;
  f.what = inside ? Finding::What::use_after_free : Finding::What::out_of_bounds;
  f.address = address;
  // The byte that is wrong: the first one, unless that is inside.
  const bool starts_inside = a && address < a->address + a->bytes;
  f.text = fmt::format("{} {} {} bytes at {}{}", name_of_operation(now.id), verb, bytes, describe(address),
                       starts_inside && !inside ? ", which ends before that" : "");
  report(f);
  return false;
}

void Memory::report_clash(Clash clash, uint64_t address, const Operation& now, const Other& other, const char* verb) {
  Finding f;
  f.address = address;
  if (clash == Clash::uninitialised) {
    f.what = Finding::What::uninitialised_read;
    f.text = fmt::format("{} {} {}, which nothing wrote", name_of_operation(now.id), verb, describe(address));
  } else {
    f.what = Finding::What::unordered;
    f.text = fmt::format("{} {} {}, which {} {}, and nothing orders the two: an event or a synchronisation is missing",
                         name_of_operation(now.id), verb, describe(address), name_of_operation(other.operation),
                         other.writes ? "wrote" : "read");
  }
  report(f);
}

namespace {
// Structs have padding: an unwritten place within 8 bytes that were written in part, and again a struct further on and
// back. One number that is missing in an array is none, unless the range is so short that both look alike.
bool is_padding(const Page& page, uint64_t start, uint64_t address, uint64_t bytes, uint64_t at) {
  auto is_written = [&](uint64_t a) { return page.cells[(a - start) >> page.shift].writer.operation != 0; };
  bool some = false;
  for (uint64_t a = at / 8 * 8; a < at / 8 * 8 + 8; a += 1u << page.shift) some |= is_written(a);
  if (!some) return false;
  const uint64_t begin = std::max(start, address), end = std::min(start + page.bytes, address + bytes);
  for (uint64_t size : {16, 24, 32, 40, 48, 56, 64})
    if (bytes % size == 0 && (at < begin + size || !is_written(at - size)) &&
        (at + size >= end || !is_written(at + size)))
      return true;
  return false;
}
}  // namespace

// Calls whole(page, address) for pages that the range covers (to the end of the allocation), part(cell, address) for
// the cells of others; both return a Clash. Stops reporting after the first.
template <class Whole, class Part>
bool Memory::for_range(uint64_t address, uint64_t bytes, const Operation& now, const char* verb, Whole&& whole,
                       Part&& part) {
  if (!check_range(address, bytes, now, verb)) return false;
  bool reported = false;
  for (uint64_t at = address; at < address + bytes;) {
    Page& p = page(at);
    const uint64_t start = at / page_bytes * page_bytes, end = std::min(start + p.bytes, address + bytes);
    Other other;
    Clash clash = Clash::none;
    uint64_t where = at;
    p.lock();
    if (!p.cells && at == start && end == start + p.bytes) {
      clash = whole(p, other);
    } else {
      Cell* cells = p.at_least(at % 4 || end % 4 ? 1 : 4);
      for (uint64_t c = at; c < end; c += 1u << p.shift) {
        Other one;
        const Clash found = part(cells[(c - start) >> p.shift], c, one);
        if (clash != Clash::none || found == Clash::none) continue;
        if (found == Clash::uninitialised && is_padding(p, start, address, bytes, c)) continue;
        clash = found, where = c, other = one;
      }
    }
    p.unlock();
    if (clash != Clash::none && !reported) {
      report_clash(clash, where, now, other, verb);
      reported = true;
    }
    at = start + page_bytes;
  }
  return true;
}

bool Memory::note_read(const void* pointer, uint64_t bytes, const Operation& now) {
  const bool initialised = options().check_initialised, races = options().check_races;
  const Toucher t{.operation = &now, .id = now.id, .block = no_block};
  auto kept = [&](Clash c) {
    return (c == Clash::uninitialised && !initialised) || (c == Clash::unordered && !races) ? Clash::none : c;
  };
  return for_range(
      reinterpret_cast<uint64_t>(pointer), bytes, now, "reads",
      [&](Page& p, Other& other) {
        if (!p.written_by) return kept(Clash::uninitialised);
        p.read_by = now.id;
        if (ordered(p.written_by, now)) return Clash::none;
        other = {.operation = p.written_by, .writes = true};
        return kept(Clash::unordered);
      },
      [&](Cell& cell, uint64_t, Other& other) { return kept(gpusim::note_read(cell, t, other)); });
}

bool Memory::note_write(void* pointer, uint64_t bytes, const Operation& now) {
  const bool races = options().check_races;
  const Toucher t{.operation = &now, .id = now.id, .block = no_block};
  return for_range(
      reinterpret_cast<uint64_t>(pointer), bytes, now, "writes",
      [&](Page& p, Other& other) {
        Clash clash = Clash::none;
        for (const auto& [by, writes] : {std::pair{p.read_by, false}, {p.written_by, true}})
          if (races && clash == Clash::none && !ordered(by, now)) {
            clash = Clash::unordered;
            other = {.operation = by, .writes = writes};
          }
        p.written_by = now.id;
        p.read_by = 0;
        return clash;
      },
      [&](Cell& cell, uint64_t, Other& other) {
        const Clash clash = gpusim::note_write(cell, t, false, other);
        return races ? clash : Clash::none;
      });
}

bool Memory::note_copy(void* to, Memory& source, const void* from, uint64_t bytes, const Operation& now) {
  if (!source.check_range(reinterpret_cast<uint64_t>(from), bytes, now, "reads") || !note_write(to, bytes, now))
    return false;
  // Reads of what was never written are no mistake here, but the copy was never written either.
  const uint64_t target = reinterpret_cast<uint64_t>(to), origin = reinterpret_cast<uint64_t>(from);
  const Toucher t{.operation = &now, .id = now.id, .block = no_block};
  Clash worst = Clash::none;
  Other first;
  uint64_t where = 0;
  for (uint64_t i = 0; i < bytes;) {
    Page &out = page(target + i), &in = source.page(origin + i);
    const uint64_t n =
        std::min({bytes - i, page_bytes - (target + i) % page_bytes, page_bytes - (origin + i) % page_bytes});
    if (!in.cells && in.written_by && ordered(in.written_by, now)) {
      in.read_by = now.id;
    } else {
      for (uint64_t b = i; b < i + n; ++b) {
        in.lock();
        Other other;
        const Clash clash = gpusim::note_read(in.at_least(1)[(origin + b) % page_bytes], t, other);
        in.unlock();
        if (clash == Clash::uninitialised) {
          out.lock();
          out.at_least(1)[(target + b) % page_bytes].writer.operation = 0;
          out.unlock();
        } else if (clash != Clash::none && worst == Clash::none) {
          worst = clash, first = other, where = origin + b;
        }
      }
    }
    i += n;
  }
  if (worst != Clash::none && options().check_races) source.report_clash(worst, where, now, first, "reads");
  return true;
}

void Memory::forget(void* pointer, uint64_t bytes) {
  const uint64_t address = reinterpret_cast<uint64_t>(pointer);
  for (uint64_t b = address; b < address + bytes; ++b) {
    Page& p = page(b);
    p.lock();
    p.at_least(1)[b % page_bytes] = {};
    p.unlock();
  }
}

Memory* memory_of(const void* address) {
  for (const auto& slot : memories)
    if (Memory* m = slot; m && m->contains(address)) return m;
  return nullptr;
}

}  // namespace gpusim
