// `lightcone verify` on numbers that the PyTorch implementation gave.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>

#include "engine/fields.h"
#include "engine/file.h"
#include "engine/safetensors.h"
#include "tests/support/op_case.h"
#include "tests/support/process.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;
namespace fs = std::filesystem;

namespace {

const fs::path golden = fs::path(LIGHTCONE_SOURCE_DIR) / "tests" / "golden" / "tagging";

using Tensors = std::vector<std::pair<std::string, Tensor>>;
using Metadata = std::map<std::string, std::string>;

// A copy of a reference file with whatever `edit` changes of its tensors and metadata.
void edited(const fs::path& from, const fs::path& to, const std::function<void(Context&, Tensors&, Metadata&)>& edit) {
  Context ctx(1);
  const Safetensors file(from);
  Tensors tensors;
  for (const auto& n : file.names()) tensors.emplace_back(n, file.load(ctx, n));
  Metadata metadata = file.metadata();
  edit(ctx, tensors, metadata);
  save_safetensors(to, tensors, metadata);
}

Tensor& find(Tensors& tensors, const std::string& name) {
  const auto it = std::find_if(tensors.begin(), tensors.end(), [&](auto& t) { return t.first == name; });
  REQUIRE(it != tensors.end());
  return it->second;
}

// Another last number in one tensor. (Not the first: an energy is what the mass regulator sets anew.)
void edited(const fs::path& from, const fs::path& to, const std::string& name, double factor) {
  edited(from, to, [&](Context&, Tensors& tensors, Metadata&) {
    Tensor& t = find(tensors, name);
    double& last = t.data<double>()[t.numel() - 1];
    last = last * factor + (factor - 1);
  });
}

const fs::path reference = golden / "transformer_identity_multiquery.safetensors";

// What verify says of an edited copy of `reference`.
Finished verify(const std::function<void(Context&, Tensors&, Metadata&)>& edit) {
  ScratchFolder folder;
  const fs::path to = folder.path() / "edited.safetensors";
  edited(reference, to, edit);
  return test::lightcone({"verify", to.string()});
}

Finished verify_metadata(const std::string& key, const std::string& value) {
  return verify([&](Context&, Tensors&, Metadata& metadata) { metadata[key] = value; });
}

// The configuration with `value` at `pointer`.
std::string config_with(const std::string& pointer, const Json& value) {
  Json config = Json::parse(Safetensors(reference).metadata().at("config"));
  config[Json::json_pointer(pointer)] = value;
  return config.dump();
}

// The line that begins with this name.
std::string line_of(const std::string& output, const std::string& name) {
  const size_t at = output.find("\n  " + name);
  return at == std::string::npos ? "" : output.substr(at + 1, output.find('\n', at + 1) - at - 1);
}

}  // namespace

namespace {

// Files whose names start with `network`: all agree, in f64 and, unless told otherwise, with an f32 network. The number
// of files.
int verify_all(const char* network, std::initializer_list<const char*> intermediates, bool float32 = true) {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (!entry.path().filename().string().starts_with(network)) continue;
    ++files;
    for (const char* option : {"--all", "--float32"}) {
      if (option == std::string("--float32") && !float32) continue;
      const Finished f = test::lightcone({"verify", entry.path().string(), option});
      INFO(f.output);
      CHECK(f.status == 0);
      for (const char* quantity : {"out/embedding_tagging_features", "out/logits", "out/loss", "grad/", "eval/logits",
                                   "traj/loss", "traj/grad_norm", "PASS"})
        CHECK(has(f.output, quantity));
      for (const char* quantity : intermediates) CHECK(has(line_of(f.output, quantity), "ok"));
    }
  }
  return files;
}

}  // namespace

TEST_CASE("verify: every Transformer agrees") {
  CHECK(verify_all("transformer_identity", {"mid/net_in/inputs"}) == 4);
  CHECK(verify_all("jc_transformer_identity", {"mid/net_in/inputs"}) == 1);
  CHECK(verify_all("transformer_random", {"mid/net_in/inputs", "mid/frames"}) == 3);
  // Gradients of learned frames go through differences of large momenta: f64 alone.
  for (auto [network, count] : {std::pair{"transformer_learned", 10},
                                {"equimlp", 4},
                                {"equilgatr", 2},
                                {"equipelican", 2},
                                {"jc_transformer_learned", 1}})
    CHECK(verify_all(network, {"mid/net_in/inputs", "mid/equivectors", "mid/frames"}, false) == count);
}

TEST_CASE("verify: every GraphNet agrees") {
  CHECK(verify_all("graphnet_identity", {"mid/net_in/inputs"}) == 2);
  CHECK(verify_all("graphnet_learned", {"mid/net_in/inputs", "mid/net_in/edge_attr", "mid/frames"}, false) == 1);
  CHECK(verify_all("jc_graphnet", {"mid/net_in/inputs", "mid/frames"}, false) == 1);
}

TEST_CASE("verify: what the first pass measures is compared") {
  ScratchFolder folder;
  const fs::path to = folder.path() / "edited.safetensors";
  for (const char* name : {"buffer_after/edge_mean", "buffer_after/edge_std", "mid/net_in/edge_attr"}) {
    edited(golden / "graphnet_identity_edges.safetensors", to, name, 1 + 1e-6);
    const Finished f = test::lightcone({"verify", to.string()});
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(line_of(f.output, name), "MISS"));
  }
}

TEST_CASE("verify: every L-GATr agrees, in f64 and with an f32 network") {
  CHECK(verify_all("lgatr", {"mid/net_in/multivectors"}) == 2);
}

TEST_CASE("verify: every L-GATr-slim agrees, in f64 and with an f32 network") {
  CHECK(verify_all("slim", {"mid/net_in/vectors", "mid/net_in/scalars"}) == 4);
  CHECK(verify_all("jc_slim", {"mid/net_in/vectors", "mid/net_in/scalars"}) == 1);
}

TEST_CASE("verify: one changed number is a miss, by name") {
  ScratchFolder folder;
  const fs::path from = golden / "transformer_identity_globaltoken.safetensors",
                 to = folder.path() / "edited.safetensors";
  for (const char* name :
       {"param/net.blocks.1.mlp.0.weight", "in/fourmomenta", "out/logits", "out/loss", "grad/net.linear_in.weight",
        "grad/net.linear_out.bias", "mid/net_in/inputs", "eval/logits", "traj/loss", "traj/grad_norm",
        "traj/param_final/net.linear_in.weight", "out/embedding_fourmomenta", "out/embedding_tagging_features"}) {
    edited(from, to, name, 1 + 1e-6);
    const Finished f = test::lightcone({"verify", to.string()});
    INFO(std::string(name), "\n", f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "MISS"));
    if (std::string(name).starts_with("out/") || std::string(name).starts_with("grad/")) {
      const std::string line = line_of(f.output, name);
      INFO(line);
      CHECK(has(line, "MISS"));
    }
  }
}

TEST_CASE("verify: a network that is not there is said to be so, and its embedding is compared all the same") {
  const Finished f = verify_metadata("config", config_with("/model/net/_target_", "some.other.NoSuchNet"));
  INFO(f.output);
  CHECK(f.status == 2);
  CHECK(has(f.output, "NOT THERE"));
  CHECK(has(f.output, "NoSuchNet"));
  CHECK(has(f.output, "out/embedding_tagging_features"));
}

TEST_CASE("verify: files that are no reference files get one clear line") {
  ScratchFolder folder;
  Context ctx(1);
  save_safetensors(folder.path() / "plain.safetensors", {{"x", ctx.zeros({2}, DType::f64)}});
  const Finished plain = test::lightcone({"verify", (folder.path() / "plain.safetensors").string()});
  CHECK(plain.status == 2);
  CHECK(has(plain.output, "NOT A MODEL FILE"));
  CHECK(has(plain.output, "no 'config'"));
  CHECK(has(plain.output, "1 no model files"));
  const std::string whole = read_file(golden / "transformer_identity.safetensors");
  std::ofstream(folder.path() / "cut.safetensors", std::ios::binary) << whole.substr(0, whole.size() - 100);
  const Finished cut = test::lightcone({"verify", (folder.path() / "cut.safetensors").string()});
  CHECK(cut.status == 1);
  CHECK(has(cut.output, "cut.safetensors"));
}

TEST_CASE("verify: NaN and infinity are misses, wherever they stand") {
  for (double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    for (const char* name : {"out/logits", "out/loss", "eval/logits", "traj/loss", "traj/grad_norm",
                             "mid/net_in/inputs", "grad/net.linear_in.weight", "out/embedding_fourmomenta"}) {
      const Finished f =
          verify([&](Context&, Tensors& tensors, Metadata&) { find(tensors, name).data<double>()[0] = value; });
      INFO(f.output);
      CHECK(f.status == 1);
      CHECK(has(line_of(f.output, name), "MISS"));
      if (has(name, "grad/net")) CHECK(has(line_of(f.output, "grad/*"), "nan"));
    }
  for (const char* name : {"in/fourmomenta", "param/net.linear_in.weight", "in/label"}) {
    const Finished f = verify([&](Context&, Tensors& tensors, Metadata&) {
      find(tensors, name).data<double>()[0] = std::numeric_limits<double>::quiet_NaN();
    });
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, std::string("'") + name + "' holds nan"));
  }
}

TEST_CASE("verify: a configuration of another form is a miss with one clear line") {
  const int deep = 200000;
  const std::string lists = std::string(deep, '[') + std::string(deep, ']');
  std::string tables;
  for (int i = 0; i < deep; ++i) tables += "{\"a\":";
  tables += "1" + std::string(deep, '}');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {lists, "nested more than 64 deep"},
      {"{\"exp_type\":\"toptagging\",\"a\":" + tables + "}", "nested more than 64 deep"},
      {"[1, 2]", "must be a table, got array"},
      {"5", "must be a table, got number"},
      {"\"x\"", "must be a table, got string"},
      {"null", "must be a table, got null"},
      {"{nope", "is not JSON"},
      {"{}", "has no exp_type"},
      {config_with("/exp_type", 5), "exp_type must be a text, got number"},
      {config_with("/model", 5), "model must be a table, got number"},
      {config_with("/model", nullptr), "model must be a table, got null"},
      {config_with("/model", Json::object()), "has no model.net.type"},
      {config_with("/model/framesnet", 5), "has no model.framesnet.type"},
      {config_with("/model/net/num_blocks", 10000000), "model.net.num_blocks is 10000000"},
      {config_with("/training/optimizer", "Foo"), "'Foo'"},
      {config_with("/data/mass_reg", "x"), "data.mass_reg"},
  };
  for (const auto& [config, expected] : cases) {
    const Finished f = verify_metadata("config", config);
    INFO(expected, "\n", f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, expected));
    CHECK(!has(f.output, "json.exception"));
  }
}

TEST_CASE("verify: numbers in the metadata are read to their last character and must make sense") {
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"noise_logits", "nan"},
                                                                                   {"noise_logits", "inf"},
                                                                                   {"noise_logits", "-1e-9"},
                                                                                   {"noise_logits", "1e-9abc"},
                                                                                   {"noise_logits", ""},
                                                                                   {"noise_logits", "0.1"},
                                                                                   {"noise_grad", "inf"},
                                                                                   {"noise_traj", "nan"},
                                                                                   {"lr", "1e-3x"},
                                                                                   {"traj_valid_losses", "-1"},
                                                                                   {"traj_valid_losses", "nan"},
                                                                                   {"traj_valid_losses", "99"},
                                                                                   {"traj_valid_losses", "2.5"}}) {
    const Finished f = verify_metadata(key, value);
    INFO(key, " = ", value, "\n", f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "metadata '" + key + "'"));
  }
  // A trajectory that is right only at its beginning is compared only there.
  const Finished f = verify([](Context&, Tensors& tensors, Metadata& metadata) {
    metadata["traj_valid_losses"] = "2";
    for (const char* name : {"traj/loss", "traj/grad_norm"}) find(tensors, name).data<double>()[2] += 1;
  });
  INFO(f.output);
  CHECK(f.status == 0);
  CHECK(has(f.output, "only 2 of 5 steps"));
}

TEST_CASE("verify: the embedding's tolerance is not for the file to choose") {
  const Finished f = verify([](Context&, Tensors& tensors, Metadata& metadata) {
    metadata["noise_embedding"] = "1e-5";
    find(tensors, "out/embedding_tagging_features").span<double>().back() += 1e-6;
  });
  INFO(f.output);
  CHECK(has(line_of(f.output, "out/embedding_tagging_features"), "MISS"));
}

TEST_CASE("verify: one odd file does not end the run") {
  ScratchFolder folder;
  const fs::path odd = folder.path() / "odd.safetensors";
  edited(reference, odd, [](Context&, Tensors&, Metadata& metadata) { metadata["config"] = "[1]"; });
  const Finished f = test::lightcone({"verify", odd.string(), "absent.safetensors", reference.string()});
  INFO(f.output);
  CHECK(f.status == 1);
  CHECK(has(f.output, "3 files: 1 pass, 2 miss, 0 not there, 0 no model files"));
}

TEST_CASE("verify: files of parts and of quantised networks are said to be so") {
  const auto without_parameters = verify([](Context&, Tensors& tensors, Metadata&) {
    std::erase_if(tensors, [](auto& t) { return t.first.starts_with("param/"); });
  });
  INFO(without_parameters.output);
  CHECK(without_parameters.status == 2);
  CHECK(has(without_parameters.output, "NOT A MODEL FILE"));
  const auto other = verify_metadata("config", config_with("/exp_type", "amplitudes"));
  INFO(other.output);
  CHECK(other.status == 2);
  CHECK(has(other.output, "NOT THERE (the experiment 'amplitudes'"));
  for (const char* key : {"/weightquant/use", "/inputquant/use"}) {
    // These files call the labels otherwise and have no scalars.
    const auto quantised = verify([&](Context&, Tensors& tensors, Metadata& metadata) {
      metadata["config"] = config_with(key, true);
      std::erase_if(tensors, [](auto& t) { return t.first == "in/scalars"; });
      for (auto& [name, tensor] : tensors)
        if (name == "in/label") name = "in/labels";
    });
    INFO(quantised.output);
    CHECK(quantised.status == 2);
    CHECK(has(quantised.output, "NOT THERE (quantisation is not in this version)"));
    CHECK(has(line_of(quantised.output, "out/embedding_tagging_features"), "ok"));
  }
}

TEST_CASE("verify: what the file or the network lacks is said") {
  const auto without = [](const std::string& start) {
    return verify([&](Context&, Tensors& tensors, Metadata&) {
      std::erase_if(tensors, [&](auto& t) { return t.first.starts_with(start); });
    });
  };
  for (const char* name :
       {"out/embedding_ptr", "out/embedding_tagging_features", "eval/logits", "traj/loss", "grad/"}) {
    const Finished f = without(name);
    INFO(f.output);
    CHECK(f.status == 0);
    CHECK(has(line_of(f.output, name), "not in the file"));
  }
  for (const char* name : {"out/logits", "out/loss"}) {
    const Finished f = without(name);
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(line_of(f.output, name), "MISS"));
  }
  // A gradient alone that is missing is a difference, all of them are a choice of the file's.
  CHECK(without("grad/net.linear_in.weight").status == 1);
  const Finished more = verify([](Context& ctx, Tensors& tensors, Metadata&) {
    tensors.emplace_back("mid/extra\n\x1b[2J", ctx.zeros({1}, DType::f64));
  });
  INFO(more.output);
  CHECK(more.status == 0);
  CHECK(has(line_of(more.output, "mid/* ("), "not compared: "));
  CHECK(has(line_of(more.output, "mid/* ("), "mid/extra\\n\\x1b[2J"));
  CHECK(!has(more.output, "\x1b"));
}

TEST_CASE("verify: row offsets and labels are integers") {
  const auto with = [](const char* name, const std::function<Tensor(Context&, const Tensor&)>& make) {
    return verify([&](Context& ctx, Tensors& tensors, Metadata&) {
      Tensor& t = find(tensors, name);
      t = make(ctx, t);
    });
  };
  const Finished floats =
      with("in/ptr", [](Context& ctx, const Tensor& t) { return ctx.zeros(t.shape(), DType::f64); });
  CHECK(floats.status == 1);
  CHECK(has(floats.output, "'in/ptr' has elements of type f64"));
  const Finished far = with("in/ptr", [](Context&, Tensor t) {
    t.data<int64_t>()[t.numel() - 1] += int64_t{1} << 32;  // the right one again after a cast to 32 bits
    return t;
  });
  CHECK(far.status == 1);
  CHECK(has(far.output, "'in/ptr' holds"));
  for (double value : {0.5, -1.0, 2.0}) {
    const Finished f = with("in/label", [&](Context&, Tensor t) {
      t.data<double>()[0] = value;
      return t;
    });
    INFO(f.output);
    CHECK(f.status == 1);
    CHECK(has(f.output, "'in/label' holds"));
  }
}
