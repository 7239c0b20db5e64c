// pairwise_token_score on CUDA: every sketch token against its best photo token.
//
// In / out     tokens S[B,N,D] of both sides -> scores A[pairs], inverse norms, and of every sketch
//              token its largest cosine and the place of it; gradients: see token_weighting.h.
// Algorithm    best_kernel: R sketch tokens against the photo's, kTile at a time, with a running
//              maximum. The backward pass touches the chosen photo tokens only.
// Work         2 N_s N_i D flop per pair forward, O((N_s + N_i) D) backward.
// Memory       Photo tokens are read once per R sketch tokens, from L2 after the first. The matrix
//              of cosines is never stored.
// Mapping      A block per (pair, R sketch tokens); backward a block per token, in which a thread
//              owns columns.
// Numerics     Sums are in A = float, or double.
// Determinism  Bitwise: no atomics; among equals the photo token of the lowest index is chosen.
// Limits       R rows of the width in shared memory; blocks < 2^31; blockDim.x a multiple of 32.
#pragma once
#include <cstdint>

#include "token_weighting/tile.cuh"

namespace zsbir::token_weighting {

// A warp takes a token.
template <class S>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    norms_kernel(Tokens<S> tokens, int64_t width, Accumulate<S>* out) {
  const int64_t token = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (token >= tokens.items * tokens.patches) return;
  const Accumulate<S> inverse =
      warp_inverse_norm<Accumulate<S>>(tokens.data + token * width, width);
  if (threadIdx.x % kWarp == 0) out[token] = inverse;
}

template <class A, int32_t R>
struct BestShared {
  A cosine[kTile * R];  // by photo token
  A most[R];            // of the photo tokens so far
  int32_t best[R];
  // Behind it: unit rows [R, width].
};

// The grid is pairs * tiles of sketch tokens.
template <class S, int32_t R>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    best_kernel(Pairwise<S> p, PairwiseForward<Accumulate<S>> out, int64_t tiles) {
  using A = Accumulate<S>;
  ZSBIR_DYNAMIC_SHARED(memory);
  auto& s = *reinterpret_cast<BestShared<A, R>*>(memory);
  A* unit = reinterpret_cast<A*>(&s + 1);
  const Tokens<S>&sketch = p.side[kSketch], &photo = p.side[kPhoto];
  const int64_t pair = blockIdx.x / tiles, first = blockIdx.x % tiles * R;
  const int64_t from = p.all_pairs ? pair / photo.items : pair;
  const int64_t to = p.all_pairs ? pair % photo.items : pair;
  const int32_t rows = int32_t(min(sketch.patches - first, int64_t(R)));
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int32_t r = 0; r < R; ++r) {
    const int64_t token = from * sketch.patches + first + min(r, rows - 1);
    const A inverse = out.inverse_norm[kSketch][token];
    for (int64_t d = threadIdx.x; d < p.width; d += blockDim.x) {
      unit[r * p.width + d] = inverse * widen(sketch.data[token * p.width + d]);
    }
  }
  for (int32_t r = threadIdx.x; r < R; r += blockDim.x) {
    s.most[r] = -INFINITY;
    s.best[r] = 0;
  }
  __syncthreads();  // unit rows and cleared maxima are complete before the first tile
  for (int64_t begin = 0; begin < photo.patches; begin += kTile) {
    const int32_t count = int32_t(min(photo.patches - begin, int64_t(kTile)));
    const int64_t token = to * photo.patches + begin;
    tile_dots<R>(unit, photo.data + token * p.width, p.width, count,
                 [&](int32_t n, int32_t r, A dot) {
                   s.cosine[n * R + r] = dot * out.inverse_norm[kPhoto][token + n];
                 });
    __syncthreads();  // cosines of the tile are complete before their maximum is sought
    for (int32_t r = warp; r < R; r += blockDim.x / kWarp) {
      const A cosine = lane < count ? s.cosine[lane * R + r] : A(-INFINITY);
      const A most = warp_max(cosine);
      const unsigned equal = __ballot_sync(kFullWarp, cosine == most);
      const unsigned bad = __ballot_sync(kFullWarp, cosine != cosine);  // a maximum passes over NaN
      if (lane == 0 && s.most[r] == s.most[r] && (bad != 0 || most > s.most[r])) {
        s.most[r] = bad != 0 ? A(NAN) : most;
        s.best[r] = int32_t(begin) + __ffs(int32_t(bad != 0 ? bad : equal)) - 1;
      }
    }
    __syncthreads();  // cosines are read before the next tile overwrites them
  }
  for (int32_t r = threadIdx.x; r < rows; r += blockDim.x) {
    out.cosine[pair * sketch.patches + first + r] = s.most[r];
    out.best[pair * sketch.patches + first + r] = s.best[r];
  }
}

// A thread takes a pair.
template <class S>
__global__ void pairwise_scores_kernel(Pairwise<S> p, PairwiseForward<Accumulate<S>> out) {
  const int64_t pair = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pair >= p.pairs()) return;
  const int64_t patches = p.side[kSketch].patches;
  Accumulate<S> total = 0;
  for (int64_t n = 0; n < patches; ++n) total += out.cosine[pair * patches + n];
  out.scores[pair] = total / Accumulate<S>(patches);
}

// The gradient of one token of a sketch or photo, over its pairs in order, and of a photo token
// over the sketch tokens that chose it: d cos / dx = (unit partner - cos * unit own) / |x|. A block
// takes a token.
template <class S, int32_t side>
__global__ void __launch_bounds__(kThreads, kResident<S>)
    pairwise_gradient_kernel(Pairwise<S> p, PairwiseBackward<S> g) {
  using A = Accumulate<S>;
  const Tokens<S>&own = p.side[side], &other = p.side[kSides - 1 - side];
  const int64_t patches = p.side[kSketch].patches;
  const int64_t token = blockIdx.x, item = token / own.patches, row = token % own.patches;
  const A own_inverse = g.inverse_norm[side][token];
  const int64_t partners = p.all_pairs ? other.items : 1;
  for (int64_t d = threadIdx.x; d < p.width; d += blockDim.x) {
    const A unit = widen(own.data[token * p.width + d]) * own_inverse;
    A sum = 0;
    for (int64_t k = 0; k < partners; ++k) {
      const int64_t partner = p.all_pairs ? k : item;
      const int64_t pair = !p.all_pairs      ? item
                           : side == kSketch ? item * other.items + k
                                             : k * own.items + item;
      const A factor = g.grad_scores[pair] / A(patches) * own_inverse;
      for (int64_t n = side == kSketch ? row : 0; n < patches; ++n) {
        const int64_t at = pair * patches + n;
        if (side == kPhoto && g.best[at] != row) continue;
        // An operator may be given any number; one that names no token passes no gradient.
        if (g.best[at] < 0 || g.best[at] >= p.side[kPhoto].patches) break;
        const int64_t chosen = partner * other.patches + (side == kSketch ? g.best[at] : n);
        const A x = widen(other.data[chosen * p.width + d]);
        const A inverse = g.inverse_norm[kSides - 1 - side][chosen];
        sum += factor * (x * inverse - g.cosine[at] * unit);
        if (side == kSketch) break;  // its own row alone
      }
    }
    narrow(sum, g.tokens[side][token * p.width + d]);
  }
}

}  // namespace zsbir::token_weighting
