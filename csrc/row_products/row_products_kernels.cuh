// Products of all rows of two matrices, and squared lengths, on CUDA.
//
// In / out     Row-major matrices -> scores [left.count, right.count], or sums of squares in
//              double.
// Memory       A block reads (kTile + kTile) rows once for kTile * kTile products.
// Numerics     Those of row_products.h: every sum is the chain of the CPU kernel, equal to it in
//              all bits.
//
// No launch and no library call is made here: tests/csrc compiles this file for CPU threads, too.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/block.cuh"
#include "row_products/row_products.h"

namespace zsbir::row_products {

// A square of products, kPerThread x kPerThread of them in the registers of each thread. The width
// goes through shared memory in chunks. The rows of a thread stand in groups of four, which one
// load of 16 bytes takes; neighbouring threads read neighbouring groups.
template <class T, int32_t kSide>
struct ProductTile {
  static constexpr int32_t kPerThread = sizeof(T) == 8 ? 4 : 8;
  static constexpr int32_t kTile = kPerThread * kSide, kThreads = kSide * kSide;
  static constexpr int32_t kChunk = 16;

  struct Shared {
    T left[kChunk][kTile + 4], right[kChunk][kTile + 4];  // + 4: keeps 16 bytes, spreads banks
  };

  T sum[kPerThread][kPerThread];

  // The row of the tile that is the i-th of a thread in this lane.
  static __device__ __forceinline__ int32_t place(int32_t lane, int32_t i) {
    return i / 4 * (4 * kSide) + lane * 4 + i % 4;
  }
  static __device__ __forceinline__ int32_t row(int32_t i) { return place(threadIdx.x / kSide, i); }
  static __device__ __forceinline__ int32_t column(int32_t i) {
    return place(threadIdx.x % kSide, i);
  }

  __device__ void compute(Shared& shared, const Rows<T>& left, int64_t first_row,
                          const Rows<T>& right, int64_t first_column) {
    for (int32_t i = 0; i < kPerThread; ++i) {
      for (int32_t j = 0; j < kPerThread; ++j) sum[i][j] = 0;
    }
    for (int64_t from = 0; from < left.width; from += kChunk) {
      load(shared.left, left, first_row, from);
      load(shared.right, right, first_column, from);
      __syncthreads();  // both chunks are complete before any thread reads them
      // Beyond the width nothing is added: 0 * x would make NaN of an infinite x.
      const int32_t depth = int32_t(min(int64_t(kChunk), left.width - from));
      for (int32_t d = 0; d < depth; ++d) {
        T x[kPerThread], y[kPerThread];
#pragma unroll
        for (int32_t i = 0; i < kPerThread; ++i) {
          x[i] = shared.left[d][row(i)];
          y[i] = shared.right[d][column(i)];
        }
#pragma unroll
        for (int32_t i = 0; i < kPerThread; ++i) {
#pragma unroll
          for (int32_t j = 0; j < kPerThread; ++j) sum[i][j] = fma(x[i], y[j], sum[i][j]);
        }
      }
      __syncthreads();  // all have read the chunks before the next ones replace them
    }
  }

 private:
  static __device__ void load(T (&to)[kChunk][kTile + 4], const Rows<T>& rows, int64_t first,
                              int64_t from) {
    for (int32_t i = threadIdx.x; i < kTile * kChunk; i += kThreads) {
      const int32_t r = i / kChunk, d = i % kChunk;
      const bool inside = first + r < rows.count && from + d < rows.width;
      to[d][r] = inside ? rows.data[(first + r) * rows.stride + from + d] : T(0);
    }
  }
};

// The grid is (tiles of right, tiles of left).
template <class T, int32_t kSide>
__global__ void __launch_bounds__(kSide* kSide)
    row_products_kernel(Rows<T> left, Rows<T> right, Scoring<T> scoring, T* out,
                        int64_t row_stride) {
  using Tile = ProductTile<T, kSide>;
  __shared__ typename Tile::Shared shared;
  const int64_t first_row = int64_t(blockIdx.y) * Tile::kTile;
  const int64_t first_column = int64_t(blockIdx.x) * Tile::kTile;
  Tile tile;
  tile.compute(shared, left, first_row, right, first_column);
#pragma unroll
  for (int32_t j = 0; j < Tile::kPerThread; ++j) {
    const int64_t c = first_column + Tile::column(j);
    if (c >= right.count) continue;
    const T scale = scoring.scale ? scoring.scale[c] : T(1);
    const T offset = scoring.offset ? scoring.offset[c] : T(0);
#pragma unroll
    for (int32_t i = 0; i < Tile::kPerThread; ++i) {
      const int64_t r = first_row + Tile::row(i);
      if (r < left.count) out[r * row_stride + c] = fma(tile.sum[i][j], scale, offset);
    }
  }
}

// Half a warp takes a row, and each of its lanes a chain.
template <class T>
__global__ void row_squares_kernel(Rows<T> rows, double* out) {
  static_assert(2 * kSquareLanes == kWarp);
  const int64_t r = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kSquareLanes;
  const int32_t lane = threadIdx.x % kSquareLanes;
  double sum = 0;
  if (r < rows.count) {  // the other half of the warp takes part in the shuffles
    const T* row = rows.data + r * rows.stride;
    for (int64_t d = lane; d < rows.width; d += kSquareLanes)
      sum += double(row[d]) * double(row[d]);
  }
  for (int32_t step = kSquareLanes / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(kFullWarp, sum, step);
  }
  if (r < rows.count && lane == 0) out[r] = sum;
}

}  // namespace zsbir::row_products
