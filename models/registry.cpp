#include "models/registry.h"

#include <fmt/ranges.h>

#include <functional>
#include <map>

#include "models/graphnet_tagger.h"
#include "models/lgatr_slim_tagger.h"
#include "models/lgatr_tagger.h"
#include "models/transformer_tagger.h"

namespace lightcone {

namespace {

using Make =
    std::function<std::unique_ptr<Tagger>(Context&, const Json&, const TaggingTask&, const EmbeddingConfig&, DType)>;

// One line per network: its name in net.type, and its constructor.
const std::map<std::string, Make>& networks() {
  static const std::map<std::string, Make> table = {
      {"GraphNet", [](auto& ctx, auto& model, auto& task, auto& embedding,
                      DType dtype) { return std::make_unique<GraphNetTagger>(ctx, model, task, embedding, dtype); }},
      {"LGATrSlim", [](auto& ctx, auto& model, auto& task, auto& embedding,
                       DType dtype) { return std::make_unique<LGATrSlimTagger>(ctx, model, task, embedding, dtype); }},
      {"LGATr", [](auto& ctx, auto& model, auto& task, auto& embedding,
                   DType dtype) { return std::make_unique<LGATrTagger>(ctx, model, task, embedding, dtype); }},
      {"Transformer",
       [](auto& ctx, auto& model, auto& task, auto& embedding, DType dtype) {
         return std::make_unique<TransformerTagger>(ctx, model, task, embedding, dtype);
       }},
  };
  return table;
}

}  // namespace

std::unique_ptr<Tagger> make_tagger(Context& ctx, const Json& model, const TaggingTask& task,
                                    const EmbeddingConfig& embedding, DType dtype) {
  auto name_at = [&](const Json::json_pointer& where, const char* otherwise) -> std::string {
    if (!model.contains(where)) return otherwise;
    if (!model[where].is_string())
      fail("model", "model{} is {}, expected the name of a network", where.to_string(), model[where].dump());
    return model[where].get<std::string>();
  };
  const std::string type = name_at("/net/type"_json_pointer, "");
  name_at("/framesnet/type"_json_pointer, "IdentityFrames");
  name_at("/framesnet/equivectors/type"_json_pointer, "MLPVectors");
  const auto it = networks().find(type);
  if (it == networks().end()) {
    std::vector<std::string> names;
    for (const auto& [name, make] : networks()) names.push_back(name);
    throw NotInThisVersion(fmt::format("model: the network '{}' is not in this version of lightcone; it has: {}", type,
                                       fmt::join(names, ", ")));
  }
  return it->second(ctx, model, task, embedding, dtype);
}

}  // namespace lightcone
