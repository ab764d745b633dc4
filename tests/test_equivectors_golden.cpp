// Vectors of L-GATr and of PELICAN against numbers of the reference, whose mistakes are switched on for that.
#include <doctest/doctest.h>

#include "engine/safetensors.h"
#include "models/lgatr_vectors.h"
#include "models/pelican_vectors.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

void check_reference(Context& ctx, Equivectors& network, const std::string& name) {
  CAPTURE(name);
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/predictors.safetensors");
  auto read = [&](const std::string& entry) { return file.load(ctx, name + "/" + entry); };
  network.load_state_dict(
      ctx, [&](const std::string& p) { return file.has(name + "/param/" + p) ? read("param/" + p) : Tensor(); });
  Tape tape(ctx);
  const Var p = tape.variable(file.load(ctx, "in/fourmomenta")), s = tape.variable(file.load(ctx, "in/scalars"));
  const Array offsets = to_array(file.load(ctx, "in/ptr"));
  const Tensor ptr = ctx.of({offsets.shape[0]}, DType::i32, offsets.values);
  const Var y = network(p, s, ptr);
  auto error = [](const Tensor& a, const Tensor& b) {
    Array ours = to_array(a);
    const Array theirs = to_array(b);
    ours.shape = theirs.shape;
    return relative_error(ours, theirs);
  };
  CHECK(error(y.value(), read("vectors")) < 1e-9);
  tape.backward(y, read("grad_out").reshape(y.shape()));
  CHECK(error(tape.gradient(p), read("grad/fourmomenta")) < 1e-8);
  if (file.has(name + "/grad/scalars")) CHECK(error(tape.gradient(s), read("grad/scalars")) < 1e-8);
  int64_t compared = 0;
  for (const auto& [parameter, item] : network.parameters()) {
    INFO(parameter);
    if (!file.has(name + "/grad/param/" + parameter)) continue;
    const Tensor theirs = read("grad/param/" + parameter);
    double largest = 0;
    for (double v : to_array(theirs).values) largest = std::max(largest, std::abs(v));
    if (largest < 1e-12) continue;  // rounding of a gradient that is 0
    REQUIRE(item->grad.defined());
    CHECK(error(gather_rows(ctx, item->grad, item->rows), theirs) < 1e-8);
    ++compared;
  }
  CHECK(compared > 10);
}

}  // namespace

TEST_CASE("equivectors: L-GATr's are those of lloca") {
  for (bool norm : {false, true}) {
    Context ctx(1);
    LgatrVectors network(ctx,
                         {{"type", "LGATrVectors"},
                          {"lgatr_norm", norm},
                          {"layer_norm", !norm},
                          {"hidden_mv_channels", 1},
                          {"hidden_s_channels", 1},
                          {"net", {{"hidden_mv_channels", 2}, {"hidden_s_channels", 4}, {"num_blocks", 1}}}},
                         2, 3, DType::f64, true);
    check_reference(ctx, network, norm ? "equilgatr/norm1_ln0" : "equilgatr/norm0_ln1");
  }
}

TEST_CASE("equivectors: PELICAN's are those of lloca") {
  for (bool factorise : {false, true}) {
    Context ctx(1);
    PelicanVectors network(
        ctx,
        {{"type", "PELICANVectors"},
         {"net",
          {{"num_blocks", 1}, {"hidden_channels", 4}, {"increase_hidden_channels", 0.5}, {"factorize", factorise}}}},
        3, 3, DType::f64, true);
    check_reference(ctx, network, factorise ? "equipelican/factorize1" : "equipelican/factorize0");
  }
}
