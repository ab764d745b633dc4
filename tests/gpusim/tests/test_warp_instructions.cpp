#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gpusim/tests/instruction_case.h"

using namespace gpusim;

namespace {

bool in(uint32_t mask, int lane) { return mask >> lane & 1; }

/// Random lanes to execute, never none; sometimes all.
uint32_t some_lanes(std::mt19937& random) {
  const uint32_t mask = random() & random();
  return random() % 4 == 0 || mask == 0 ? all_lanes : mask;
}

/// Divides the lanes of a mask among up to three member masks.
std::array<uint32_t, warp_size> some_members(std::mt19937& random, uint32_t mask) {
  const bool divided = random() % 2;
  std::array<uint32_t, 3> sets{};
  std::array<size_t, warp_size> set_of{};
  for (int l = 0; l < warp_size; ++l) {
    set_of[l] = divided ? random() % sets.size() : 0;
    if (in(mask, l)) sets[set_of[l]] |= 1u << l;
  }
  std::array<uint32_t, warp_size> members{};
  for (int l = 0; l < warp_size; ++l) members[l] = sets[set_of[l]];
  return members;
}

/// A result is what the reference gives for a lane's members where the lane executes, else what it was.
struct Expectation {
  size_t operand;
  std::function<Bits(int lane, uint32_t members)> value;
};

/// Runs `text`, whose last operand is the member mask, many times. prepare(random) sets its sources.
void check_warp(std::string_view text, const std::function<void(InstructionCase&, std::mt19937&)>& prepare,
                const std::function<std::vector<Expectation>(const InstructionCase&)>& expect) {
  std::mt19937 random{5};
  bool right = true;
  for (int run = 0; run < 300 && right; ++run) {
    InstructionCase instruction(text);
    prepare(instruction, random);
    const uint32_t mask = some_lanes(random);
    const auto members = some_members(random, mask);
    instruction.set_each(instruction.operands() - 1, [&](int l) { return members[l]; });
    const InstructionCase before = instruction;
    const auto expectations = expect(before);
    CHECK(instruction.run(mask) == nullptr);
    for (const Expectation& expectation : expectations)
      for (int l = 0; l < warp_size; ++l) {
        const Bits got = instruction.get(expectation.operand, l);
        const Bits want = in(mask, l) ? expectation.value(l, members[l]) : before.get(expectation.operand, l);
        right = right && got == want;
        if (got != want)
          FAIL_CHECK(fmt::format("'{}' lane {} of {:08x}, members {:08x}: result {} is {:x}, expected {:x}", text, l,
                                 mask, members[l], expectation.operand, uint64_t(got), uint64_t(want)));
      }
  }
  CHECK(right);
}

/// Random bits for an operand, from few different ones so that lanes agree at times.
void set_random(InstructionCase& instruction, size_t operand, std::mt19937& random, uint32_t different) {
  const uint32_t choices = 1 + random() % different;
  instruction.set_each(operand, [&](int) { return random() % choices * 0x1'0000'0001u; });
}

struct Source {
  int lane;
  bool inside;
};

/// Where a shuffle takes its value from, for one lane.
Source shuffle_source(const std::string& mode, int lane, uint32_t b, uint32_t c) {
  const int by = b % 32, segment_mask = c / 256 % 32, clamp = c % 32;
  const int first = lane & segment_mask, last = (lane & segment_mask) | (clamp & ~segment_mask);
  int from = 0;
  if (mode == "up") from = lane - by;
  if (mode == "down") from = lane + by;
  if (mode == "bfly") from = lane ^ by;
  if (mode == "idx") from = first | (by & ~segment_mask);
  const bool inside = mode == "up" ? from >= last : from <= last;
  return {inside ? from : lane, inside};
}

}  // namespace

TEST_CASE("shfl takes values from other lanes") {
  for (const std::string mode : {"up", "down", "bfly", "idx"})
    for (const bool pair : {false, true}) {
      std::mt19937 random{7};
      const std::string text = fmt::format("shfl.sync.{}.b32 {}, %r1, %r2, %r3, %r4;", mode, pair ? "%r0|%p0" : "%r0");
      const size_t first = pair ? 2 : 1;
      int faults = 0, clean = 0;
      for (int run = 0; run < 500; ++run) {
        InstructionCase shuffle(text);
        const uint32_t mask = some_lanes(random);
        const uint32_t width = 1u << random() % 6, clamp = mode == "up" ? 0 : 31, segments = (32 - width) * 256;
        shuffle.set_each(0, [&](int) { return uint32_t(random()); });
        shuffle.set_each(first, [&](int) { return uint32_t(random()); });
        const uint32_t by = random() % 40;
        shuffle.set_each(first + 1, [&](int) { return run % 2 ? by : uint32_t(random()); });
        shuffle.set_each(first + 2, [&](int) { return run % 3 ? segments + clamp : uint32_t(random()); });
        shuffle.set_each(first + 3, [&](int) { return mask; });
        const InstructionCase before = shuffle;
        const char* fault = shuffle.run(mask);
        bool reads_outside = false, right = true;
        for (int l = 0; l < warp_size; ++l) {
          if (!in(mask, l)) {
            right = right && shuffle.get(0, l) == before.get(0, l);
            continue;
          }
          const Source source =
              shuffle_source(mode, l, uint32_t(before.get(first + 1, l)), uint32_t(before.get(first + 2, l)));
          reads_outside = reads_outside || !in(mask, source.lane);
          right = right && shuffle.get(0, l) == before.get(first, source.lane);
          if (pair) right = right && shuffle.get(1, l) == source.inside;
        }
        CHECK(right);
        CHECK((fault != nullptr) == reads_outside);
        (fault ? faults : clean) += 1;
      }
      CHECK(faults > 50);
      CHECK(clean > 50);
    }
}

TEST_CASE("shfl in place, with immediates and ignored results") {
  InstructionCase rotate("shfl.sync.bfly.b32 %r1, %r1, 1, 31, -1;");
  rotate.set_each(0, [](int l) { return uint32_t(100 + l); });
  CHECK(rotate.run() == nullptr);
  for (int l = 0; l < warp_size; ++l) CHECK(rotate.get(0, l) == 100 + (l ^ 1));
  InstructionCase ignoring("shfl.sync.down.b32 %r0|_, %r1, 4, 31, -1;");
  ignoring.set_each(2, [](int l) { return uint32_t(l); });
  CHECK(ignoring.run() == nullptr);
  for (int l = 0; l < warp_size; ++l) CHECK(ignoring.get(0, l) == (l < 28 ? l + 4 : l));
}

TEST_CASE("lanes of different sets shuffle apart") {
  InstructionCase shuffle("shfl.sync.idx.b32 %r0, %r1, %r2, 31, %r3;");
  shuffle.set_each(1, [](int l) { return uint32_t(l * 11); });
  shuffle.set_each(2, [](int l) { return uint32_t(l < 16 ? 3 : 20); });
  shuffle.set_each(4, [](int l) { return l < 16 ? 0x0000ffffu : 0xffff0000u; });
  CHECK(shuffle.run() == nullptr);
  for (int l = 0; l < warp_size; ++l) CHECK(shuffle.get(0, l) == (l < 16 ? 33 : 220));
  shuffle.set(2, 5, 16);  // from the other set
  CHECK(std::string_view(shuffle.run()) == "a shuffle takes a value from a lane that does not take part in it");
}

TEST_CASE("vote") {
  const auto prepare = [](InstructionCase& vote, std::mt19937& random) {
    const uint32_t kind = random() % 4, bits = random();
    vote.set_each(1, [&](int l) { return kind == 0 ? false : kind == 1 ? true : in(bits, l); });
    vote.set_each(0, [&](int) { return (random() & 1) != 0; });
  };
  for (const bool negated : {false, true}) {
    const auto yes_among = [negated](const InstructionCase& vote, uint32_t members) {
      uint32_t yes = 0;
      for (int l = 0; l < warp_size; ++l)
        if (in(members, l) && (vote.get(1, l) != 0) != negated) yes |= 1u << l;
      return yes;
    };
    for (const std::string mode : {"all", "any", "uni", "ballot"})
      for (const bool sync_first : {false, true}) {
        const std::string words = sync_first ? "sync." + mode : mode + ".sync";
        const std::string text = fmt::format("vote.{}.{}, {}%p1, %r1;", words,
                                             mode == "ballot" ? "b32 %r0" : "pred %p0", negated ? "!" : "");
        check_warp(text, prepare, [&](const InstructionCase& vote) {
          return std::vector<Expectation>{{0, [&, mode](int, uint32_t members) -> Bits {
                                             const uint32_t yes = yes_among(vote, members);
                                             if (mode == "all") return yes == members;
                                             if (mode == "any") return yes != 0;
                                             if (mode == "uni") return yes == members || yes == 0;
                                             return yes;
                                           }}};
        });
      }
  }
  check_unknown("vote.all.pred %p0, %p1;");
  check_unknown("vote.sync.all.sync.pred %p0, %p1, %r1;");
  check_unknown("vote.sync.ballot.pred %p0, %p1, %r1;");
}

TEST_CASE("match") {
  for (const bool wide : {false, true}) {
    const char* source = wide ? "b64 %r0{}, %d1, %r2;" : "b32 %r0{}, %r1, %r2;";
    const auto agreeing = [](const InstructionCase& match, size_t operand, int lane, uint32_t members) {
      uint32_t same = 0;
      for (int l = 0; l < warp_size; ++l)
        if (in(members, l) && match.get(operand, l) == match.get(operand, lane)) same |= 1u << l;
      return same;
    };
    const auto text = [&](const char* mode, const char* p) {
      return fmt::format("match.{}.sync.{}", mode, fmt::format(fmt::runtime(source), p));
    };
    const auto prepare = [](size_t operand) {
      return [operand](InstructionCase& match, std::mt19937& random) { set_random(match, operand, random, 5); };
    };
    check_warp(text("any", ""), prepare(1), [&](const InstructionCase& match) {
      return std::vector<Expectation>{
          {0, [&](int l, uint32_t members) { return Bits(agreeing(match, 1, l, members)); }}};
    });
    for (const size_t operand : {1, 2})
      check_warp(text("all", operand == 2 ? "|%p0" : ""), prepare(operand), [&](const InstructionCase& match) {
        std::vector<Expectation> expected{{0, [&](int l, uint32_t members) {
                                             return Bits(agreeing(match, operand, l, members) == members ? members : 0);
                                           }}};
        if (operand == 2)
          expected.push_back(
              {1, [&](int l, uint32_t members) { return Bits(agreeing(match, 2, l, members) == members); }});
        return expected;
      });
  }
  check_unknown("match.any.sync.u32 %r0, %r1, %r2;");
  check_unknown("match.any.sync.b32 %r0|%p0, %r1, %r2;");
}

TEST_CASE("redux") {
  using Fold = std::function<int64_t(int64_t, int64_t)>;
  const std::map<std::string, Fold> folds = {{"add", [](int64_t a, int64_t b) { return a + b; }},
                                             {"min", [](int64_t a, int64_t b) { return std::min(a, b); }},
                                             {"max", [](int64_t a, int64_t b) { return std::max(a, b); }},
                                             {"and", [](int64_t a, int64_t b) { return a & b; }},
                                             {"or", [](int64_t a, int64_t b) { return a | b; }},
                                             {"xor", [](int64_t a, int64_t b) { return a ^ b; }}};
  for (const auto& [name, fold] : folds) {
    const bool bitwise = name == "and" || name == "or" || name == "xor";
    for (const std::string type : {"u32", "s32", "b32"}) {
      const std::string text = fmt::format("redux.sync.{}.{} %r0, %r1, %r2;", name, type);
      if (bitwise != (type == "b32")) {
        check_unknown(text);
        continue;
      }
      const auto prepare = [](InstructionCase& redux, std::mt19937& random) {
        redux.set_each(1, [&](int) { return uint32_t(random()); });
      };
      check_warp(text, prepare, [&, fold = fold](const InstructionCase& redux) {
        const auto value = [&, type](int l) {
          const uint32_t bits = uint32_t(redux.get(1, l));
          return type == "s32" ? int64_t{int32_t(bits)} : int64_t{bits};
        };
        return std::vector<Expectation>{{0, [=](int lane, uint32_t members) {
                                           int64_t result = value(lane);
                                           for (int l = 0; l < warp_size; ++l)
                                             if (l != lane && in(members, l)) result = fold(result, value(l));
                                           return Bits(uint32_t(result));
                                         }}};
      });
    }
  }
  check_unknown("redux.sync.min.f32 %r0, %r1, %r2;");
  check_unknown("redux.sync.min.abs.NaN.f32 %r0, %r1, %r2;");
}

TEST_CASE("activemask and elect") {
  for (const uint32_t mask : {all_lanes, 1u, 0x80000000u, 0x00ff00f0u}) {
    InstructionCase active("activemask.b32 %r0;");
    active.set_each(0, [](int) { return 7u; });
    CHECK(active.run(mask) == nullptr);
    for (int l = 0; l < warp_size; ++l) CHECK(active.get(0, l) == (in(mask, l) ? mask : 7));
  }
  for (const char* text : {"elect.sync %r0|%p0, %r1;", "elect.sync _|%p0, %r1;"})
    check_warp(
        text, [](InstructionCase&, std::mt19937&) {},
        [&](const InstructionCase& elect) {
          const auto lowest = [](uint32_t members) {
            int l = 0;
            while (!in(members, l)) ++l;
            return l;
          };
          std::vector<Expectation> expected{{1, [=](int l, uint32_t members) { return Bits(l == lowest(members)); }}};
          if (!elect.is_ignored(0))
            expected.push_back({0, [=](int, uint32_t members) { return Bits(lowest(members)); }});
          return expected;
        });
}

TEST_CASE("wrong members are found") {
  struct Wrong {
    uint32_t mask, exited;
    std::function<uint32_t(int)> members;
    const char* fault;
  };
  const char* const not_own = "a lane executes it that its own member mask does not name";
  const char* const absent = "a member mask names a lane that does not execute it";
  const char* const differ = "lanes that one member mask names give different member masks";
  const Wrong cases[] = {
      {all_lanes, 0, [](int) { return all_lanes; }, nullptr},
      {0x0000ffff, 0, [](int) { return 0x0000ffffu; }, nullptr},
      {0x0000ffff, 0xffff0000, [](int) { return all_lanes; }, nullptr},
      {0x0000ffff, 0, [](int) { return all_lanes; }, absent},
      {0x0000ffff, 0x7fff0000, [](int) { return all_lanes; }, absent},
      {all_lanes, 0, [](int) { return 0x0000ffffu; }, not_own},
      {all_lanes, 0, [](int l) { return l == 9 ? all_lanes & ~(1u << 9) : all_lanes; }, differ},
      {all_lanes, 0, [](int l) { return l < 16 ? 0x0000ffffu : 0xffff0000u; }, nullptr},
      {all_lanes, 0, [](int l) { return l < 16 ? 0x0001ffffu : 0xffff0000u; }, differ},
      {0x7fffffff, 0, [](int l) { return l < 16 ? 0x0000ffffu : 0xffff0000u; }, absent},
  };
  for (const char* text :
       {"vote.sync.any.pred %p0, %p1, %r3;", "vote.sync.ballot.b32 %r0, %p1, %r3;", "match.any.sync.b32 %r0, %r1, %r3;",
        "match.all.sync.b64 %r0|%p0, %d1, %r3;", "redux.sync.add.u32 %r0, %r1, %r3;", "elect.sync %r0|%p0, %r3;",
        "shfl.sync.up.b32 %r0, %r1, 0, 0, %r3;"})
    for (const Wrong& wrong : cases) {
      InstructionCase instruction(text);
      instruction.set_each(instruction.operands() - 1, wrong.members);
      const char* fault = instruction.run(wrong.mask, wrong.exited);
      CHECK(std::string(fault ? fault : "none") == (wrong.fault ? wrong.fault : "none"));
    }
}
