#include <doctest/doctest.h>
#include <fmt/format.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "engine/error.h"
#include "experiments/compose.h"
#include "experiments/config.h"
#include "experiments/overrides.h"
#include "experiments/toml.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

// A configuration tree on disk for one test.
struct Tree {
  fs::path root;
  Tree(std::initializer_list<std::pair<const char*, std::string>> files) {
    static int count = 0;
    root =
        fs::temp_directory_path() / ("lightcone_compose_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    for (auto& [name, text] : files) write(name, text);
  }
  ~Tree() { fs::remove_all(root); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name, std::ios::binary) << text;
  }
  Json operator()(std::vector<std::string> overrides = {}, std::string name = "main") const {
    return compose({root.string(), name, std::move(overrides)});
  }
};

// "-cp config -cn name a=b c=d" as on the command line.
ComposeRequest request(const std::string& line) {
  ComposeRequest out;
  const auto words = split(line, ' ');
  for (size_t i = 0; i < words.size(); ++i)
    if (words[i] == "-cp")
      out.config_dir = words[++i];
    else if (words[i] == "-cn")
      out.config_name = words[++i];
    else if (!words[i].empty())
      out.overrides.push_back(words[i]);
  return out;
}

}  // namespace

TEST_CASE("compose: later entries win and a file's own content comes last unless _self_ says otherwise") {
  Tree implicit{{"main.toml", "defaults = ['base']\na = 2"}, {"base.toml", "a = 1\nb = 1"}};
  CHECK(implicit() == Json({{"a", 2}, {"b", 1}}));
  Tree first{{"main.toml", "defaults = ['_self_', 'base']\na = 2"}, {"base.toml", "a = 1\nb = 1"}};
  CHECK(first()["a"] == 1);
  Tree chosen{{"main.toml", "defaults = [{'override g' = 'b'}, 'base']"},
              {"base.toml", "defaults = [{g = 'a'}]"},
              {"g/a.toml", "v = 1"},
              {"g/b.toml", "v = 2"}};
  CHECK(chosen()["g"]["v"] == 2);
  CHECK(chosen({"g=a"})["g"]["v"] == 1);
  Tree order{{"main.toml", "defaults = ['x', 'y']"},
             {"x.toml", "a = 'x'\nt.p = 1\nlist = [1, 2]"},
             {"y.toml", "a = 'y'\nt.q = 2\nlist = [3]"}};
  CHECK(order() == Json({{"a", "y"}, {"list", {3}}, {"t", {{"p", 1}, {"q", 2}}}}));
}

TEST_CASE("compose: groups nest, and land in the table of their dotted path") {
  Tree tree{{"main.toml", "defaults = [{model = 'net'}]\n[model]\ndepth = 3"},
            {"model/net.toml", "defaults = [{frames = 'fixed'}]\ndepth = 1\nwidth = 8"},
            {"model/net_small.toml", "defaults = ['net']\nwidth = 2"},
            {"model/frames/fixed.toml", "type = 'fixed'"},
            {"model/frames/learned.toml", "defaults = [{vectors = 'mlp'}]\ntype = 'learned'"},
            {"model/frames/vectors/mlp.toml", "hidden = 32"},
            {"model/frames/vectors/mlp_small.toml", "defaults = ['mlp']\nhidden = 4"},
            {"extra/e.toml", "x = 1"}};
  CHECK(tree()["model"] == Json::parse(R"({"depth":3,"width":8,"frames":{"type":"fixed"}})"));
  // Group choices come before values wherever they stand.
  const Json small = tree(
      {"model.frames.vectors.hidden=5", "model/frames/vectors=mlp_small", "model=net_small", "model/frames=learned"});
  CHECK(small["model"] == Json::parse(R"({"depth":3,"width":2,"frames":{"type":"learned","vectors":{"hidden":5}}})"));
  CHECK(tree({"model/frames=learned", "model/frames/vectors=mlp_small"})["model"]["frames"]["vectors"]["hidden"] == 4);
  CHECK(tree({"+extra=e"})["extra"]["x"] == 1);
  CHECK(!tree({"~model/frames"})["model"].contains("frames"));
  CHECK(error_of([&] { tree({"model/frames/vectors=mlp"}); }) ==
        "config: model/frames/vectors=mlp: nothing here selects a group model/frames/vectors; groups here: model, "
        "model/frames");
  CHECK(has(error_of([&] { tree({"extra=e"}); }), "nothing here selects a group extra"));
  const std::string option = error_of([&] { tree({"model=net_smal"}); });
  CHECK(has(option, "no option of model 'net_smal'"));
  CHECK(has(option, "nearest: net_small, net; available: net, net_small"));
  CHECK(
      has(error_of([&] { tree({}, "mian"); }), "no configuration 'mian' in " + tree.root.string() + "; nearest: main"));
  CHECK(has(error_of([&] { tree({"model=../main"}); }), "model/../main.toml is not the name of a file in"));
  CHECK(error_of([&] { compose({"/nowhere", "main", {}}); }).starts_with("config: no folder /nowhere here or in "));
}

TEST_CASE("compose: values are typed as Hydra types them") {
  const std::pair<const char*, const char*> table[] = {{"null", "null"},
                                                       {"NULL", "null"},
                                                       {"True", "true"},
                                                       {"false", "false"},
                                                       {"7", "7"},
                                                       {"+5", "5"},
                                                       {"-3", "-3"},
                                                       {"1_000", "1000"},
                                                       {"1e-3", "0.001"},
                                                       {"5.", "5.0"},
                                                       {".5", "0.5"},
                                                       {"1e5", "100000.0"},
                                                       {"007", "\"007\""},
                                                       {"0x10", "\"0x10\""},
                                                       {"1__0", "\"1__0\""},
                                                       {"1-2", "\"1-2\""},
                                                       {"8x0n+2x1n", "\"8x0n+2x1n\""},
                                                       {"flat+decay", "\"flat+decay\""},
                                                       {"runs/a b:c", "\"runs/a b:c\""},
                                                       {"", "\"\""},
                                                       {"'1,2'", "\"1,2\""},
                                                       {"\"a\\\"b\"", "\"a\\\"b\""},
                                                       {"[0.5,0.2, 0.1]", "[0.5,0.2,0.1]"},
                                                       {"[a,1,null,[x]]", "[\"a\",1,null,[\"x\"]]"},
                                                       {"[]", "[]"},
                                                       {"{a:1,b:{c:x}}", R"({"a":1,"b":{"c":"x"}})"}};
  for (auto& [text, expected] : table) {
    CAPTURE(text);
    CHECK(parse_value(text).dump() == expected);
  }
  CHECK(std::isinf(parse_value("-inf").get<double>()));
  CHECK(std::isnan(parse_value("nan").get<double>()));
  for (const char* bad :
       {"a,b", "[1", "[1,]", "[1]x", "'a", "{a}", "{a:1", "99999999999999999999", "1e999", "{:1}", "[,]"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parse_value(bad), Error);
  }
  CHECK_THROWS_AS(parse_value(std::string(100000, '[')), Error);
}

TEST_CASE("compose: overrides set, add and remove") {
  Tree tree{{"main.toml", "name = 'x'\nlr = 1e-3\nlimit = 'null'\nopen = 3\n[t]\na = 1\nb = 2"}};
  CHECK(tree({"lr=1e-2", "lr=2e-2"})["lr"] == 2e-2);
  CHECK(tree({"lr=null"})["lr"].is_null());
  CHECK(tree({"limit=4"})["limit"] == 4);
  CHECK(tree({"name=2024"})["name"] == "2024");  // text stays text
  CHECK(tree({"name=null"})["name"].is_null());
  CHECK(tree({"+new.key=1"})["new"]["key"] == 1);
  CHECK(tree({"+limit.x=1"})["limit"]["x"] == 1);
  CHECK(tree({"t={a:5}"})["t"] == Json({{"a", 5}, {"b", 2}}));
  CHECK(tree({"~t.a", "~lr"}) == Json({{"name", "x"}, {"limit", nullptr}, {"open", 3}, {"t", {{"b", 2}}}}));
  CHECK(error_of([&] { tree({"t.aa=1"}); }) == "config: unknown key t.aa; nearest: t.a, t, t.b");
  CHECK(error_of([&] { tree({"lrr=1"}); }).starts_with("config: unknown key lrr; nearest: lr"));
  CHECK(error_of([&] { tree({"~lrr"}); }).starts_with("config: unknown key lrr; nearest: lr"));
  CHECK(error_of([&] { tree({"t={c:5}"}); }).starts_with("config: unknown key t.c; nearest"));
  CHECK(error_of([&] { tree({"open.x=1"}); }).starts_with("config: unknown key open.x"));
  CHECK(error_of([&] { tree({"t=5"}); }) ==
        "config: t=5: t is a table here, not a group of options; set its keys as t.key=value");
  CHECK(error_of([&] { tree({"lr"}); }) == "config: 'lr' is not of the form key=value");
  CHECK(error_of([&] { tree({"=1"}); }) == "config: '=1' does not name a key");
  CHECK(error_of([&] { tree({"t..a=1"}); }) == "config: 't..a=1' does not name a key");
  CHECK(has(error_of([&] { tree({"lr=1,2"}); }), "config: lr=1,2: a list is written [a,b]"));
  CHECK(error_of([&] { tree({"lr=\xff"}); }) == "config: 'lr=\xef\xbf\xbd' is not UTF-8 text");
  CHECK(has(error_of([&] { tree({std::string(5000, 'k') + "=1"}); }), "does not name a key"));
}

TEST_CASE("compose: ${a.b} is replaced, and what stays open is named") {
  Tree tree{{"main.toml", "dir = '${base}/runs/${t.n}'\nbase = '.'\ncopy = '${t.n}'\n[t]\nn = 3\nlist = ['${copy}']"}};
  CHECK(tree()["dir"] == "./runs/3");
  CHECK(tree()["copy"] == 3);
  CHECK(tree({"t.n=7"})["t"]["list"][0] == 7);
  CHECK(has(error_of([&] { tree({"base=${bas}"}); }), "base refers to ${bas}, which does not exist; nearest: base"));
  CHECK(has(error_of([&] { tree({"base=${t}"}); }), "not a single value"));
  CHECK(has(error_of([&] { tree({"base=x${dir}"}); }), "refers to itself"));
  Tree open{{"main.toml", "a = \"???\"\n[t]\nb = \"???\""}};
  CHECK(error_of([&] { open({"a=1"}); }) == "config: main leaves values open; add t.b=...");
  CHECK(open({"a=1", "t.b=2"})["a"] == 1);
  // Doubling at each step would otherwise end at 2^40 characters.
  std::string bomb = "x0 = 'aaaaaaaaaa'\n";
  for (int i = 1; i < 30; ++i) bomb += fmt::format("x{0} = '${{x{1}}}${{x{1}}}'\n", i, i - 1);
  Tree laughs{{"main.toml", bomb}};
  CHECK(has(error_of([&] { laughs(); }), "becomes too long"));
}

TEST_CASE("compose: bad trees give one clear error") {
  auto error = [](std::initializer_list<std::pair<const char*, std::string>> files) {
    Tree tree(files);
    std::string text = error_of([&] { tree(); });
    CHECK(!has(text, "\n"));
    CHECK(text.size() < 400);
    return text;
  };
  CHECK(error({{"main.toml", "defaults = ['a']"}, {"a.toml", "defaults = ['main']"}}) ==
        "config: defaults go round in a circle: main -> a -> main");
  CHECK(has(error({{"main.toml", "defaults = ['main']"}}), "circle: main -> main"));
  CHECK(has(error({{"main.toml", "defaults = ['nobody']"}}), "no configuration 'nobody' (named by main.toml"));
  CHECK(has(error({{"main.toml", "defaults = [{g = 'x'}]"}}), "no option of g 'x'"));
  CHECK(has(error({{"main.toml", "defaults = 'a'"}}), "main.toml: defaults must be a list of names"));
  CHECK(has(error({{"main.toml", "defaults = [3]"}}), "defaults must be a list of names"));
  CHECK(has(error({{"main.toml", "defaults = [{g = 3}]"}}), "defaults must be a list of names"));
  CHECK(
      has(error({{"main.toml", "defaults = ['a', {g = 'x'}]"}, {"a.toml", "defaults = [{g = 'x'}]"}, {"g/x.toml", ""}}),
          "the group g is in two defaults lists"));
  CHECK(has(error({{"main.toml", "a = 1\nb = = 2"}}), "main.toml:2: "));
  CHECK(has(error({{"main.toml", "a = 1\na = 2"}}), "main.toml:2: "));
  CHECK(has(error({{"main.toml", "a = 1979-05-27"}}), "main.toml:1: dates"));
  CHECK(has(error({{"main.toml", "a = 'x"}}), "main.toml"));
  CHECK(has(error({{"main.toml", "a = 99999999999999999999"}}), "main.toml:1: the number is out of range"));
  CHECK(has(error({{"main.toml", "a = -1e999"}}), "main.toml:1: the number is out of range"));
  CHECK(has(error({{"main.toml", std::string("a = \"\xff\"")}}), "is not UTF-8 text"));
  CHECK(has(error({{"main.toml", std::string("\0\1\2", 3)}}), "is not UTF-8 text"));
  CHECK(has(error({{"main.toml", "a = '" + std::string(70000, 'x') + "'"}}), "larger than 64 KiB"));
  // What would overflow the parser's stack.
  const std::string brackets(60000, '[');
  CHECK(has(error({{"main.toml", "a = " + brackets}}), "main.toml:1: nested deeper than 64 levels"));
  CHECK(
      has(error({{"main.toml", "\na = [\"]\", 'x]', \"\"\"b\"\"\"\"\", " + brackets}}), "main.toml:2: nested deeper"));
  std::string dots = "a", quoted = "'a'";
  for (int i = 0; i < 10000; ++i) dots += ".a", quoted += " . 'a'";
  CHECK(has(error({{"main.toml", dots + " = 1"}}), "nested deeper"));
  CHECK(has(error({{"main.toml", quoted + " = 1"}}), "nested deeper"));
  CHECK(has(error({{"main.toml", "[" + dots + "]"}}), "nested deeper"));
  CHECK(has(error({{"main.toml", "\na = [0b1" + std::string(62, '0') + "]"}}),
            "main.toml:2: a binary number of more than 62 digits"));
  CHECK(!has(error({{"main.toml", "a = [0b1" + std::string(61, '0') + "]"}}), "binary"));
  // 2^12 files through two entries a level.
  Tree wide{{"main.toml", "defaults = ['x0', 'x0']"}};
  for (int i = 0; i < 12; ++i) {
    wide.write(fmt::format("x{}.toml", i), fmt::format("defaults = ['x{0}', 'x{0}']", i + 1));
  }
  wide.write("x12.toml", "");
  CHECK(has(error_of([&] { wide(); }), "name more than 500 files"));
}

TEST_CASE("compose: toml_text reads back as the same") {
  Tree tree{{"main.toml", ""}};
  const Json json = values_first(Json::parse(
      R"({"s":"a\"b\\ \n\u0001\u007f \u00e4","t":{"x":{"deep":{}},"y":null,"list":[1,2.0,[null,"z"],{"k":[]}]},"i":-5,
          "f":[1.0,1e-16,1e300,0.1,-0.0],"b":true,"odd key!":1,"extra-test":"","e":{},"\u00e4":{"":1}})"));
  tree.write("main.toml", toml_text(json));
  CHECK(tree() == json);
  CHECK(tree().dump() == json.dump());
  CHECK(parse_value("inf") == [&] {
    tree.write("main.toml", toml_text({{"x", parse_value("inf")}}));
    return tree()["x"];
  }());
  for (const char* line : {"-cn toptagging", "-cn jctagging", "-cn toptagxl", "-cp config_quick -cn jctagging"}) {
    const Json composed = compose(request(line));
    tree.write("config.toml", toml_text(composed));
    CHECK(tree({}, "config").dump() == composed.dump());
  }
}

TEST_CASE("compose: a run's folder is a tree of one file") {
  Tree run{{"config.toml", toml_text(compose({}))}};
  const Json warm = run({"warm_start_idx=0", "training.lr=1e-5"}, "config");
  CHECK(warm["warm_start_idx"] == 0);
  CHECK(warm["training"]["optimizer"] == "Lion");
  CHECK(error_of([&] { run({"model=tag_slim"}, "config"); }).starts_with("config: model=tag_slim: model is a table"));
  CHECK(has(error_of([&] { run({}); }), "no configuration 'main' in"));
}

TEST_CASE("compose: paper=lloca has the older values, and renamed keys are known") {
  auto tree = [](const char* line) { return compose(request(line)); };
  CHECK(tree("-cn toptagging")["training"]["es_load_best_model"] == false);
  CHECK(tree("-cn toptagging +paper=lloca")["training"]["es_load_best_model"] == true);
  CHECK(tree("-cn toptagging paper=lloca training=top_1k training.es_load_best_model=false")["training"] ==
        tree("-cn toptagging training=top_1k")["training"]);
  const Json finetune = tree("-cn toptaggingft +paper=lloca finetune.backbone_path=x")["finetune"];
  CHECK(finetune["lr_backbone"] == 3e-5);
  CHECK(finetune["lr_head"] == 3e-3);
  CHECK(tree("-cp config_quick +paper=lloca")["training"]["validate_every_n_steps"] == 5000);
  CHECK(has(error_of([&] { tree("+paper=loca"); }), "no paper 'loca' in"));
  CHECK(tree("-cn jctagging data.tagging_features_framesnet=zinvariant")["data"]["tagging_features"] == "zinvariant");
}

TEST_CASE("compose: the published command lines") {
  const char* lines[] = {
      "-cp config model=tag_transformer_1k training=top_1k",
      "-cp config model=tag_transformer_10k training=top_10k",
      "-cp config model=tag_transformer_100k training=top_100k",
      "-cp config model=tag_transformer training=top_transformer",
      "-cp config model=tag_transformer_deep_1k training=top_1k",
      "-cp config model=tag_transformer_deep_10k training=top_10k",
      "-cp config model=tag_transformer_deep_100k training=top_100k",
      "-cp config model=tag_transformer training=top_transformer model.use_amp=true",
      "-cp config model=tag_transformer_1k training=top_1k model.use_amp=true",
      "-cp config model=tag_slim_1k training=top_1k",
      "-cp config model=tag_slim_10k training=top_10k",
      "-cp config model=tag_slim_100k training=top_100k",
      "-cp config model=tag_slim training=top_slim",
      "-cp config model=tag_slim_deep_1k training=top_1k",
      "-cp config model=tag_slim_deep_10k training=top_10k",
      "-cp config model=tag_slim_deep_100k training=top_100k",
      "-cp config model=tag_slim_lgatrlike training=top_slim",
      "-cp config_quick -cn toptagging model=tag_slim",
      "-cp config -cn toptaggingft finetune.backbone_path=runs/pretrain/slim-pretrain training=top_slim",
      "-cp config -cn toptaggingft finetune.backbone_path=runs/pretrain/slim-pretrain training=top_slim "
      "exp_name=finetune run_name=slim-finetune",
      "-cp config -cn jctagging training=jc_transformer data.features=fourmomenta exp_name=pretrain run_name=pretrain",
      "-cn demo",
      "-cp config_quick -cn toptagging save=false",
      "-cp config_quick -cn jctagging",
      "-cp configs/quick -cn toptagging",
      "-cp config -cn jctagging model=tag_transformer",
      "-cp config -cn jctagging training=jc_1k",
      "-cp config -cn jctagging training=jc_lgatr",
      "-cp config -cn jctagging training=jc_MIParT",
      "-cp config -cn toptagging model=tag_transformer training.iterations=1000",
      "-cp config -cn toptagging model=tag_top_transformer",
      "-cp config -cn toptagxl model=tag_transformer",
      "-cp config -cn jctagging data.beam_reference=null data.add_time_reference=false",
      "-cp config -cn jctagging data.beam_reference=all model.net.attn_reps=12x0n+1x1n"};
  for (const char* line : lines) {
    CAPTURE(line);
    CHECK_NOTHROW(validate(read_config(compose(request(line)))));
  }
  const char* quantised[] = {
      "-cp config model=tag_transformer training=top_transformer training.scheduler=CosineAnnealingLR "
      "weightquant.use=true inputquant.use=true model.use_amp=true",
      "-cp config -cn toptaggingft finetune.backbone_path=runs/pretrain/slim-pretrain training=top_slim "
      "model.use_amp=true inputquant.use=true weightquant.use=true weightquant.prox_map=hard",
      "-cp config model=tag_transformer_1k training=top_1k model.use_amp=true inputquant.use=true"};
  for (const char* line : quantised) {
    CAPTURE(line);
    const ExperimentConfig config = read_config(compose(request(line)));
    CHECK(has(error_of([&] { validate(config); }), "quantisation is not in this version"));
  }
}
