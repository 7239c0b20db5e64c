// The CUDA kernels of the room, run by cuda_emulation.h, as device.h runs them on a GPU. Tiles are
// small, so that tests see several of them.
#pragma once
#include "cuda_emulation.h"
// After it, because it says what __global__ is:
#include "row_products/row_products_kernels.cuh"

namespace kernels {

using namespace zsbir::row_products;

constexpr int32_t kSide = 8, kThreads = 64;

inline unsigned blocks(int64_t items, int64_t per_block) {
  return unsigned((items + per_block - 1) / per_block);
}

template <class T>
void row_products(Rows<T> left, Rows<T> right, const Scoring<T>& scoring, T* out,
                  int64_t row_stride) {
  constexpr int64_t tile = ProductTile<T, kSide>::kTile;
  if (left.count == 0 || right.count == 0) return;
  emulation::launch(row_products_kernel<T, kSide>,
                    {blocks(right.count, tile), blocks(left.count, tile)}, kSide * kSide, 0, left,
                    right, scoring, out, row_stride);
}

template <class T>
void row_squares(Rows<T> rows, double* out) {
  if (rows.count == 0) return;
  emulation::launch(row_squares_kernel<T>, {blocks(rows.count * kSquareLanes, kThreads)}, kThreads,
                    0, rows, out);
}

}  // namespace kernels
