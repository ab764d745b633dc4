#pragma once
#include "kernels/attention.h"

namespace lightcone::kernels::cuda {

/// What attention.h defines, on a GPU, for operands that its front door has checked.
void attention(Context& ctx, std::span<const AttentionSegment> segments, const Tensor& q_ptr, const Tensor& k_ptr,
               double scale, const AttentionDropout& dropout, Tensor& lse, Products products);
void attention_backward(Context& ctx, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, const Tensor& q_ptr, const Tensor& k_ptr,
                        double scale, const AttentionDropout& dropout, const Tensor& lse, Products products);

}  // namespace lightcone::kernels::cuda
