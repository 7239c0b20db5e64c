// Tensor cores on the CPU: mma_tiles (common/mma.cuh) for the warps of cuda_emulation.h. Lanes show
// each other their registers at the warp's barrier, and each sums up its own four elements of every
// tile by the documented layout.
#pragma once
#include "cuda_emulation.h"
// After it, because it says what __device__ is:
#include "common/mma.cuh"

namespace zsbir {

template <class S, int32_t K, int32_t M, int32_t N>
void mma_tiles(float (&sum)[M][N][4], const uint32_t (&a)[K][M][4], const uint32_t (&b)[K][N][2],
               int32_t rows, int32_t columns) {
  static_assert(sizeof(a) + sizeof(b) <= sizeof(emulation::Warp::Registers));
  const auto [all, lane] = emulation::show(a, sizeof(a), b, sizeof(b));
  const int g = int(lane / 4), t = int(lane % 4);
  const auto half = [&, all = all](int from, size_t at, int which) {  // of two in a register
    uint32_t bits;
    std::memcpy(&bits, all[from].bytes + at * sizeof(bits), sizeof(bits));
    return widen(S{uint16_t(bits >> (16 * which))});
  };
  for (int32_t m = 0; m < rows; ++m) {
    for (int32_t n = 0; n < columns; ++n) {
      for (int32_t i = 0; i < 4; ++i) {
        for (int k = 0; k < 16 * K; ++k) {
          const int owner = k % 8 / 2, upper = k % 16 / 8;  // t of the lane, of two registers which
          const float x = half(4 * g + owner, (k / 16 * M + m) * 4 + upper * 2 + i / 2, k % 2);
          const float y =
              half(4 * (2 * t + i % 2) + owner, K * M * 4 + (k / 16 * N + n) * 2 + upper, k % 2);
          sum[m][n][i] += x * y;
        }
      }
    }
  }
}

}  // namespace zsbir
