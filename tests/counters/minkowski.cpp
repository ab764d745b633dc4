#include "kernels/minkowski.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: kinematics reads and writes every momentum once") {
  const int64_t T = 2000;
  for (DType dtype : {DType::f64, DType::f32}) {
    INFO(fmt::format("{}", dtype));
    const Tensor p = normal({T, 4}, dtype), q = normal({T, 4}, dtype), d = normal({T}, dtype),
                 L = normal({T, 4, 4}, dtype), v = normal({T, 3, 4}, dtype), w = normal({T, 3, 4}, dtype);
    Tensor y = ctx.empty({T}, dtype), dp = ctx.empty({T, 4}, dtype), dL = ctx.empty({T, 4, 4}, dtype),
           dv = ctx.empty({T, 3, 4}, dtype);
    const auto eta = kernels::Kinematic::eta;
    const Kernel all[] = {
        {"inner", [&] { kernels::minkowski_inner(ctx, p, q, y); }, {p, q, y}},
        {"inner backward", [&] { kernels::minkowski_inner_backward(ctx, d, q, dp); }, {d, q, dp}},
        {"eta", [&] { kernels::kinematic(ctx, eta, p, y); }, {p, y}},
        {"eta backward", [&] { kernels::kinematic_backward(ctx, eta, d, p, dp); }, {d, p, dp}},
        {"boost", [&] { kernels::restframe_boost(ctx, p, dL); }, {p, dL}},
        {"boost backward", [&] { kernels::restframe_boost_backward(ctx, L, p, dp); }, {L, p, dp}},
        {"transform", [&] { kernels::lorentz_transform(ctx, L, v, dv); }, {L, v, dv}},
        {"to vectors", [&] { kernels::lorentz_transform_backward_vectors(ctx, w, L, dv); }, {w, L, dv}},
        {"to matrices", [&] { kernels::lorentz_transform_backward_matrices(ctx, w, v, dL); }, {w, v, dL}},
    };
    for (const Kernel& k : all) check_traffic(ctx, k);
  }
}
