#include "engine/log.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>

#include "engine/error.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("log: messages from before the file is known come first, with level and time") {
  ScratchFolder folder;
  const Path path = folder / "out_0.log";
  {
    Log log(false);
    log->info("first {}", 1);
    log->warn("second");
    CHECK(!std::filesystem::exists(path));
    log.to_file(path);
    log.pointer()->error("third");
    // Readable at once, without closing.
    std::string text = read_file(path);
    std::replace_if(
        text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); }, '0');
    const std::string time = "[0000-00-00 00:00:00 ";
    CHECK(text == time + "I] first 0\n" + time + "W] second\n" + time + "E] third\n");
  }
  Log again(false);
  again.to_file(path);  // appends: a resumed run keeps its log
  again->info("fourth");
  const std::string text = read_file(path);
  CHECK(text.find("third") < text.find("fourth"));
  CHECK_THROWS_AS(Log(false).to_file(folder.path()), Error);
}

TEST_CASE("log: two logs do not share anything") {
  ScratchFolder folder;
  Log a(false), b(false);
  a.to_file(folder / "a");
  b.to_file(folder / "b");
  a->info("from a");
  CHECK(read_file(folder / "b").empty());
  b->set_level(spdlog::level::err);
  a->info("again");
  CHECK(has(read_file(folder / "a"), "again"));
}
