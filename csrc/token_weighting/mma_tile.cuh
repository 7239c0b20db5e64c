// The parts that the tensor-core kernels of the room share: rows of words in shared memory as
// halves, and the two products of a warp.
//
// Keys and values go from memory to the registers of an mma without a stop in shared memory: k and
// n of an mma have no order of their own (common/mma.cuh), so every lane takes 8 or 16 bytes that
// lie together. No warp waits for another in a product. The strides of rows of words, and the order
// of the words of a tile, are such that the 16-byte loads of a quarter of a warp touch every bank
// once.
#pragma once
#include <cstdint>

#include "common/mma.cuh"
#include "token_weighting/tile.cuh"

namespace zsbir::token_weighting {

constexpr int32_t kMmaThreads = 512;  // at most
constexpr int32_t kGroup = 16;        // patches of a warp's products with words: the m of an mma
constexpr int32_t kDepth = 32;        // two mma deep, in a lane 16 bytes
constexpr int32_t kStripe = 32;       // columns that a warp sums up over patches at a time
constexpr int32_t kWideStripe = 64;   // columns that a warp sums up over words at a time

ZSBIR_HD constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Halves from one row of words to the next: 16 mod 64, and room for zeros up to a whole kDepth.
ZSBIR_HD constexpr int64_t word_stride(int64_t width) {
  return (round_up(width, kDepth) + 47) / 64 * 64 + 16;
}
// Floats from one row by patch to the next: 16 mod 32. The halves of a row fit with their zeros.
ZSBIR_HD constexpr int64_t patch_stride(int64_t patches) { return (patches + 15) / 32 * 32 + 16; }

// The word of 8 that is column n of an mma tile. The words of n = 0, 2, 4, 6 and of 1, 3, 5, 7 lie
// in different banks, and so do those of 2 i and 2 i + 1.
__device__ __forceinline__ int32_t word_of(int32_t n) {
  return n % 2 == 0 ? n / 2 : 4 + ((n / 2) ^ 2);
}

__device__ __forceinline__ int32_t lane_id() { return int32_t(threadIdx.x % kWarp); }
__device__ __forceinline__ int32_t warp_id() { return int32_t(threadIdx.x / kWarp); }
__device__ __forceinline__ int32_t warps() { return int32_t(blockDim.x / kWarp); }

template <class V, class X>
__device__ __forceinline__ V load_as(const X* from) {
  return *reinterpret_cast<const V*>(from);
}
__device__ __forceinline__ void store8(float* to, const float (&x)[8]) {
  auto* out = reinterpret_cast<float4*>(to);
  out[0] = {x[0], x[1], x[2], x[3]};
  out[1] = {x[4], x[5], x[6], x[7]};
}
template <class S>
__device__ __forceinline__ void store8_as(S* to, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(to) = {pack<S>(x[0], x[1]), pack<S>(x[2], x[3]), pack<S>(x[4], x[5]),
                                   pack<S>(x[6], x[7])};
}

// The power of two not above x, for x of the normal range and not infinite; else one nearby.
__device__ __forceinline__ float power_of_two(float x) {
  const uint32_t exponent = bits_of_float(x) >> 23 & 0xffu;
  return float_of_bits(min(max(exponent, 1u), 253u) << 23);
}
__device__ __forceinline__ float inverse_power(float power) {
  return float_of_bits(0x7f000000u - bits_of_float(power));
}

// --- rows of words in shared memory --------------------------------------------------------------

// Columns [column, column + columns) of the texts of words, unscaled. Beyond the width, and in the
// rows after the last word up to a multiple of 16, they are zeros.
template <class S>
__device__ __forceinline__ void stage_text(const Problem<S>& p, int64_t pair, const int32_t* row,
                                           int32_t count, int64_t column, int32_t columns,
                                           int32_t stride, S* to) {
  const S* text = p.text + p.labels[pair] * p.words * p.width;
  const int32_t pieces = columns / 8, rows = int32_t(round_up(count, kGroup));
  for (int32_t i = threadIdx.x; i < rows * pieces; i += blockDim.x) {
    const int32_t r = i / pieces, at = i % pieces * 8;
    uint4 x = {0, 0, 0, 0};
    if (r < count && column + at < p.width) {
      x = load_as<uint4>(text + row[r] * p.width + column + at);
    }
    *reinterpret_cast<uint4*>(to + r * stride + at) = x;
  }
}

// A power of two that brings a gradient of a pooled row to at most 2 by division; a warp asks.
// Every row has a unit of its own, because gradients may be so small (the weight of a word, the
// scale of a loss) that float16 would lose them.
template <class S>
__device__ __forceinline__ float unit_of(const PooledGradient<S>& gradient, int64_t width) {
  float largest = 0;
#pragma unroll 8
  for (int64_t d = lane_id(); d < width; d += kWarp) {
    largest = max(largest, float(fabs(gradient(d))));
  }
  return power_of_two(warp_max(largest));
}

// A warp writes columns of the gradient over its unit, rounded. It returns <gradient, pooled row>
// over these columns, of the rounded gradient: the slopes of a word then add up to 0 as they
// should, and the only value that was rounded is the upstream gradient.
template <class S>
__device__ __forceinline__ float stage_gradient(const PooledGradient<S>& gradient, float unit,
                                                int64_t width, int64_t column, int32_t columns,
                                                S* to) {
  const float inverse = inverse_power(unit);
  float mean = 0;
#pragma unroll 4
  for (int32_t d = lane_id(); d < columns; d += kWarp) {
    const bool inside = column + d < width;
    S x;
    narrow(inside ? gradient(column + d) * inverse : 0.0f, x);
    if (inside) mean = fma(widen(x), gradient.own[column + d], mean);
    to[d] = x;
  }
  return unit * warp_sum(mean);
}
template <class S>
__device__ __forceinline__ void stage_zeros(int32_t columns, S* to) {
  for (int32_t d = lane_id(); d < columns; d += kWarp) to[d] = S{};
}

// A warp narrows a row of floats to halves in place: f(value), then zeros up to a whole kDepth.
template <class S, class F>
__device__ __forceinline__ void narrow_row(float* row, int32_t count, const F& f) {
  S* out = reinterpret_cast<S*>(row);
  for (int32_t first = 0; first < count; first += kDepth) {
    const int32_t n = first + lane_id();
    const float value = n < count ? f(row[n]) : 0.0f;
    __syncwarp();  // these floats are read before halves overwrite the first of them
    narrow(value, out[n]);
  }
}

// --- products ------------------------------------------------------------------------------------

// sum[0][j] = <patch, word> of 16 patches and the words 8 j ... 8 j + 7, in the order of word_of,
// for j < tiles. A warp calls. `count` >= 1 patches exist, and the rows of the others repeat the
// last.
template <int32_t T, class S>
__device__ __forceinline__ void mma_dots(const S* patches, int32_t count, int64_t depth,
                                         const S* words, int32_t stride, int32_t tiles,
                                         float (&sum)[1][T][4]) {
  // A lane has 2 kAhead loads of 16 bytes under way. One more, and some architectures spill.
  constexpr int32_t kAhead = 3;
  const int32_t g = lane_id() / 4, t = lane_id() % 4;
  const S* upper = patches + min(g, count - 1) * depth + 8 * t;
  const S* lower = patches + min(g + 8, count - 1) * depth + 8 * t;
  const S* word = words + word_of(g) * stride + 8 * t;
#pragma unroll
  for (int32_t j = 0; j < T; ++j) {
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) sum[0][j][i] = 0;
  }
  const int32_t end = int32_t(depth);
#pragma unroll 1  // this and no more is under way
  for (int32_t first = 0; first < end; first += kAhead * kDepth) {
    uint4 x[kAhead], y[kAhead];
#pragma unroll
    for (int32_t i = 0; i < kAhead; ++i) {
      const int32_t d = first + i * kDepth;
      const bool inside = d + 8 * t < end;
      x[i] = inside ? load_as<uint4>(upper + d) : uint4{0, 0, 0, 0};
      y[i] = inside ? load_as<uint4>(lower + d) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int32_t i = 0; i < kAhead; ++i) {
      const int32_t d = first + i * kDepth;
      if (d >= end) break;
      // The first 4 of a lane's 8 values are k = 2t, 2t+1, 2t+8, 2t+9 of one mma, the last 4 those
      // of the next; this holds for patches and words alike.
      const uint32_t a[2][1][4] = {{{x[i].x, y[i].x, x[i].y, y[i].y}},
                                   {{x[i].z, y[i].z, x[i].w, y[i].w}}};
      uint32_t b[2][T][2];
#pragma unroll
      for (int32_t j = 0; j < T; ++j) {
        uint4 w = {0, 0, 0, 0};
        if (j < tiles) w = load_as<uint4>(word + 8 * j * stride + d);
        b[0][j][0] = w.x, b[0][j][1] = w.y, b[1][j][0] = w.z, b[1][j][1] = w.w;
      }
      mma_tiles<S>(sum, a, b, 1, tiles);
    }
  }
}

// sum[m][j] += sum_n weight[word, n] x[n, column], for the words 16 m ... 16 m + 15, m < tiles, and
// kStripe columns. The words of lane (g, t) are 16 m + g and + 8, its columns 8 t ... 8 t + 7. A
// warp calls. Weights are halves in shared memory, zero after the last patch up to a whole kDepth.
// A lane has 8 kAhead loads of 8 bytes under way.
template <int32_t M, int32_t kAhead, class S>
__device__ __forceinline__ void mma_columns(const S* weights, int32_t stride, const S* x,
                                            int64_t width, int64_t column, int32_t patches,
                                            int32_t tiles, float (&sum)[M][4][4]) {
  const int32_t g = lane_id() / 4, t = lane_id() % 4;
  // A missing patch or column is read where there is one: its weight is 0, or its column not
  // stored.
  const S* from = x + (column + 4 * g < width ? column + 4 * g : 0);
  const S* row = weights + g * stride + 8 * t;
#pragma unroll kAhead
  for (int32_t first = 0; first < patches; first += kDepth) {
    uint2 v[8];  // of 8 patches 4 columns: column 4 g + j goes to tile j
#pragma unroll
    for (int32_t i = 0; i < 8; ++i) {
      v[i] = load_as<uint2>(from + min(first + 8 * t + i, patches - 1) * width);
    }
    uint32_t a[2][M][4], b[2][4][2];
#pragma unroll
    for (int32_t m = 0; m < M; ++m) {
      uint4 u = {0, 0, 0, 0}, l = {0, 0, 0, 0};
      if (m < tiles) {
        u = load_as<uint4>(row + 16 * m * stride + first);
        l = load_as<uint4>(row + (16 * m + 8) * stride + first);
      }
      a[0][m][0] = u.x, a[0][m][1] = l.x, a[0][m][2] = u.y, a[0][m][3] = l.y;
      a[1][m][0] = u.z, a[1][m][1] = l.z, a[1][m][2] = u.w, a[1][m][3] = l.w;
    }
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) {  // two patches, k = 2t, 2t+1 or 2t+8, 2t+9
      const uint2 one = v[2 * i], two = v[2 * i + 1];
      b[i / 2][0][i % 2] = low_halves(one.x, two.x);
      b[i / 2][1][i % 2] = high_halves(one.x, two.x);
      b[i / 2][2][i % 2] = low_halves(one.y, two.y);
      b[i / 2][3][i % 2] = high_halves(one.y, two.y);
    }
    mma_tiles<S>(sum, a, b, tiles);
  }
}

// store(word, column, values[8]) for the sums of mma_columns.
template <int32_t M, class Store>
__device__ __forceinline__ void each_column(const float (&sum)[M][4][4], int64_t column,
                                            int64_t width, const Store& store) {
  const int32_t g = lane_id() / 4;
  column += lane_id() % 4 * 8;
  if (column >= width) return;
#pragma unroll
  for (int32_t m = 0; m < M; ++m) {
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      const auto& s = sum[m];
      const int32_t i = 2 * half;
      const float values[8] = {s[0][i],     s[1][i],     s[2][i],     s[3][i],
                               s[0][i + 1], s[1][i + 1], s[2][i + 1], s[3][i + 1]};
      store(16 * m + 8 * half + g, column, values);
    }
  }
}

}  // namespace zsbir::token_weighting
