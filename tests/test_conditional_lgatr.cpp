#include <doctest/doctest.h>

#include <map>

#include "autograd/geometric_algebra.h"
#include "engine/safetensors.h"
#include "models/lgatr.h"
#include "tests/support/multivectors.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

LGATrConfig small(int64_t blocks, bool multi_query) {
  LGATrConfig c;
  c.in_mv_channels = 2, c.in_s_channels = 3, c.out_mv_channels = 1, c.out_s_channels = 2;
  c.hidden_mv_channels = 2, c.hidden_s_channels = 4, c.num_blocks = blocks;
  c.attention = {.num_heads = 2, .multi_query = multi_query};
  c.mlp.increase_hidden_channels = 2;
  return c;
}

LGATrAttentionConfig cross(bool multi_query) {
  return {.num_heads = 2, .multi_query = multi_query, .increase_hidden_channels = 2, .head_scale = true};
}

}  // namespace

// The files: numbers of lgatr 1.4.4 for 3, 1 and 4 tokens with 2, 5 and 1 of a condition.
TEST_CASE("conditional lgatr: the network is that of lgatr, with and without checkpoints") {
  for (bool multi_query : {false, true})
    for (bool checkpointed : {false, true}) {
      CAPTURE(multi_query);
      CAPTURE(checkpointed);
      Context ctx(1);
      const Safetensors file(std::string(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/conditional_lgatr") +
                             (multi_query ? "_multiquery" : "") + ".safetensors");
      LGATrConfig c = small(multi_query ? 1 : 2, multi_query);
      c.checkpoint_blocks = checkpointed;
      ConditionalLGATr net(ctx, c, cross(multi_query), {3, 2}, DType::f64);
      net.load_state_dict(ctx, [&](const std::string& name) {
        return file.has("param/" + name) ? file.load(ctx, "param/" + name) : Tensor();
      });
      auto multivectors = [&](const std::string& name) {
        return to_tensor(ctx, channel_last(to_array(file.load(ctx, name))), DType::f64);
      };
      Tape tape(ctx);
      std::map<std::string, Var> in;
      for (const char* name : {"mv", "condition_mv"}) in[name] = tape.variable(multivectors(name));
      for (const char* name : {"s", "condition_s"}) in[name] = tape.variable(file.load(ctx, name));
      auto embedded = [&](const char* name) { return embed(in[name], Blades::multivector); };
      const Tensor ptr = ctx.of({4}, DType::i32, std::vector<double>{0, 3, 4, 8}),
                   condition_ptr = ctx.of({4}, DType::i32, std::vector<double>{0, 2, 7, 8});
      const Multivectors y =
          net({embedded("mv"), in["s"]}, ptr, {embedded("condition_mv"), in["condition_s"]}, condition_ptr);
      const Var out = extract(y.mv, Blades::multivector);
      auto near = [](const Tensor& a, const Tensor& b) { return relative_error(to_array(a), to_array(b)) < 1e-11; };
      CHECK(near(out.value(), multivectors("out_mv")));
      CHECK(near(y.s.value(), file.load(ctx, "out_s")));
      tape.backward({out, y.s}, {multivectors("grad_out_mv"), file.load(ctx, "grad_out_s")});
      for (const char* name : {"mv", "condition_mv"})
        CHECK(near(tape.gradient(in[name]), multivectors(std::string("grad/") + name)));
      for (const char* name : {"s", "condition_s"})
        CHECK(near(tape.gradient(in[name]), file.load(ctx, std::string("grad/") + name)));
      for (const auto& [name, p] : net.parameters()) {
        INFO(name);
        REQUIRE(p->grad.defined());
        CHECK(near(gather_rows(ctx, p->grad, p->rows), file.load(ctx, "grad/param/" + name)));
      }
    }
}

TEST_CASE("conditional lgatr: refuses a condition without channels, and options that cannot be") {
  Context ctx;
  CHECK_THROWS_WITH_AS(
      ConditionalLGATr(ctx, small(1, false), cross(false), {0, 2}, DType::f32),
      "ConditionalLGATr: the condition has 0 multivector and 2 scalar channels, expected 1 or more of both", Error);
  LGATrAttentionConfig none = cross(false);
  none.num_heads = 0;
  CHECK_THROWS_WITH_AS(ConditionalLGATr(ctx, small(1, false), none, {3, 2}, DType::f32),
                       "LGATr: crossattention.num_heads is 0, expected a number from 1 to 1000", Error);
}
