// Sums that the threads of a block form together, for the kernels of all rooms.
//
// Blocks are one-dimensional, with a multiple of 32 threads, and every thread of the block calls.
#pragma once
#include <cstdint>

// Dynamic shared memory as bytes. The CPU emulation (tests/csrc) brings its own definition.
#ifndef ZSBIR_DYNAMIC_SHARED
#define ZSBIR_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace zsbir {

constexpr int32_t kWarp = 32;
constexpr int32_t kMaxWarps = 32;  // hardware limit: 1,024 threads a block
constexpr unsigned kFullWarp = 0xffffffffu;

// Sum over the 32 lanes, in every lane.
template <class V>
__device__ __forceinline__ V warp_sum(V value) {
  for (int32_t step = kWarp / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, step);
  }
  return value;
}

// The sum of the values of all threads before this one. warp_totals [kMaxWarps] is shared scratch:
// sync before writing to it again.
template <class V>
__device__ __forceinline__ V block_exclusive_sum(V value, V* warp_totals) {
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  V inclusive = value;
  for (int32_t step = 1; step < kWarp; step *= 2) {
    const V below = __shfl_up_sync(kFullWarp, inclusive, step);
    if (lane >= step) inclusive += below;
  }
  if (lane == kWarp - 1) warp_totals[warp] = inclusive;
  __syncthreads();  // every total is written before any warp adds up those ahead of it
  V ahead = 0;
  for (int32_t w = 0; w < warp; ++w) ahead += warp_totals[w];
  return ahead + inclusive - value;
}

// The sum over all threads of the block, in thread 0, always added in the same order. warp_totals
// [kMaxWarps] is shared scratch: sync before writing to it again.
template <class V>
__device__ __forceinline__ V block_sum(V value, V* warp_totals) {
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) warp_totals[threadIdx.x / kWarp] = value;
  __syncthreads();  // every warp has written its total before thread 0 adds them
  V total = 0;
  if (threadIdx.x == 0) {
    for (uint32_t w = 0; w < blockDim.x / kWarp; ++w) total += warp_totals[w];
  }
  return total;
}

}  // namespace zsbir
