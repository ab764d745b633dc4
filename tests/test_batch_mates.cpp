// A jet's score depends neither on its batch mates nor on their order, bit by bit: every configuration of every tagger.
#include <doctest/doctest.h>

#include <filesystem>

#include "tests/support/taggers.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

/// The names of a folder's TOML files that begin with `prefix`.
std::vector<std::string> groups(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(LIGHTCONE_SOURCE_DIR) / folder))
    if (entry.path().extension() == ".toml" && entry.path().stem().string().starts_with(prefix))
      names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

JetSet reordered(Context& ctx, const JetSet& jets, const std::vector<int64_t>& order) {
  const Array p = to_array(jets.fourmomenta);
  const auto ptr = jets.ptr.span<int32_t>();
  Array out;
  std::vector<int64_t> lengths;
  for (int64_t j : order) {
    out.values.insert(out.values.end(), p.values.begin() + 4 * ptr[j], p.values.begin() + 4 * ptr[j + 1]);
    lengths.push_back(ptr[j + 1] - ptr[j]);
  }
  out.shape = p.shape;
  return jet_set(ctx, out, lengths);
}

void check_scores(const std::vector<std::string>& overrides, bool amp = false) {
  INFO(overrides[0], " ", overrides.size() > 1 ? overrides[1] : "");
  TaggerCase network = configured(overrides);
  if (amp) network.model["use_amp"] = true;
  Context ctx(1, 1);
  auto tagger = network.make(ctx);
  tagger->standardise(ctx, toy_jets(ctx, {13, 7, 3, 10, 5}, 3, 0.1));
  for (const JetSet& jets : {toy_jets(ctx, {40, 1, 17, 2}, 4, 0), hard_jets(ctx)}) {
    const auto together = logits(ctx, *tagger, jets);
    std::vector<int64_t> order;
    for (int64_t j = 0; j < jets.size(); ++j) order.push_back((3 * j + 2) % jets.size());
    const auto elsewhere = logits(ctx, *tagger, reordered(ctx, jets, order));
    for (int64_t j = 0; j < jets.size(); ++j) {
      CHECK(logits(ctx, *tagger, one_jet(ctx, jets, j)) == std::vector{together[j]});
      CHECK(elsewhere[j] == together[order[j]]);
    }
  }
}

}  // namespace

TEST_CASE("batch mates: every tagger") {
  const auto models = groups("configs/model", "tag_");
  REQUIRE(models.size() >= 17);
  for (const std::string& model : models) check_scores({"model=" + model});
}

TEST_CASE("batch mates: every kind of frames, one for each constituent and one for each jet") {
  const auto frames = groups("configs/model/framesnet", "");
  REQUIRE(frames.size() >= 11);
  for (const std::string& name : frames) {
    check_scores({"model=tag_transformer_10k", "model/framesnet=" + name});
    if (name != "identity")
      for (const char* global : {"true", "false"})
        for (const char* mean : {"true", "false"})
          check_scores({"model=tag_transformer_1k", "model/framesnet=" + name,
                        std::string("model.framesnet.is_global=") + global,
                        std::string("model.mean_aggregation=") + mean});
    for (const std::string& equivectors : groups("configs/model/framesnet/equivectors", ""))
      if (name.starts_with("learned"))
        check_scores(
            {"model=tag_transformer_1k", "model/framesnet=" + name, "model/framesnet/equivectors=" + equivectors});
  }
}

TEST_CASE("batch mates: with bf16 factors") {
  for (const char* model : {"tag_transformer_1k", "tag_slim_1k", "tag_lgatr"})
    check_scores({std::string("model=") + model}, true);
  check_scores({"model=tag_transformer_1k", "model/framesnet=learnedpd"}, true);
}
