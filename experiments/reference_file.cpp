#include "experiments/reference_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "experiments/config.h"
#include "kernels/elementwise.h"

namespace lightcone {

namespace {

constexpr int deepest_config = 64;  // real ones have 5; what reads a configuration calls itself for each level

/// Parses `text`; throws Error if it is no JSON or nested deeper than any configuration.
Json parse(const std::string& text) {
  const auto shallow = [](int depth, Json::parse_event_t, const Json&) {
    if (depth > deepest_config) fail("verify", "the metadata's 'config' is nested more than {} deep", deepest_config);
    return true;
  };
  Json json = Json::parse(text, shallow, false);
  if (json.is_discarded()) fail("verify", "the metadata's 'config' is not JSON");
  return json;
}

/// The text at `path`, as "/model/net/type"; throws Error if something else or nothing is there.
std::string text_at(const Json& config, const std::string& path) {
  std::string dotted = path.substr(1);
  std::replace(dotted.begin(), dotted.end(), '/', '.');
  const Json::json_pointer pointer(path);
  if (!config.contains(pointer)) fail("verify", "the metadata's 'config' has no {}", dotted);
  const Json& value = config.at(pointer);
  if (!value.is_string())
    fail("verify", "the metadata's 'config': {} must be a text, got {}", dotted, value.type_name());
  return value.get<std::string>();
}

void require_table(const Json& json, const char* name) {
  if (!json.is_object()) fail("verify", "the metadata's 'config': {} must be a table, got {}", name, json.type_name());
}

/// Every width and every number of blocks takes at least as many weights, so a larger one is wrong; building such a
/// network would fill the memory.
void require_sizes(const Json& net, const Safetensors& file) {
  double bytes = 0;
  for (const auto& name : file.names())
    if (name.starts_with("param/")) bytes += static_cast<double>(file.info(name).end - file.info(name).begin);
  for (const auto& [key, value] : net.items())
    if (value.is_number() && value.get<double>() > bytes)
      fail("verify", "the metadata's 'config': model.net.{} is {}, but the file's parameters have only {} bytes", key,
           value.dump(), bytes);
}

std::vector<double> finite_values(Context& ctx, const std::string& name, const Tensor& t) {
  auto out = values(ctx, t);
  for (double v : out)
    if (!std::isfinite(v)) fail("verify", "'{}' holds {}, expected finite numbers", name, v);
  return out;
}

/// `t` in `dtype`, checked to hold integers from 0 to `last`.
Tensor integers(Context& ctx, const std::string& name, const Tensor& t, DType dtype, double last) {
  for (double v : finite_values(ctx, name, t))
    if (v < 0 || v > last || v != std::floor(v))
      fail("verify", "'{}' holds {}, expected integers from 0 to {}", name, v, last);
  Tensor out = ctx.host().empty(t.shape(), dtype);
  kernels::cast(ctx.host(), t, out);
  return out;
}

void require_rank(const std::string& name, const Tensor& t, int rank) {
  if (t.rank() != rank) fail("verify", "'{}' has shape {}, expected {} axes", name, t.shape(), rank);
}

}  // namespace

std::vector<double> values(Context& ctx, const Tensor& t) {
  Context& host = ctx.host();
  Tensor wide = host.empty(t.shape(), DType::f64);
  kernels::cast(host, host.here(t), wide);
  return {wide.data<double>(), wide.data<double>() + wide.numel()};
}

double number(const Safetensors& file, const std::string& key, double otherwise) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end() || it->second == "None" || it->second == "null") return otherwise;
  const char *begin = it->second.data(), *end = begin + it->second.size();
  double value = -1;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value) || value < 0)
    fail("verify", "metadata '{}' is '{}', expected a number, zero or positive and finite", key, it->second);
  return value;
}

double tolerance(const Safetensors& file, const std::string& noise, bool float32) {
  const double limit = 100 * std::max(number(file, noise, 0), number(file, "sensitivity", 0));
  if (limit >= 1)
    fail("verify", "metadata '{}' or 'sensitivity' allows an error of {:.1e}, no comparison", noise, limit);
  return std::max(float32 ? 1e-4 : 1e-9, limit);
}

Json config_of(const Safetensors& file) {
  const auto it = file.metadata().find("config");
  if (it == file.metadata().end()) {
    const auto network = file.metadata().find("network");
    if (network != file.metadata().end())
      throw NotThere(fmt::format("the network '{}' is not in this version", network->second));
    throw NotAModel("it has no 'config' in its metadata");
  }
  const auto is_parameter = [](const std::string& name) { return name.starts_with("param/"); };
  if (std::none_of(file.names().begin(), file.names().end(), is_parameter))
    throw NotAModel("it has no parameters, 'param/…'");
  const Json json = parse(it->second);
  require_table(json, "it");
  const std::string type = text_at(json, "/exp_type");
  if (type != "toptagging" && type != "jctagging" && type != "toptagxl" && type != "toptaggingft")
    throw NotThere(fmt::format("the experiment '{}' is not in this version", type));
  Json config = reference_config(json);
  require_table(config["model"], "model");
  text_at(config, "/model/net/type");
  require_sizes(config["model"]["net"], file);
  if (config["model"].contains("framesnet")) text_at(config, "/model/framesnet/type");
  return config;
}

JetSet jets_of(Context& ctx, const Safetensors& file, int64_t classes) {
  JetSet jets;
  jets.fourmomenta = file.load(ctx, "in/fourmomenta");
  require_rank("in/fourmomenta", jets.fourmomenta, 2);
  finite_values(ctx, "in/fourmomenta", jets.fourmomenta);
  if (file.has("in/scalars")) {
    jets.scalars = file.load(ctx, "in/scalars");
    require_rank("in/scalars", jets.scalars, 2);
    finite_values(ctx, "in/scalars", jets.scalars);
  } else {
    jets.scalars = ctx.host().zeros({jets.fourmomenta.dim(0), 0}, DType::f64);
  }
  const Tensor ptr = file.load(ctx, "in/ptr");
  if (ptr.dtype() != DType::i32 && ptr.dtype() != DType::i64)
    fail("verify", "'in/ptr' has elements of type {}, expected i32 or i64", ptr.dtype());
  require_rank("in/ptr", ptr, 1);
  jets.ptr = integers(ctx, "in/ptr", ptr, DType::i32, std::numeric_limits<int32_t>::max());
  const std::string label = file.has("in/label") || !file.has("in/labels") ? "in/label" : "in/labels";
  jets.labels = integers(ctx, label, file.load(ctx, label), DType::i64, static_cast<double>(classes - 1));
  return jets;
}

}  // namespace lightcone
