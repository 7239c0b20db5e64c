// The CUDA kernels of the room, run by cuda_emulation.h, as device.h runs them on a GPU.
#pragma once
#include "cuda_emulation.h"
// After it, because it says what __global__ is:
#include "mma_emulation.h"
#include "mma_product.h"
#include "token_weighting/mma_launch.h"
#include "token_weighting/pairwise_kernels.cuh"
#include "token_weighting/token_weighting_kernels.cuh"

namespace kernels {

using namespace zsbir;
using namespace zsbir::token_weighting;

constexpr unsigned kEmulatedThreads = 64;  // two warps, so that warps depend on each other

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline dim3 blocks_of(int64_t blocks) { return {unsigned(blocks), 1, 1}; }

// How much shared memory a block of the emulation has: that of an H200.
constexpr size_t kSharedLimit = 227 * 1024;

// `few`: the variant of the kernels for little shared memory. Which products `last_products` were.
inline Products last_products = Products::plain;
inline bool ran_best() { return last_products == Products::best; }

template <class S, int32_t R>
void forward_by(const Problem<S>& p, const Forward<Accumulate<S>>& out) {
  using A = Accumulate<S>;
  const int64_t tiles = std::max<int64_t>(ceil_div(p.words, R), 1);
  const size_t bytes =
      sizeof(ForwardShared<A, R>) + sizeof(A) * R * (p.width + p.sides * p.value_width);
  emulation::launch(forward_kernel<S, R>, blocks_of(p.pairs * tiles), kEmulatedThreads, bytes, p,
                    out, tiles);
}
template <class S>
bool forward_by_mma(const Problem<S>& p, const Forward<float>& out, bool few) {
  const MmaLaunch shape = forward_mma_launch(p, out, kSharedLimit, few);
  if (shape.words == 0) return false;
  const int64_t tiles = std::max<int64_t>(ceil_div(p.words, shape.words), 1);
  emulation::launch(shape.words == kMmaWords ? forward_mma_kernel<S, kMmaWords>
                                             : forward_mma_kernel<S, kMmaFewWords>,
                    blocks_of(p.pairs * tiles), kEmulatedThreads, shape.shared, p, out, tiles);
  return true;
}
template <class S>
void forward(const Problem<S>& p, const Forward<Accumulate<S>>& out, bool few,
             Products products = Products::best) {
  if (p.pairs == 0) return;
  bool done = false;
  if constexpr (kHasMma<S>) done = products == Products::best && forward_by_mma(p, out, few);
  last_products = done ? Products::best : Products::plain;
  if (!done) few ? forward_by<S, 2>(p, out) : forward_by<S, 8>(p, out);
  if (p.sides == kSides) {
    emulation::launch(scores_kernel<S>, blocks_of(ceil_div(p.pairs, 32)), 32, 0, p, out);
  }
}

template <class S, int32_t R>
void words_by(const Problem<S>& p, const Backward<S>& g) {
  using A = Accumulate<S>;
  const int64_t tiles = ceil_div(p.words, R);
  if (tiles == 0) return;
  const size_t bytes =
      sizeof(WordsBackwardShared<A, R>) + sizeof(A) * R * (2 * p.width + p.value_width);
  emulation::launch(words_kernel<S, R>, blocks_of(p.pairs * tiles), kEmulatedThreads, bytes, p, g,
                    tiles);
}
template <class S, int32_t R, int32_t P>
void patches_by(const Problem<S>& p, const Backward<S>& g) {
  using A = Accumulate<S>;
  const int64_t sketch = ceil_div(p.side[kSketch].patches, P);
  const int64_t photo = p.sides < kSides ? 0 : ceil_div(p.side[kPhoto].patches, P);
  const size_t bytes =
      sizeof(PatchesShared<A, R, P>) + sizeof(A) * (R + P) * (p.width + p.value_width);
  emulation::launch(patches_kernel<S, R, P>, blocks_of(p.pairs * (sketch + photo)),
                    kEmulatedThreads, bytes, p, g, sketch, sketch + photo);
}
template <class S>
bool words_by_mma(const Problem<S>& p, const Backward<S>& g, bool few) {
  const MmaLaunch shape = words_mma_launch(p, g, kSharedLimit, few);
  const int64_t tiles = shape.words == 0 ? 0 : ceil_div(p.words, shape.words);
  if (tiles > 0) {
    emulation::launch(shape.words == kMmaWords ? words_mma_kernel<S, kMmaWords>
                                               : words_mma_kernel<S, kMmaFewWords>,
                      blocks_of(p.pairs * tiles), kEmulatedThreads, shape.shared, p, g, tiles);
  }
  return shape.words > 0;
}
template <class S>
bool patches_by_mma(const Problem<S>& p, const Backward<S>& g, bool few) {
  const MmaLaunch shape = patches_mma_launch(p, g, kSharedLimit, few, kEmulatedThreads / kWarp);
  if (shape.words == 0) return false;
  const int64_t patches = shape.threads / kWarp * kGroup;
  const int64_t sketch = ceil_div(p.side[kSketch].patches, patches);
  const int64_t photo = p.sides < kSides ? 0 : ceil_div(p.side[kPhoto].patches, patches);
  emulation::launch(shape.words == kMmaWords ? patches_mma_kernel<S, kMmaWords>
                                             : patches_mma_kernel<S, kMmaFewWords>,
                    blocks_of(p.pairs * (sketch + photo)), shape.threads, shape.shared, p, g,
                    sketch, sketch + photo);
  return true;
}
template <class S>
void backward(const Problem<S>& p, const Backward<S>& g, bool few,
              Products products = Products::best) {
  if (p.pairs == 0) return;
  bool words = false, patches = false;
  if constexpr (kHasMma<S>) {
    words = products == Products::best && words_by_mma(p, g, few);
    patches = products == Products::best && patches_by_mma(p, g, few);
  }
  last_products = words && patches ? Products::best : Products::plain;
  if (!words) few ? words_by<S, 2>(p, g) : words_by<S, 8>(p, g);
  if (!patches) few ? patches_by<S, 2, 4>(p, g) : patches_by<S, 8, 8>(p, g);
}

// The 16 x 8 products of mma_product.h.
template <class S>
bool mma_product(const S* a, const S* b, float* sum) {
  emulation::launch(mma_product_kernel<S>, blocks_of(1), 32, 0, a, b, sum);
  return true;
}

template <class A, class S>
void class_sums(const ClassSums<A>& sums, S* out) {
  if (sums.classes * sums.words * sums.width == 0) return;
  emulation::launch(class_sums_kernel<A, S>, blocks_of(sums.classes * sums.words), 32, 0, sums,
                    out);
}

template <class S, int32_t R>
void best_by(const Pairwise<S>& p, const PairwiseForward<Accumulate<S>>& out) {
  using A = Accumulate<S>;
  const int64_t tiles = ceil_div(p.side[kSketch].patches, R);
  emulation::launch(best_kernel<S, R>, blocks_of(p.pairs() * tiles), kEmulatedThreads,
                    sizeof(BestShared<A, R>) + sizeof(A) * R * p.width, p, out, tiles);
}
template <class S>
void pairwise_forward(const Pairwise<S>& p, const PairwiseForward<Accumulate<S>>& out, bool few) {
  for (int32_t side = 0; side < kSides; ++side) {
    const int64_t tokens = p.side[side].items * p.side[side].patches;
    if (tokens == 0) continue;
    emulation::launch(norms_kernel<S>, blocks_of(ceil_div(tokens, 2)), kEmulatedThreads, 0,
                      p.side[side], p.width, out.inverse_norm[side]);
  }
  if (p.pairs() == 0) return;
  few ? best_by<S, 2>(p, out) : best_by<S, 8>(p, out);
  emulation::launch(pairwise_scores_kernel<S>, blocks_of(ceil_div(p.pairs(), 32)), 32, 0, p, out);
}

template <class S>
void pairwise_backward(const Pairwise<S>& p, const PairwiseBackward<S>& g) {
  const auto run = [&](auto kernel, int32_t side) {
    const int64_t tokens = p.side[side].items * p.side[side].patches;
    if (tokens > 0) emulation::launch(kernel, blocks_of(tokens), 32, 0, p, g);
  };
  run(pairwise_gradient_kernel<S, kSketch>, kSketch);
  run(pairwise_gradient_kernel<S, kPhoto>, kPhoto);
}

}  // namespace kernels
