#include "models/registry.h"

#include <fmt/ranges.h>

#include <functional>
#include <map>

#include "models/transformer_tagger.h"

namespace lightcone {

namespace {

using Make =
    std::function<std::unique_ptr<Tagger>(Context&, const Json&, const TaggingTask&, const EmbeddingConfig&, DType)>;

// One line per network: its name in net.type, and its constructor.
const std::map<std::string, Make>& networks() {
  static const std::map<std::string, Make> table = {
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
  const std::string type = model.value("/net/type"_json_pointer, "");
  const std::string frames = model.value("/framesnet/type"_json_pointer, "IdentityFrames");
  const auto it = networks().find(type);
  if (it == networks().end()) {
    std::vector<std::string> names;
    for (const auto& [name, make] : networks()) names.push_back(name);
    fail("model", "the network '{}' is not in this version of lightcone; it has: {}", type, fmt::join(names, ", "));
  }
  if (frames != "IdentityFrames")
    fail("model", "the frames network '{}' is not in this version of lightcone; it has: IdentityFrames", frames);
  return it->second(ctx, model, task, embedding, dtype);
}

}  // namespace lightcone
