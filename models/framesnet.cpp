#include "models/framesnet.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "models/learned_frames.h"
#include "models/random_frames.h"
#include "models/registry.h"

namespace lightcone {

namespace {

struct IdentityFramesConfig {
  std::string type = "IdentityFrames";
  void fields(auto& f) { f("type", type); }
};

class IdentityFrames : public FramesNet {
 public:
  explicit IdentityFrames(const Json& options) {
    IdentityFramesConfig config;
    read_fields(options, config, "model.framesnet");
  }
  bool is_identity() const override { return true; }
  Frames operator()(const Var&, const Var&, const Tensor&, Intermediates*) override { return {}; }
};

}  // namespace

std::unique_ptr<FramesNet> make_framesnet(Context& ctx, const Json& framesnet, int64_t num_scalars, DType dtype,
                                          bool reference_behaviour) {
  const std::string type = framesnet.contains("type") ? framesnet["type"].get<std::string>() : "IdentityFrames";
  if (type == "IdentityFrames") return std::make_unique<IdentityFrames>(framesnet);
  if (type == "RandomFrames" || type == "COMRandomFrames")
    return std::make_unique<RandomFrames>(framesnet, reference_behaviour);
  std::vector<std::string> types = learned_frames_types();
  if (std::find(types.begin(), types.end(), type) != types.end())
    return std::make_unique<LearnedFrames>(ctx, framesnet, num_scalars, dtype, reference_behaviour);
  types.insert(types.begin(), {"IdentityFrames", "RandomFrames", "COMRandomFrames"});
  throw NotInThisVersion(fmt::format("model: the frames network '{}' is not in this version of lightcone; it has: {}",
                                     type, fmt::join(types, ", ")));
}

}  // namespace lightcone
