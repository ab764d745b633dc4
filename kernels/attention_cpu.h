#pragma once
#include "kernels/attention_plan.h"

namespace lightcone::kernels::cpu {

/// What attention.h defines, on the CPU, for operands that its front door has checked.
void attention(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments, double scale,
               const AttentionDropout& dropout, Tensor& lse, Products products);
void attention_backward(Context& ctx, const Plan& plan, std::span<const AttentionSegment> segments,
                        std::span<const AttentionGradient> gradients, double scale, const AttentionDropout& dropout,
                        const Tensor& lse, Products products);

}  // namespace lightcone::kernels::cpu
