// Products on tensor cores: the tiles that a warp multiplies at a time.
//
// In / out     16 x 16 values of A and 16 x 8 of B, float16 or bfloat16 in registers -> sums in
//              float.
// Algorithm    mma.sync.aligned.m16n8k16.row.col.f32.{f16,bf16}.{f16,bf16}.f32 (PTX ISA manual,
//              "Matrix Fragments for mma.m16n8k16 with floating point types").
// Mapping      The lane is 4 g + t. A register holds two neighbours along k, the first in its low
//              half:
//                a[0] A[g, 2t]  a[1] A[g+8, 2t]  a[2] A[g, 2t+8]  a[3] A[g+8, 2t+8]
//                b[0] B[2t, g]  b[1] B[2t+8, g]
//                sum[0], sum[1] C[g, 2t], C[g, 2t+1]    sum[2], sum[3] C[g+8, 2t], C[g+8, 2t+1]
//              The order of k and n has no meaning of its own: a caller that loads A and B in one
//              order of k, and stores C in B's order of n, may choose both so that a lane loads 16
//              bytes at once.
// Numerics     Products are exact. How the 16 of them are rounded on the way to float is the
//              hardware's choice, within the error of a sum of floats.
// Determinism  The same input gives the same bits on one architecture.
// Limits       sm_80 or newer; all 32 lanes call, with the same `rows` and `columns`.
#pragma once
#include <cstdint>
#include <type_traits>

#include "common/block.cuh"
#include "common/half.h"

namespace zsbir {

// Only code that is compiled for sm_80 or newer can run the kernels; launchers ask for this
// capability.
constexpr int32_t kMmaCapability = 8;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kMmaHere = false;  // kernels return at once; no launcher starts them
#else
constexpr bool kMmaHere = true;
#endif

template <class S>
constexpr bool kHasMma = std::is_same_v<S, Half> || std::is_same_v<S, BFloat16>;

// sum[m][n] += sum_k A[k][m] B[k][n] for the first `rows` tiles of A and the first `columns` of B.
// The CPU emulation (tests/csrc/mma_emulation.h) brings its own definition.
template <class S, int32_t K, int32_t M, int32_t N>
__device__ __forceinline__ void mma_tiles(float (&sum)[M][N][4], const uint32_t (&a)[K][M][4],
                                          const uint32_t (&b)[K][N][2], int32_t rows = M,
                                          int32_t columns = N);

// Two values to nearest, the first in the low half.
template <class S>
__device__ __forceinline__ uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t both;
  if constexpr (std::is_same_v<S, Half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
#else
  S first, second;
  narrow(low, first);
  narrow(high, second);
  return uint32_t(first.bits) | uint32_t(second.bits) << 16;
#endif
}

// The low, or the high, halves of two registers in one.
__device__ __forceinline__ uint32_t low_halves(uint32_t first, uint32_t second) {
  return (first & 0xffffu) | (second << 16);
}
__device__ __forceinline__ uint32_t high_halves(uint32_t first, uint32_t second) {
  return (first >> 16) | (second & 0xffff0000u);
}

#if defined(__CUDACC__)
// volatile: an mma whose sums only some lanes store must not move to where only those are.
template <class S>
__device__ __forceinline__ void mma_m16n8k16(float (&sum)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<S, Half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

template <class S, int32_t K, int32_t M, int32_t N>
__device__ __forceinline__ void mma_tiles(float (&sum)[M][N][4], const uint32_t (&a)[K][M][4],
                                          const uint32_t (&b)[K][N][2], int32_t rows,
                                          int32_t columns) {
#pragma unroll
  for (int32_t m = 0; m < M; ++m) {
#pragma unroll
    for (int32_t n = 0; n < N; ++n) {
      if (m >= rows || n >= columns) continue;
#pragma unroll
      for (int32_t k = 0; k < K; ++k) mma_m16n8k16<S>(sum[m][n], a[k][m], b[k][n]);
    }
  }
}
#endif

}  // namespace zsbir
