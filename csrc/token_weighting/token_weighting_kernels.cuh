// token_weighting on CUDA: words attend over the patches of a sketch and of a photo, and the
// cosines of the rows that they pool score the pair; forward and backward.
//
// In / out     text S[C,L,D], mask, labels, keys S[B,N,D], values S[B,N,V] of both sides -> scores
//              A[B], statistics A[5,B,L], pooled rows A[B,L,V] if kept; gradients: see
//              token_weighting.h.
// Algorithm    forward_kernel: a tile of valid words against the patches, kTile at a time, with a
//              running maximum and sum (online softmax: Milakov & Gimelshein, arXiv 1805.02867).
//              The backward pass computes attention anew from its logarithmic sums (FlashAttention,
//              arXiv 2205.14135): words_kernel for the gradient of the text, patches_kernel for
//              those of keys and values; class_sums_kernel adds up the text's over the pairs.
// Work         Per pair and side 4 L N D flop forward, 14 L N D backward (each of the two backward
//              kernels forms logits and their slopes); L counts valid words only.
// Memory       Keys and values are read once per tile of words forward, mostly from L2 after the
//              first. Nothing has the size [B,L,N].
// Mapping      forward and words_kernel: a block per (pair, tile of R valid words), sketch and
//              photo one after the other, so that pooled rows stay in shared memory.
//              patches_kernel: a block per (pair, side, tile of patches). In products of rows a
//              warp takes 32 / R patches and its lanes the width; in sums over patches a thread
//              owns columns.
// Numerics     Sums are in A = float, or double; the softmax subtracts the maximum.
// Determinism  Bitwise: every sum has one owner and one order; no atomics.
// Limits       R (2 D + V) or more values of A in shared memory, for which token_weighting_cuda.cu
//              chooses R; blocks < 2^31; blockDim.x a multiple of 32. A label out of range is a
//              text without words.
#pragma once
#include <cstdint>

#include "token_weighting/tile.cuh"

namespace zsbir::token_weighting {

// --- forward -------------------------------------------------------------------------------------

template <class A, int32_t R>
struct ForwardShared {
  A weight[kTile * R];                // logits, then exp(logit - maximum), by patch
  A most[kSides][R], sum[kSides][R];  // running maximum of the logits, and sum of exponentials
  A factor[R];                        // by which the sums so far shrink under the new maximum
  Words<R> words;
  // Behind it: query [R, width], pooled [sides, R, value_width].
};

template <class S, int32_t R>
struct ForwardBlock {
  using A = Accumulate<S>;
  const Problem<S>& p;
  const Forward<A>& out;
  ForwardShared<A, R>& s;
  A* query;
  int64_t pair;

  __device__ A* pooled(int32_t side) const {
    return query + R * p.width + side * R * p.value_width;
  }

  __device__ void begin() {
    load_queries<R>(p, pair, s.words, query);
    A* rows = pooled(kSketch);
    for (int64_t i = threadIdx.x; i < p.sides * R * p.value_width; i += blockDim.x) rows[i] = 0;
    for (int32_t i = threadIdx.x; i < kSides * R; i += blockDim.x) {
      s.most[i / R][i % R] = -INFINITY;
      s.sum[i / R][i % R] = 0;
    }
    __syncthreads();  // queries and cleared sums are complete before the first tile
  }

  __device__ void softmax_step(int32_t side, int32_t patches) {
    const int32_t lane = threadIdx.x % kWarp;
    for (int32_t r = threadIdx.x / kWarp; r < R; r += blockDim.x / kWarp) {
      const A before = s.most[side][r];
      const A logit = lane < patches ? s.weight[lane * R + r] : A(-INFINITY);
      const A most = max(before, warp_max(logit));
      const A weight = lane < patches ? exp(logit - most) : A(0);
      if (lane < patches) s.weight[lane * R + r] = weight;
      const A sum = warp_sum(weight);
      if (lane == 0) {
        s.factor[r] = exp(before - most);
        s.sum[side][r] = s.sum[side][r] * s.factor[r] + sum;
        s.most[side][r] = most;
      }
    }
  }

  __device__ void pool(int32_t side) {
    const int64_t patches = pick(p.side, side).patches;
    const S* keys = pick(p.side, side).keys + pair * patches * p.width;
    const S* values = pick(p.side, side).values + pair * patches * p.value_width;
    A* rows = pooled(side);
    for (int64_t first = 0; first < patches; first += kTile) {
      const int32_t count = int32_t(min(patches - first, int64_t(kTile)));
      tile_dots<R>(query, keys + first * p.width, p.width, count,
                   [&](int32_t n, int32_t r, A logit) { s.weight[n * R + r] = logit; });
      __syncthreads();  // all logits of the tile are written before the softmax reads them
      softmax_step(side, count);
      __syncthreads();  // weights and factors are complete before the columns use them
      tile_columns<R>(s.weight, R, 1, values + first * p.value_width, p.value_width, count,
                      [&](int64_t column, const A* sum) {
                        for (int32_t r = 0; r < R; ++r) {
                          A& row = rows[r * p.value_width + column];
                          row = fma(row, s.factor[r], sum[r]);
                        }
                      });
      __syncthreads();  // weights and factors are used before the next tile overwrites them
    }
    for (int64_t column = threadIdx.x; column < p.value_width; column += blockDim.x) {
      for (int32_t r = 0; r < R; ++r) rows[r * p.value_width + column] /= s.sum[side][r];
    }
  }

  __device__ A log_sum(int32_t side, int32_t r) const {
    return s.most[side][r] + A(log(s.sum[side][r]));
  }

  __device__ void copy_row(const A* row, A* to) const {
    for (int64_t d = threadIdx.x % kWarp; d < p.value_width; d += kWarp) to[d] = row[d];
  }

  // A warp takes a word: its statistics, and its pooled rows if they are kept.
  __device__ void finish() {
    const PairResults<S> results{p, out, pair};
    for (int32_t r = threadIdx.x / kWarp; r < s.words.count; r += blockDim.x / kWarp) {
      const int64_t j = s.words.row[r];
      const A *sketch = pooled(kSketch) + r * p.value_width, *photo = sketch + R * p.value_width;
      if (out.keep != Keep::scores) {
        copy_row(sketch, results.kept(kSketch, j));
        if (p.sides == kSides) copy_row(photo, results.kept(kPhoto, j));
      }
      results.finish(j, sketch, photo, log_sum(kSketch, r), log_sum(kPhoto, r));
    }
  }
};

// The grid is pairs * tiles of words; the dynamic shared memory is a ForwardShared, queries and
// pooled rows.
template <class S, int32_t R>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    forward_kernel(Problem<S> p, Forward<Accumulate<S>> out, int64_t tiles) {
  using A = Accumulate<S>;
  ZSBIR_DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<ForwardShared<A, R>*>(memory);
  const int64_t pair = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const uint8_t* mask = mask_of(p, pair);
  ForwardBlock<S, R> block{p, out, shared, reinterpret_cast<A*>(&shared + 1), pair};
  if (tile == 0) PairResults<S>{p, out, pair}.clear_padding(mask);
  shared.words.find(mask, p.words, tile * R);
  if (shared.words.count == 0) return;
  block.begin();
  for (int32_t side = 0; side < p.sides; ++side) block.pool(side);
  __syncthreads();  // pooled rows are complete before their words compare them
  block.finish();
}

// A thread takes a pair.
template <class S>
__global__ void scores_kernel(Problem<S> p, Forward<Accumulate<S>> out) {
  const int64_t pair = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pair >= p.pairs) return;
  const uint8_t* mask = mask_of(p, pair);
  Accumulate<S> score = 0;
  for (int64_t j = 0; mask != nullptr && j < p.words; ++j) {
    if (mask[j] == 0) continue;
    score = fma(out.weights[p.labels[pair] * p.words + j],
                out.stats[(kCosine * p.pairs + pair) * p.words + j], score);
  }
  out.scores[pair] = score;
}

// --- backward ------------------------------------------------------------------------------------

// A tile of words of a pair, as both backward kernels need it.
template <class A, int32_t R>
struct WordsShared {
  A mean[R],
      log_sum[R];  // <gradient of the pooled row, pooled row>; log of the sum of exponentials
  Words<R> words;
};

// Gradients of the pooled rows (through the cosine, and given), in shared memory, and their means.
template <int32_t R, class S>
__device__ void load_gradients(const Problem<S>& p, const Backward<S>& g, int64_t pair,
                               int32_t side, WordsShared<Accumulate<S>, R>& s,
                               Accumulate<S>* grad) {
  using A = Accumulate<S>;
  const int32_t lane = threadIdx.x % kWarp;
  for (int32_t r = threadIdx.x / kWarp; r < R; r += blockDim.x / kWarp) {
    const bool there = r < s.words.count;
    const PooledGradient<S> gradient(p, g, pair, side, there ? s.words.row[r] : 0);
    A mean = 0;
    for (int64_t d = lane; d < p.value_width; d += kWarp) {
      const A x = there ? gradient(d) : A(0);
      if (there) mean = fma(x, gradient.own[d], mean);
      grad[r * p.value_width + d] = x;
    }
    mean = warp_sum(mean);
    if (lane == 0) {
      s.mean[r] = mean;
      s.log_sum[r] = there ? gradient.log_sum : A(0);
    }
  }
}

// Attention and gradient of the logits, by patch, of R words and `count` patches. The thread that
// has a logit also has its gradient.
template <int32_t R, class S>
__device__ __forceinline__ void tile_slopes(const Problem<S>& p, const Accumulate<S>* query,
                                            const Accumulate<S>* grad, const S* keys,
                                            const S* values, int32_t count,
                                            const WordsShared<Accumulate<S>, R>& s,
                                            Accumulate<S>* attention, Accumulate<S>* slope) {
  using A = Accumulate<S>;
  tile_dots<R>(query, keys, p.width, count, [&](int32_t n, int32_t r, A logit) {
    attention[n * R + r] = r < s.words.count ? exp(logit - s.log_sum[r]) : A(0);
  });
  tile_dots<R>(grad, values, p.value_width, count, [&](int32_t n, int32_t r, A dot) {
    slope[n * R + r] = attention[n * R + r] * (dot - s.mean[r]);
  });
}

template <class A, int32_t R>
struct WordsBackwardShared {
  WordsShared<A, R> words;
  A attention[kTile * R], slope[kTile * R];
  // Behind it: query [R, width], query gradient [R, width], pooled gradient [R, value_width].
};

// The gradient of the text, by pair. The grid is pairs * tiles of words.
template <class S, int32_t R>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    words_kernel(Problem<S> p, Backward<S> g, int64_t tiles) {
  using A = Accumulate<S>;
  ZSBIR_DYNAMIC_SHARED(memory);
  auto& s = *reinterpret_cast<WordsBackwardShared<A, R>*>(memory);
  A* query = reinterpret_cast<A*>(&s + 1);
  A* query_grad = query + R * p.width;
  A* grad = query_grad + R * p.width;
  const int64_t pair = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  Words<R>& words = s.words.words;
  words.find(mask_of(p, pair), p.words, tile * R);
  if (words.count == 0) return;
  load_queries<R>(p, pair, words, query);
  for (int64_t i = threadIdx.x; i < R * p.width; i += blockDim.x) query_grad[i] = 0;
  for (int32_t side = 0; side < p.sides; ++side) {
    load_gradients<R>(p, g, pair, side, s.words, grad);
    __syncthreads();  // queries, their cleared gradients and those of the pooled rows are complete
    const int64_t patches = pick(p.side, side).patches;
    for (int64_t first = 0; first < patches; first += kTile) {
      const int32_t count = int32_t(min(patches - first, int64_t(kTile)));
      const S* keys = pick(p.side, side).keys + (pair * patches + first) * p.width;
      const S* values = pick(p.side, side).values + (pair * patches + first) * p.value_width;
      tile_slopes<R>(p, query, grad, keys, values, count, s.words, s.attention, s.slope);
      __syncthreads();  // slopes are complete before the columns add them up
      tile_columns<R>(s.slope, R, 1, keys, p.width, count, [&](int64_t column, const A* sum) {
        for (int32_t r = 0; r < R; ++r) query_grad[r * p.width + column] += sum[r];
      });
      __syncthreads();  // slopes are used before the next tile, or side, overwrites them
    }
  }
  for (int32_t r = 0; r < words.count; ++r) {
    A* to = g.text_rows + (pair * p.words + words.row[r]) * p.width;
    for (int64_t d = threadIdx.x; d < p.width; d += blockDim.x) {
      to[d] = p.scale * query_grad[r * p.width + d];  // the last side's columns are this thread's
    }
  }
}

template <class A, int32_t R, int32_t P>
struct PatchesShared {
  WordsShared<A, R> words;
  A attention[P * R], slope[P * R];
  // Behind it: query [R, width], pooled gradient [R, value_width], and the gradients of keys
  // [P, width] and values [P, value_width].
};

// Adds one column, kept in registers.
template <int32_t P, class A>
__device__ __forceinline__ void add_rows(const A* sums, A* column, int64_t width) {
#pragma unroll
  for (int32_t n = 0; n < P; ++n) column[n * width] += sums[n];
}

// The gradients of keys and values of P patches. The grid is pairs * (tiles of sketch + of photo
// patches).
template <class S, int32_t R, int32_t P>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    patches_kernel(Problem<S> p, Backward<S> g, int64_t sketch_tiles, int64_t tiles) {
  using A = Accumulate<S>;
  ZSBIR_DYNAMIC_SHARED(memory);
  auto& s = *reinterpret_cast<PatchesShared<A, R, P>*>(memory);
  A* query = reinterpret_cast<A*>(&s + 1);
  A* grad = query + R * p.width;
  A* key_grad = grad + R * p.value_width;
  A* value_grad = key_grad + P * p.width;
  const int64_t pair = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int32_t side = tile < sketch_tiles ? kSketch : kPhoto;
  const int64_t patches = pick(p.side, side).patches;
  const int64_t first = (tile - (side == kSketch ? 0 : sketch_tiles)) * P;
  const int32_t count = int32_t(min(patches - first, int64_t(P)));
  const int64_t key = (pair * patches + first) * p.width;
  const int64_t value = (pair * patches + first) * p.value_width;
  // A thread owns the same columns from here to the end.
  for (int64_t d = threadIdx.x; d < p.width; d += blockDim.x) {
    for (int32_t n = 0; n < P; ++n) key_grad[n * p.width + d] = 0;
  }
  for (int64_t d = threadIdx.x; d < p.value_width; d += blockDim.x) {
    for (int32_t n = 0; n < P; ++n) value_grad[n * p.value_width + d] = 0;
  }
  Words<R>& words = s.words.words;
  for (int64_t next = 0; next < p.words; next += R) {
    // Its barrier also keeps rows and weights until every column of the last words is added up.
    words.find(mask_of(p, pair), p.words, next);
    if (words.count == 0) break;
    load_queries<R>(p, pair, words, query);
    load_gradients<R>(p, g, pair, side, s.words, grad);
    __syncthreads();  // queries, gradients and means are complete before the products
    tile_slopes<R>(p, query, grad, pick(p.side, side).keys + key, pick(p.side, side).values + value,
                   count, s.words, s.attention, s.slope);
    __syncthreads();  // attention and slopes are complete before the columns add them up
    tile_columns<P>(s.attention, 1, R, grad, p.value_width, R, [&](int64_t d, const A* sum) {
      add_rows<P>(sum, value_grad + d, p.value_width);
    });
    tile_columns<P>(s.slope, 1, R, query, p.width, R,
                    [&](int64_t d, const A* sum) { add_rows<P>(sum, key_grad + d, p.width); });
  }
  for (int64_t d = threadIdx.x; d < p.width; d += blockDim.x) {
    for (int32_t n = 0; n < count; ++n) {
      narrow(key_grad[n * p.width + d], pick(g.keys, side)[key + n * p.width + d]);
    }
  }
  for (int64_t d = threadIdx.x; d < p.value_width; d += blockDim.x) {
    for (int32_t n = 0; n < count; ++n) {
      narrow(value_grad[n * p.value_width + d],
             pick(g.values, side)[value + n * p.value_width + d]);
    }
  }
}

// A block takes a word of a class.
template <class A, class S>
__global__ void __launch_bounds__(kThreads) class_sums_kernel(ClassSums<A> sums, S* out) {
  const int64_t row = blockIdx.x, label = row / sums.words, j = row % sums.words;
  const bool valid = sums.mask[row] != 0;
  for (int64_t d = threadIdx.x; d < sums.width; d += blockDim.x) {
    A sum = 0;
    for (int64_t pair = 0; valid && pair < sums.pairs; ++pair) {
      if (sums.labels[pair] != label) continue;
      sum += sums.rows[(pair * sums.words + j) * sums.width + d];
    }
    narrow(sum, out[row * sums.width + d]);
  }
}

}  // namespace zsbir::token_weighting
