#include "kernels/edge_vectors.h"
#include "tests/counters/counts.h"
#include "tests/counters/jets.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(JetOperands, "counters: edge_vectors never stores a pair") {
  const int64_t H = 16, n = 3;
  const Tensor p = to_tensor(ctx, momenta(T, 1, 1), DType::f32);
  const kernels::EdgeMlp mlp{normal({T, H}, DType::f32),
                             normal({T, H}, DType::f32),
                             normal({H}, DType::f32),
                             {normal({H, H}, DType::f32), normal({n, H}, DType::f32)},
                             {normal({H}, DType::f32), normal({n}, DType::f32)}};
  Tensor vectors = empty({T, n, 4}, DType::f32), lse = empty({T, n}, DType::f32), norm = empty({T}, DType::f64);
  // A tile of receivers reads all senders of its jet again, and does hundreds of operations with each number of them.
  check_traffic(ctx, {"edge_vectors",
                      [&] { kernels::edge_vectors(ctx, p, ptr, mlp, {.edge_mean = 5}, {}, vectors, lse, norm); },
                      {p, mlp.receiver, mlp.sender, vectors, lse, norm},
                      1.5,
                      16});
}
