// Launchers of row_products on CUDA: they choose grids for this problem.
#include <algorithm>
#include <cstdint>

#include "common/cuda_guard.h"
#include "row_products/row_products.h"
#include "row_products/row_products_kernels.cuh"

namespace zsbir::row_products {

namespace {

constexpr int32_t kSide = 16;  // 256 threads; tiles of 128 x 128 products, in double 64 x 64
constexpr int32_t kSquareThreads = 128;
constexpr int64_t kMaxGridY = 65535;  // hardware limit

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

template <class T>
void row_products_cuda(Rows<T> left, Rows<T> right, const Scoring<T>& scoring, T* out,
                       int64_t row_stride, int device, void* stream) {
  if (left.count == 0 || right.count == 0) return;
  constexpr int64_t tile = ProductTile<T, kSide>::kTile;
  const DeviceGuard guard(device);
  for (int64_t begin = 0; begin < left.count; begin += kMaxGridY * tile) {
    const int64_t rows = std::min(left.count - begin, kMaxGridY * tile);
    const dim3 grid(unsigned(ceil_div(right.count, tile)), unsigned(ceil_div(rows, tile)));
    const Rows<T> own{left.data + begin * left.stride, rows, left.width, left.stride};
    launch(guard, "row_products_kernel", row_products_kernel<T, kSide>, grid, kSide * kSide, 0,
           stream, own, right, scoring, out + begin * row_stride, row_stride);
  }
}

template <class T>
void row_squares_cuda(Rows<T> rows, double* out, int device, void* stream) {
  if (rows.count == 0) return;
  const dim3 grid(unsigned(ceil_div(rows.count * kSquareLanes, kSquareThreads)));
  launch(DeviceGuard(device), "row_squares_kernel", row_squares_kernel<T>, grid, kSquareThreads, 0,
         stream, rows, out);
}

#define ZSBIR_INSTANTIATE(T)                                                                \
  template void row_products_cuda<T>(Rows<T>, Rows<T>, const Scoring<T>&, T*, int64_t, int, \
                                     void*);                                                \
  template void row_squares_cuda<T>(Rows<T>, double*, int, void*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::row_products
