// The CUDA kernel of the room, run by cuda_emulation.h: what device.h does on a GPU.
#pragma once
#include "cuda_emulation.h"
// After it, because it says what __global__ is:
#include "null/null_kernels.cuh"

namespace kernels {

using namespace zsbir::null;

template <class T>
void null(Rows<T> rows, T* out) {
  constexpr int64_t threads = 32;  // small, so that tests see several blocks
  const int64_t elements = rows.count * rows.width;
  if (elements == 0) return;
  emulation::launch(null_kernel<T>, {unsigned((elements + threads - 1) / threads)}, threads, 0,
                    rows, out);
}

}  // namespace kernels
