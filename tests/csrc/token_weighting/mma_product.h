// One product of tiles by mma_tiles, its registers filled by the layout that common/mma.cuh
// documents and by nothing cleverer: shows that the layout is right, in emulation and on a GPU.
#pragma once
#include <cstdint>

#include "common/mma.cuh"

namespace kernels {

constexpr int32_t kProductM = 2, kProductN = 3, kProductK = 2;  // tiles of 16, 8 and 16

// a [32, 32] by row, b [32, 24] by row, sum [32, 24] += a b. One warp.
template <class S>
__global__ void mma_product_kernel(const S* a, const S* b, float* sum) {
  constexpr int32_t M = kProductM, N = kProductN, K = kProductK, columns = 8 * N, depth = 16 * K;
  const int32_t g = int32_t(threadIdx.x) / 4, t = int32_t(threadIdx.x) % 4;
  uint32_t x[K][M][4], y[K][N][2];
  float out[M][N][4];
  const auto both = [](S low, S high) { return uint32_t(low.bits) | uint32_t(high.bits) << 16; };
  for (int32_t k = 0; k < K; ++k) {
    for (int32_t m = 0; m < M; ++m) {
      for (int32_t i = 0; i < 4; ++i) {
        const S* from = a + (16 * m + g + i % 2 * 8) * depth + 16 * k + 2 * t + i / 2 * 8;
        x[k][m][i] = both(from[0], from[1]);
      }
    }
    for (int32_t n = 0; n < N; ++n) {
      for (int32_t i = 0; i < 2; ++i) {
        const S* from = b + (16 * k + 2 * t + 8 * i) * columns + 8 * n + g;
        y[k][n][i] = both(from[0], from[columns]);
      }
    }
  }
  const auto at = [&](int32_t m, int32_t n, int32_t i) -> float& {
    return sum[(16 * m + g + i / 2 * 8) * columns + 8 * n + 2 * t + i % 2];
  };
  for (int32_t i = 0; i < M * N * 4; ++i)
    out[i / 4 / N][i / 4 % N][i % 4] = at(i / 4 / N, i / 4 % N, i % 4);
  zsbir::mma_tiles<S>(out, x, y);
  for (int32_t i = 0; i < M * N * 4; ++i)
    at(i / 4 / N, i / 4 % N, i % 4) = out[i / 4 / N][i / 4 % N][i % 4];
}

}  // namespace kernels
