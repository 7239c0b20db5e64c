// Launchers of the tensor-core kernels, for the launchers of the room. They return false, and
// launch nothing, where the shape, the device, or the architecture that the kernels were compiled
// for does not allow them.
#pragma once
#include "common/cuda_guard.h"
#include "token_weighting/token_weighting.h"

namespace zsbir::token_weighting {

template <class S>
bool forward_mma(const DeviceGuard& device, const Problem<S>& problem, const Forward<float>& out,
                 void* stream);
template <class S>
bool words_mma(const DeviceGuard& device, const Problem<S>& problem, const Backward<S>& gradients,
               void* stream);
template <class S>
bool patches_mma(const DeviceGuard& device, const Problem<S>& problem, const Backward<S>& gradients,
                 void* stream);

}  // namespace zsbir::token_weighting
