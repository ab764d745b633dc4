#include <doctest/doctest.h>

#include "engine/error.h"
#include "engine/fields.h"

using namespace lightcone;

namespace {
struct Inner {
  double rate = 1;
  std::optional<int64_t> limit = 3;
  void fields(auto& f) {
    f("rate", rate);
    f("limit", limit);
  }
};
struct Outer {
  std::string name = "x";
  bool flag = false;
  std::array<double, 2> betas{0.9, 0.999};
  std::vector<std::string> sets;
  Inner inner;
  void fields(auto& f) {
    f("name", name);
    f("flag", flag);
    f("betas", betas);
    f("sets", sets);
    f("inner", inner);
  }
};
}  // namespace

TEST_CASE("fields: a struct is read, keeps absent keys and writes back the same") {
  Outer o;
  read_fields(Json::parse(R"({"flag":true,"sets":["a","b"],"inner":{"rate":2,"limit":null}})"), o, "");
  CHECK(o.flag);
  CHECK(o.name == "x");
  CHECK(o.sets == std::vector<std::string>{"a", "b"});
  CHECK(o.inner.rate == 2.0);
  CHECK(!o.inner.limit);
  Outer copy;
  read_fields(write_fields(o), copy, "");
  CHECK(write_fields(copy) == write_fields(o));
}

TEST_CASE("fields: whole floats are integers") {
  Inner i;
  read_fields(Json::parse(R"({"limit":1e3})"), i, "inner");
  CHECK(*i.limit == 1000);
}

TEST_CASE("fields: errors name the key, the expectation and the nearest names") {
  Outer o;
  auto reject = [&](const char* text, const char* message) {
    CHECK_THROWS_WITH_AS(read_fields(Json::parse(text), o, ""), message, Error);
  };
  reject(R"({"inner":{"rat":1}})", "config: unknown key inner.rat; nearest: rate, limit");
  reject(R"({"flag":1})", "config: flag must be true or false, got 1");
  reject(R"({"inner":{"limit":1.5}})", "config: inner.limit must be an integer, got 1.5");
  reject(R"({"inner":{"rate":"fast"}})", "config: inner.rate must be a number, got \"fast\"");
  reject(R"({"inner":{"rate":null}})", "config: inner.rate must be a number, got null");
  reject(R"({"betas":[1]})", "config: betas must have 2 entries, got 1");
}
