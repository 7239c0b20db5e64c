// The copy on CUDA.
//
// Inputs and outputs: null.h. Algorithm: a copy; there is no source.
// Work: none but the copy. Traffic: every element is read once and written once.
// Mapping: a thread for each element. Numerics: none. Determinism: no two threads write to the same
// element. Limits: 2^31 - 1 blocks. No launch and no library call here: tests/csrc compiles this
// file for CPU threads, too.
#pragma once
#include <cstdint>

#include "null/null.h"

namespace zsbir::null {

template <class T>
__global__ void null_kernel(Rows<T> rows, T* out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < rows.count * rows.width) out[i] = rows.data[i];
}

}  // namespace zsbir::null
