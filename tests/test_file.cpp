#include "engine/file.h"

#include <doctest/doctest.h>

#include "engine/error.h"
#include "tests/support/scratch_folder.h"

using namespace lightcone;
namespace fs = std::filesystem;

TEST_CASE("files: what is appended is there at once, and stands after the bytes that are kept") {
  ScratchFolder folder;
  const Path path = folder / "x";
  {
    Appender file(path);
    file.write("one\n");
    CHECK(read_file(path) == "one\n");
    file.write("two\n");
  }
  Appender(path, 4).write("three\n");
  CHECK(read_file(path) == "one\nthree\n");
  Appender(path).write("four\n");
  CHECK(read_file(path) == "one\nthree\nfour\n");
  CHECK_THROWS_WITH_AS(Appender("/dev/full").write("x"),
                       "/dev/full: cannot be written: No space left on device; make room on this disk", Error);
  CHECK_THROWS_AS(Appender(folder / "no" / "x"), Error);
}

TEST_CASE("files: one lock at a time; temporary files of a kill go, others stay") {
  ScratchFolder folder;
  {
    FileLock lock(folder / ".lock");
    CHECK(lock.held());
    CHECK_THROWS_AS(FileLock(folder / ".lock"), Error);
  }
  CHECK(FileLock(folder / ".lock").held());
  for (const char* name : {".x.1.0.tmp", "x.tmp", ".x"}) write_atomic(folder / name, "");
  remove_temporaries(folder.path());
  CHECK(!fs::exists(folder / ".x.1.0.tmp"));
  CHECK(fs::exists(folder / "x.tmp"));
  CHECK(fs::exists(folder / ".x"));
  CHECK_NOTHROW(check_writable(folder / "new"));
  CHECK_THROWS_AS(check_writable(folder.path()), Error);
  CHECK_THROWS_AS(check_writable(folder / "no" / "x"), Error);
}
