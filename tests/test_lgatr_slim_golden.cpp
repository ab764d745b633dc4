// L-GATr-slim against numbers of the package lgatr.
#include "models/lgatr_slim.h"

#include <doctest/doctest.h>

#include <numeric>

#include "autograd/attention.h"
#include "autograd/gated_unit.h"
#include "autograd/heads_projection.h"
#include "autograd/loss.h"
#include "autograd/matmul.h"
#include "engine/safetensors.h"
#include "models/lgatr_slim_tagger.h"
#include "tests/support/amp.h"
#include "tests/support/lorentz.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

Safetensors golden(const char* name) {
  return Safetensors(std::filesystem::path(LIGHTCONE_SOURCE_DIR) / "tests/golden/frames" / name);
}

/// Vectors [1, T, C, 4] of the file as [T, 4, C].
Tensor vectors(Context& ctx, const Safetensors& file, const std::string& name) {
  Array a = to_array(file.load(ctx, name));
  a.shape = {a.shape[1], a.shape[2], 4};
  return to_tensor(ctx, components_last(a), DType::f64);
}
/// Scalars [1, T, C] of the file as [T, C].
Tensor scalars(Context& ctx, const Safetensors& file, const std::string& name) {
  const Tensor t = file.load(ctx, name);
  return t.reshape({t.dim(1), t.dim(2)});
}

void load(Context& ctx, Module& module, const Safetensors& file, const std::string& prefix) {
  module.load_state_dict(
      ctx, [&](const std::string& name) { return file.has(prefix + name) ? file.load(ctx, prefix + name) : Tensor(); });
}

void check_near(const Tensor& ours, const Tensor& theirs, const std::string& what) {
  INFO(what);
  CHECK(relative_error(to_array(ours), to_array(theirs)) < 1e-12);
}

/// One layer of the file: its result, and the gradients of inputs and parameters.
struct Layer {
  Context ctx{1};
  Tape tape{ctx};
  Safetensors file = golden("slim.safetensors");
  std::string name;
  LorentzVar x;
  explicit Layer(std::string name)
      : name(std::move(name)), x{tape.variable(vectors(ctx, file, "v")), tape.variable(scalars(ctx, file, "s"))} {}
  Tensor ptr() { return ctx.of({3}, DType::i32, std::vector<double>{0, 4, 6}); }

  void check(const LorentzVar& y, std::initializer_list<Module*> modules, const std::string& of_module = "") {
    check_near(y.vectors.value(), vectors(ctx, file, name + "/out_v"), name);
    check_near(y.scalars.value(), scalars(ctx, file, name + "/out_s"), name);
    tape.backward({y.vectors, y.scalars},
                  {vectors(ctx, file, name + "/grad_out_v"), scalars(ctx, file, name + "/grad_out_s")});
    check_near(tape.gradient(x.vectors), vectors(ctx, file, name + "/grad/v"), name + " dv");
    check_near(tape.gradient(x.scalars), scalars(ctx, file, name + "/grad/s"), name + " ds");
    for (Module* m : modules)
      for (const auto& [p, item] : m->parameters()) {
        REQUIRE(item->grad.defined());
        check_near(gather_rows(ctx, item->grad, item->rows), file.load(ctx, name + "/grad/param/" + of_module + p), p);
      }
  }
};

slim::BlockOptions block_options(int64_t attn_ratio) {
  return {.channels = {3, 5},
          .num_heads = 2,
          .mlp_ratio = 2,
          .attn_ratio = attn_ratio,
          .num_layers_mlp = 2,
          .nonlinearity = Unary::gelu,
          .dropout_prob = {}};
}

}  // namespace

TEST_CASE("slim: norm, linear map and gated unit are those of lgatr") {
  Layer norm("rmsnorm");
  norm.check(lorentz_norm(norm.x, slim::norm_eps), {});
  Layer linear("linear");
  slim::Linear map(linear.ctx, {3, 5}, {2, 4}, DType::f64);
  load(linear.ctx, map, linear.file, "linear/param/");
  linear.check(map(linear.x), {&map});
  for (const char* f : {"gelu", "silu"}) {
    Layer unit(std::string("glu_") + f);
    slim::Linear up(unit.ctx, {3, 5}, {6, 8}, DType::f64);
    load(unit.ctx, up, unit.file, unit.name + "/param/linear.");
    const LorentzVar h = up(unit.x);
    const Unary function = slim::nonlinearity(f);
    unit.check({gated_unit(h.vectors, function), gated_unit(h.scalars, function)}, {&up}, "linear.");
  }
}

TEST_CASE("slim: a block is that of lgatr") {
  Layer layer("block");
  slim::SelfAttention attention(layer.ctx, block_options(1), DType::f64);
  slim::Mlp mlp(layer.ctx, block_options(1), DType::f64);
  load(layer.ctx, attention, layer.file, "block/param/attention.");
  load(layer.ctx, mlp, layer.file, "block/param/mlp.");
  layer.check(mlp(attention(layer.x, layer.ptr()), true), {&attention}, "attention.");
  for (const auto& [p, item] : mlp.parameters())
    check_near(item->grad, layer.file.load(layer.ctx, "block/grad/param/mlp." + p), p);
}

TEST_CASE("slim: attention and perceptrons of lgatr, which leave the norm and the residual to the block") {
  Layer layer("attention");
  const slim::BlockOptions o = block_options(2);
  slim::SelfAttention attention(layer.ctx, o, DType::f64);
  load(layer.ctx, attention, layer.file, "attention/param/");
  std::map<std::string, Parameter*> p;
  for (const auto& [name, item] : attention.parameters()) p[name] = item;
  auto parameter = [&](const std::string& name) { return layer.tape.parameter(*p.at(name)); };
  auto weights = [&](const std::string& map) {
    return ProjectionWeights{parameter(map + ".weight_v"), parameter(map + ".linear_s.weight"),
                             parameter(map + ".linear_s.bias")};
  };
  const Var qkv = project_to_heads(layer.x, weights("linear_in"),
                                   {.groups = {.count = 6, .lowered_begin = 2, .lowered_end = 4}, .normalise = false});
  const Var y = lightcone::attention({{qkv, Layout::heads}}, layer.ptr(), {.heads = 2})[0];
  layer.check(project_from_heads(y, weights("linear_out"), LorentzVar{}), {&attention});

  for (const char* name : {"mlp", "mlp3"}) {
    Layer layer(name);
    const bool deep = std::string(name) == "mlp3";
    std::vector<std::unique_ptr<slim::Linear>> maps;
    LorentzVar h = layer.x;
    const int64_t hidden = deep ? 1 : 2;
    for (int i = 0; i < (deep ? 2 : 1); ++i) {
      const slim::Channels in = i == 0 ? slim::Channels{3, 5} : slim::Channels{3 * hidden, 5 * hidden};
      maps.push_back(
          std::make_unique<slim::Linear>(layer.ctx, in, slim::Channels{9 * hidden, 10 * hidden}, DType::f64));
      load(layer.ctx, *maps.back(), layer.file, fmt::format("{}/param/layers.{}.linear.", name, i));
      h = (*maps.back())(h);
      h = {gated_unit(h.vectors, Unary::gelu), gated_unit(h.scalars, Unary::gelu)};
    }
    slim::Linear last(layer.ctx, {3 * hidden, 5 * hidden}, {3, 5}, DType::f64);
    load(layer.ctx, last, layer.file, fmt::format("{}/param/layers.{}.", name, maps.size()));
    layer.check(last(h), {&last}, fmt::format("layers.{}.", maps.size()));
  }
}

TEST_CASE("slim: the conditional network is that of lgatr, with and without checkpoints") {
  for (bool checkpointed : {false, true}) {
    Context ctx(1);
    const Safetensors file = golden("conditional_slim.safetensors");
    LGATrSlimConfig c;
    c.in_v_channels = 2, c.in_s_channels = 3, c.out_v_channels = 1, c.out_s_channels = 2;
    c.hidden_v_channels = 4, c.hidden_s_channels = 8, c.num_blocks = 2, c.num_heads = 2;
    c.checkpoint_blocks = checkpointed;
    ConditionalLGATrSlim net(ctx, c, {3, 2}, DType::f64);
    load(ctx, net, file, "param/");
    Tape tape(ctx);
    std::map<std::string, Var> in;
    for (const char* name : {"v", "condition_v"}) in[name] = tape.variable(vectors(ctx, file, name));
    for (const char* name : {"s", "condition_s"}) in[name] = tape.variable(scalars(ctx, file, name));
    const Tensor ptr = ctx.of({4}, DType::i32, std::vector<double>{0, 3, 4, 8}),
                 condition_ptr = ctx.of({4}, DType::i32, std::vector<double>{0, 2, 7, 8});
    const LorentzVar y = net({in["v"], in["s"]}, ptr, {in["condition_v"], in["condition_s"]}, condition_ptr);
    check_near(y.vectors.value(), vectors(ctx, file, "out_v"), "vectors");
    check_near(y.scalars.value(), scalars(ctx, file, "out_s"), "scalars");
    tape.backward({y.vectors, y.scalars}, {vectors(ctx, file, "grad_out_v"), scalars(ctx, file, "grad_out_s")});
    for (const char* name : {"v", "condition_v"})
      check_near(tape.gradient(in[name]), vectors(ctx, file, std::string("grad/") + name), name);
    for (const char* name : {"s", "condition_s"})
      check_near(tape.gradient(in[name]), scalars(ctx, file, std::string("grad/") + name), name);
    for (const auto& [name, p] : net.parameters()) {
      INFO(name);
      REQUIRE(p->grad.defined());
      CHECK(largest_difference(gather_rows(ctx, p->grad, p->rows), file.load(ctx, "grad/param/" + name)) < 1e-11);
    }
  }
}
