// Launchers of token_weighting on CUDA: they choose tensor cores or plain products, the words of a
// block, the grid and the shared memory.
#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include "common/cuda_guard.h"
#include "common/mma.cuh"
#include "token_weighting/grid.h"
#include "token_weighting/pairwise_kernels.cuh"
#include "token_weighting/token_weighting.h"
#include "token_weighting/token_weighting_kernels.cuh"
#include "token_weighting/token_weighting_mma.h"

namespace zsbir::token_weighting {

namespace {

constexpr int32_t kWords = 8, kFewWords = 2;      // of a block: as many as its shared memory holds
constexpr int32_t kPatches = 8, kFewPatches = 4;  // of a block of patches_kernel

bool fits(const DeviceGuard& device, size_t bytes) {
  return bytes <= size_t(device.attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

template <int32_t value>
using Constant = std::integral_constant<int32_t, value>;

template <class S, int32_t R>
size_t forward_bytes(const Problem<S>& p) {
  using A = Accumulate<S>;
  return sizeof(ForwardShared<A, R>) + sizeof(A) * R * (p.width + p.sides * p.value_width);
}
template <class S, int32_t R>
size_t words_bytes(const Problem<S>& p) {
  using A = Accumulate<S>;
  return sizeof(WordsBackwardShared<A, R>) + sizeof(A) * R * (2 * p.width + p.value_width);
}
template <class S, int32_t R, int32_t P>
size_t patches_bytes(const Problem<S>& p) {
  using A = Accumulate<S>;
  return sizeof(PatchesShared<A, R, P>) + sizeof(A) * (R + P) * (p.width + p.value_width);
}

template <class S>
void plain_forward(const DeviceGuard& device, const Problem<S>& problem,
                   const Forward<Accumulate<S>>& out, void* stream) {
  const auto run = [&](auto rows) {
    const int64_t tiles = std::max<int64_t>(ceil_div(problem.words, rows()), 1);
    launch(device, "forward_kernel", forward_kernel<S, rows()>,
           grid_of(problem.pairs * tiles, "forward_kernel"), kThreads,
           forward_bytes<S, rows()>(problem), stream, problem, out, tiles);
  };
  fits(device, forward_bytes<S, kWords>(problem)) ? run(Constant<kWords>())
                                                  : run(Constant<kFewWords>());
}

template <class S>
void plain_words(const DeviceGuard& device, const Problem<S>& problem, const Backward<S>& gradients,
                 void* stream) {
  const auto run = [&](auto rows) {
    const int64_t tiles = ceil_div(problem.words, rows());
    if (tiles == 0) return;
    launch(device, "words_kernel", words_kernel<S, rows()>,
           grid_of(problem.pairs * tiles, "words_kernel"), kThreads,
           words_bytes<S, rows()>(problem), stream, problem, gradients, tiles);
  };
  fits(device, words_bytes<S, kWords>(problem)) ? run(Constant<kWords>())
                                                : run(Constant<kFewWords>());
}

template <class S>
void plain_patches(const DeviceGuard& device, const Problem<S>& problem,
                   const Backward<S>& gradients, void* stream) {
  const auto run = [&](auto rows, auto patches) {
    const int64_t sketch = ceil_div(problem.side[kSketch].patches, patches());
    const int64_t photo =
        problem.sides < kSides ? 0 : ceil_div(problem.side[kPhoto].patches, patches());
    launch(device, "patches_kernel", patches_kernel<S, rows(), patches()>,
           grid_of(problem.pairs * (sketch + photo), "patches_kernel"), kThreads,
           patches_bytes<S, rows(), patches()>(problem), stream, problem, gradients, sketch,
           sketch + photo);
  };
  fits(device, patches_bytes<S, kWords, kPatches>(problem))
      ? run(Constant<kWords>(), Constant<kPatches>())
      : run(Constant<kFewWords>(), Constant<kFewPatches>());
}

}  // namespace

template <class S>
void forward_cuda(const Problem<S>& problem, const Forward<Accumulate<S>>& out, int device,
                  void* stream, Products products) {
  if (problem.pairs == 0) return;
  const DeviceGuard guard(device);
  bool done = false;
  if constexpr (kHasMma<S>) {
    done = products == Products::best && forward_mma(guard, problem, out, stream);
  }
  if (!done) plain_forward(guard, problem, out, stream);
  if (problem.sides < kSides) return;
  launch(guard, "scores_kernel", scores_kernel<S>,
         grid_of(ceil_div(problem.pairs, kWarp), "scores_kernel"), kWarp, 0, stream, problem, out);
}

template <class S>
void backward_cuda(const Problem<S>& problem, const Backward<S>& gradients, int device,
                   void* stream, Products products) {
  if (problem.pairs == 0) return;
  const DeviceGuard guard(device);
  bool words = false, patches = false;
  if constexpr (kHasMma<S>) {
    words = products == Products::best && words_mma(guard, problem, gradients, stream);
    patches = products == Products::best && patches_mma(guard, problem, gradients, stream);
  }
  if (!words) plain_words(guard, problem, gradients, stream);
  if (!patches) plain_patches(guard, problem, gradients, stream);
}

template <class A, class S>
void class_sums_cuda(const ClassSums<A>& sums, S* out, int device, void* stream) {
  if (sums.classes * sums.words * sums.width == 0) return;
  launch(DeviceGuard(device), "class_sums_kernel", class_sums_kernel<A, S>,
         grid_of(sums.classes * sums.words, "class_sums_kernel"), kThreads, 0, stream, sums, out);
}

template <class S>
void pairwise_forward_cuda(const Pairwise<S>& problem, const PairwiseForward<Accumulate<S>>& out,
                           int device, void* stream) {
  using A = Accumulate<S>;
  const DeviceGuard guard(device);
  for (int32_t side = 0; side < kSides; ++side) {
    const Tokens<S>& tokens = problem.side[side];
    const int64_t blocks = ceil_div(tokens.items * tokens.patches, kThreads / kWarp);
    if (blocks == 0) continue;
    launch(guard, "norms_kernel", norms_kernel<S>, grid_of(blocks, "norms_kernel"), kThreads, 0,
           stream, tokens, problem.width, out.inverse_norm[side]);
  }
  if (problem.pairs() == 0) return;
  const auto run = [&](auto rows) {
    const int64_t tiles = ceil_div(problem.side[kSketch].patches, rows());
    const size_t bytes = sizeof(BestShared<A, rows()>) + sizeof(A) * rows() * problem.width;
    launch(guard, "best_kernel", best_kernel<S, rows()>,
           grid_of(problem.pairs() * tiles, "best_kernel"), kThreads, bytes, stream, problem, out,
           tiles);
  };
  const size_t bytes = sizeof(BestShared<A, kWords>) + sizeof(A) * kWords * problem.width;
  fits(guard, bytes) ? run(Constant<kWords>()) : run(Constant<kFewWords>());
  launch(guard, "pairwise_scores_kernel", pairwise_scores_kernel<S>,
         grid_of(ceil_div(problem.pairs(), kWarp), "pairwise_scores_kernel"), kWarp, 0, stream,
         problem, out);
}

template <class S>
void pairwise_backward_cuda(const Pairwise<S>& problem, const PairwiseBackward<S>& gradients,
                            int device, void* stream) {
  const DeviceGuard guard(device);
  const auto run = [&](const auto& kernel, int32_t side) {
    const int64_t blocks = problem.side[side].items * problem.side[side].patches;
    if (blocks == 0) return;
    launch(guard, "pairwise_gradient_kernel", kernel, grid_of(blocks, "pairwise_gradient_kernel"),
           kThreads, 0, stream, problem, gradients);
  };
  run(pairwise_gradient_kernel<S, kSketch>, kSketch);
  run(pairwise_gradient_kernel<S, kPhoto>, kPhoto);
}

#define ZSBIR_INSTANTIATE(S)                                                                   \
  template void forward_cuda<S>(const Problem<S>&, const Forward<Accumulate<S>>&, int, void*,  \
                                Products);                                                     \
  template void backward_cuda<S>(const Problem<S>&, const Backward<S>&, int, void*, Products); \
  template void class_sums_cuda<Accumulate<S>, S>(const ClassSums<Accumulate<S>>&, S*, int,    \
                                                  void*);                                      \
  template void pairwise_forward_cuda<S>(const Pairwise<S>&,                                   \
                                         const PairwiseForward<Accumulate<S>>&, int, void*);   \
  template void pairwise_backward_cuda<S>(const Pairwise<S>&, const PairwiseBackward<S>&, int, \
                                          void*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
ZSBIR_INSTANTIATE(Half)
ZSBIR_INSTANTIATE(BFloat16)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::token_weighting
