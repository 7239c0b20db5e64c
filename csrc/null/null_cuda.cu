// The launcher of null on CUDA: the grid for this problem, nothing else.
#include <cstdint>

#include "common/cuda_guard.h"
#include "null/null.h"
#include "null/null_kernels.cuh"

namespace zsbir::null {

template <class T>
void null_cuda(Rows<T> rows, T* out, int device, void* stream) {
  constexpr int64_t threads = 256;
  const int64_t elements = rows.count * rows.width;
  if (elements == 0) return;
  const dim3 grid(unsigned((elements + threads - 1) / threads));
  const DeviceGuard guard(device);
  launch(guard, "null_kernel", null_kernel<T>, grid, threads, 0, stream, rows, out);
}

template void null_cuda<float>(Rows<float>, float*, int, void*);
template void null_cuda<double>(Rows<double>, double*, int, void*);

}  // namespace zsbir::null
