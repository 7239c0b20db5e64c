// The parts that the CUDA kernels of the room share: the valid words of a pair, the results of a
// word after the forward pass, the gradient of its pooled rows, and the two products of a tile of
// rows with a tile of patches, as in products_cpu.h.
#pragma once
#include <math.h>

#include <cstdint>

#include "common/block.cuh"
#include "common/half.h"
#include "token_weighting/token_weighting.h"

namespace zsbir::token_weighting {

constexpr int32_t kTile = 32;  // patches of a softmax step: one per lane
constexpr int32_t kThreads = 128;
// The blocks of an SM that shared memory has room for at width 512. The number tells ptxas how many
// registers there are, which it otherwise guesses, and spills.
template <class S>
constexpr int32_t kResident = sizeof(Accumulate<S>) == 8 ? 2 : 4;

template <class A>
__device__ __forceinline__ A warp_max(A value) {
  for (int32_t step = kWarp / 2; step > 0; step /= 2) {
    const A other = __shfl_xor_sync(kFullWarp, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// The valid words number first ... first + R - 1 of a class. Every thread of the block calls.
template <int32_t R>
struct Words {
  int32_t row[R];
  int32_t count;

  // mask == nullptr: no words.
  __device__ void find(const uint8_t* mask, int64_t words, int64_t first) {
    if (threadIdx.x < kWarp) {
      const int32_t lane = threadIdx.x;
      int64_t seen = 0;
      for (int64_t base = 0; mask != nullptr && base < words && seen < first + R; base += kWarp) {
        const bool valid = base + lane < words && mask[base + lane] != 0;
        const unsigned votes = __ballot_sync(kFullWarp, valid);
        const int64_t place = seen + __popc(votes & ((1u << lane) - 1)) - first;
        if (valid && place >= 0 && place < R) row[place] = int32_t(base) + lane;
        seen += __popc(votes);
      }
      if (lane == 0) count = int32_t(max(int64_t(0), min(seen - first, int64_t(R))));
    }
    __syncthreads();  // the words are found before any thread asks for them
  }
};

template <class S>
__device__ __forceinline__ const uint8_t* mask_of(const Problem<S>& p, int64_t pair) {
  const int64_t label = p.labels[pair];
  return label < 0 || label >= p.classes ? nullptr : p.mask + label * p.words;
}

// One of two by number. Arrays of a kernel's parameters, indexed at run time, would be copied to
// local memory.
template <class X>
__device__ __forceinline__ X pick(const X (&both)[kSides], int32_t side) {
  return side == kSketch ? both[kSketch] : both[kPhoto];
}

// 32 sums of each lane, added up over the warp: lane i ends with the i-th in sum[0]. Lanes that
// differ in a bit share out the sums by that bit: 31 exchanges, not 5 for each sum.
template <int32_t step, class A>
__device__ __forceinline__ void share_out(A (&sum)[kWarp]) {
  const bool upper = (threadIdx.x & step) != 0;
#pragma unroll
  for (int32_t i = 0; i < step; ++i) {
    const A give = upper ? sum[i] : sum[i + step];
    const A take = upper ? sum[i + step] : sum[i];
    sum[i] = take + __shfl_xor_sync(kFullWarp, give, step);
  }
  if constexpr (step > 1) share_out<step / 2>(sum);
}

// Calls out(patch, r, <row r, patch>) for R rows in shared memory and `count` patches, once for
// each, in the thread that has the sum.
template <int32_t R, class A, class S, class Out>
__device__ __forceinline__ void tile_dots(const A* rows, const S* patches, int64_t depth,
                                          int32_t count, const Out& out) {
  constexpr int32_t P = kWarp / R;  // patches of a warp: P * R sums, one for each lane in the end
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int32_t first = warp * P; first < count; first += blockDim.x / kWarp * P) {
    A sum[kWarp];
    int32_t patch[P];  // 32 bits are enough: `rows` are in shared memory, so depth is small
#pragma unroll
    for (int32_t i = 0; i < kWarp; ++i) sum[i] = 0;
#pragma unroll
    for (int32_t p = 0; p < P; ++p) patch[p] = min(first + p, count - 1) * int32_t(depth);
#pragma unroll(sizeof(A) == 8 ? 1 : 2)  // unrolled further, some architectures spill
    for (int64_t d = lane; d < depth; d += kWarp) {
      A x[P];
#pragma unroll
      for (int32_t p = 0; p < P; ++p) x[p] = widen(patches[patch[p] + d]);
#pragma unroll
      for (int32_t r = 0; r < R; ++r) {
        const A y = rows[r * depth + d];
#pragma unroll
        for (int32_t p = 0; p < P; ++p) sum[p * R + r] = fma(x[p], y, sum[p * R + r]);
      }
    }
    share_out<kWarp / 2>(sum);
    if (first + lane / R < count) out(first + lane / R, lane % R, sum[0]);
  }
}

// take(column, sums[R]) with sums[r] = sum_n weights[n, r] x[n, column]: a thread owns columns.
template <int32_t R, class A, class X, class Take>
__device__ __forceinline__ void tile_columns(const A* weights, int32_t weights_stride,
                                             int32_t weights_step, const X* x, int64_t width,
                                             int32_t count, const Take& take) {
  for (int64_t column = threadIdx.x; column < width; column += blockDim.x) {
    A sum[R];
#pragma unroll
    for (int32_t r = 0; r < R; ++r) sum[r] = 0;
#pragma unroll 4
    for (int32_t n = 0; n < count; ++n) {
      const A value = widen(x[n * width + column]);
#pragma unroll
      for (int32_t r = 0; r < R; ++r) {
        sum[r] = fma(weights[n * weights_stride + r * weights_step], value, sum[r]);
      }
    }
    take(column, sum);
  }
}

// Queries of the words in shared memory, scaled; zeros in the rows beyond the last.
template <int32_t R, class S>
__device__ __forceinline__ void load_queries(const Problem<S>& p, int64_t pair,
                                             const Words<R>& words, Accumulate<S>* query) {
  const S* text = p.text + p.labels[pair] * p.words * p.width;
  for (int32_t r = 0; r < R; ++r) {
    for (int64_t d = threadIdx.x; d < p.width; d += blockDim.x) {
      query[r * p.width + d] =
          r < words.count ? p.scale * widen(text[words.row[r] * p.width + d]) : 0;
    }
  }
}

// Whether a row holds a NaN, which a maximum passes over; in every lane.
template <class X>
__device__ __forceinline__ bool warp_has_nan(const X* row, int64_t width) {
  int32_t found = 0;
  for (int64_t d = threadIdx.x % kWarp; d < width; d += kWarp) {
    found += int32_t(widen(row[d]) != widen(row[d]));
  }
  return warp_sum(found) > 0;
}

// 1 / |row|, 0 of a zero row; in every lane.
template <class A, class X>
__device__ __forceinline__ A warp_inverse_norm(const X* row, int64_t width) {
  const int32_t lane = threadIdx.x % kWarp;
  A largest = 0;
  for (int64_t d = lane; d < width; d += kWarp) largest = max(largest, A(fabs(widen(row[d]))));
  largest = warp_max(largest);
  const bool zero = largest < A(kZeroRow) && !warp_has_nan(row, width);
  A sum = 0;
  for (int64_t d = lane; !zero && d < width; d += kWarp) {
    const A x = A(widen(row[d])) / largest;
    sum = fma(x, x, sum);
  }
  sum = warp_sum(sum);
  return zero ? A(0) : A(1) / largest / sqrt(sum);
}

// The results that the forward pass of a pair leaves in memory.
template <class S>
struct PairResults {
  using A = Accumulate<S>;
  const Problem<S>& p;
  const Forward<A>& out;
  int64_t pair;

  __device__ int64_t word(int32_t stat, int64_t j) const {
    return (stat * p.pairs + pair) * p.words + j;
  }
  __device__ A* kept(int32_t side, int64_t j) const {
    return pick(out.pooled, side) + (pair * p.words + j) * p.value_width;
  }

  // Statistics, and pooled rows if wanted, of padding: a warp per word.
  __device__ void clear_padding(const uint8_t* mask) const {
    const int32_t lane = threadIdx.x % kWarp;
    for (int64_t j = threadIdx.x / kWarp; j < p.words; j += blockDim.x / kWarp) {
      if (mask != nullptr && mask[j] != 0) continue;
      if (lane < kStats) out.stats[word(lane, j)] = 0;
      for (int32_t side = 0; out.keep == Keep::all && side < p.sides; ++side) {
        A* row = kept(side, j);
        for (int64_t d = lane; d < p.value_width; d += kWarp) row[d] = 0;
      }
    }
  }

  // Statistics of a word from its pooled rows; a warp calls. With one side the photo's are unused.
  // Rows are scaled by their largest entries, and read twice.
  __device__ void finish(int64_t j, const A* sketch, const A* photo, A sketch_log_sum,
                         A photo_log_sum) const {
    const int32_t lane = threadIdx.x % kWarp;
    if (lane == 0) out.stats[word(kLogSum, j)] = sketch_log_sum;
    if (p.sides < kSides) {
      for (int32_t stat = kLogSum + 1 + lane; stat < kStats; stat += kWarp) {
        out.stats[word(stat, j)] = 0;
      }
      return;
    }
    A most_x = 0, most_y = 0;
#pragma unroll 4
    for (int64_t d = lane; d < p.value_width; d += kWarp) {
      most_x = max(most_x, A(fabs(sketch[d])));
      most_y = max(most_y, A(fabs(photo[d])));
    }
    most_x = warp_max(most_x), most_y = warp_max(most_y);
    const bool no_x = most_x < A(kZeroRow) && !warp_has_nan(sketch, p.value_width);
    const bool no_y = most_y < A(kZeroRow) && !warp_has_nan(photo, p.value_width);
    const A by_x = no_x ? A(0) : 1 / most_x, by_y = no_y ? A(0) : 1 / most_y;
    A xx = 0, yy = 0, xy = 0;
#pragma unroll 4
    for (int64_t d = lane; d < p.value_width; d += kWarp) {
      const A x = sketch[d] * by_x, y = photo[d] * by_y;
      xx = fma(x, x, xx);
      yy = fma(y, y, yy);
      xy = fma(x, y, xy);
    }
    xx = warp_sum(xx), yy = warp_sum(yy), xy = warp_sum(xy);
    if (lane != 0) return;
    const A norm_x = no_x ? A(1) : A(sqrt(xx)), norm_y = no_y ? A(1) : A(sqrt(yy));
    out.stats[word(kLogSum + kPhoto, j)] = photo_log_sum;
    out.stats[word(kInverseNorm + kSketch, j)] = by_x / norm_x;
    out.stats[word(kInverseNorm + kPhoto, j)] = by_y / norm_y;
    out.stats[word(kCosine, j)] = xy / norm_x / norm_y;
  }
};

// The gradient of one pooled row, column by column: through the cosine, and as given.
template <class S>
struct PooledGradient {
  using A = Accumulate<S>;
  const A *own, *partner, *given;  // partner, given: nullptr if nothing comes that way
  A own_inverse = 0, other_inverse = 0, cosine = 0, factor = 0, log_sum;

  __device__ PooledGradient(const Problem<S>& p, const Backward<S>& g, int64_t pair, int32_t side,
                            int64_t j) {
    const int64_t at = pair * p.words + j, stat = p.pairs * p.words;
    const int32_t other = kSides - 1 - side;
    own = pick(g.pooled, side) + at * p.value_width;
    given = pick(g.grad_pooled, side);
    if (given != nullptr) given += at * p.value_width;
    partner = nullptr;
    log_sum = g.stats[(kLogSum + side) * stat + at];
    if (g.grad_scores == nullptr || p.sides < kSides) return;
    partner = pick(g.pooled, other) + at * p.value_width;
    own_inverse = g.stats[(kInverseNorm + side) * stat + at];
    other_inverse = g.stats[(kInverseNorm + other) * stat + at];
    cosine = g.stats[kCosine * stat + at];
    factor = g.grad_scores[pair] * g.weights[p.labels[pair] * p.words + j] * own_inverse;
  }

  __device__ A operator()(int64_t d) const {
    A x = given != nullptr ? given[d] : A(0);
    if (partner != nullptr) {
      x += factor * (partner[d] * other_inverse - cosine * (own[d] * own_inverse));
    }
    return x;
  }
};

}  // namespace zsbir::token_weighting
