// Launchers of token_weighting on tensor cores; mma_launch.h chooses grid and shared memory.
#include <cstdint>
#include <type_traits>

#include "token_weighting/grid.h"
#include "token_weighting/mma_launch.h"
#include "token_weighting/token_weighting_mma.h"

namespace zsbir::token_weighting {

namespace {

// Whether the code that this device would run was compiled for tensor cores. The architecture it
// was compiled for counts, not the device's: from a build for sm_75 alone, newer devices run empty
// bodies.
template <class Kernel>
bool can_run(Kernel* kernel) {
  cudaFuncAttributes attributes;
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  return attributes.ptxVersion >= 10 * kMmaCapability;
}

size_t limit(const DeviceGuard& device) {
  return size_t(device.attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

// run(std::integral_constant<int32_t, words of a block>).
template <class Run>
void by_words(int32_t words, const Run& run) {
  if (words == kMmaWords) {
    run(std::integral_constant<int32_t, kMmaWords>());
  } else {
    run(std::integral_constant<int32_t, kMmaFewWords>());
  }
}

}  // namespace

template <class S>
bool forward_mma(const DeviceGuard& device, const Problem<S>& problem, const Forward<float>& out,
                 void* stream) {
  if (!can_run(forward_mma_kernel<S, kMmaFewWords>)) return false;
  const MmaLaunch shape = forward_mma_launch(problem, out, limit(device));
  if (shape.words == 0) return false;
  const int64_t tiles = std::max<int64_t>(ceil_div(problem.words, shape.words), 1);
  by_words(shape.words, [&](auto words) {
    launch(device, "forward_mma_kernel", forward_mma_kernel<S, words()>,
           grid_of(problem.pairs * tiles, "forward_mma_kernel"), shape.threads, shape.shared,
           stream, problem, out, tiles);
  });
  return true;
}

template <class S>
bool words_mma(const DeviceGuard& device, const Problem<S>& problem, const Backward<S>& gradients,
               void* stream) {
  if (!can_run(words_mma_kernel<S, kMmaFewWords>)) return false;
  const MmaLaunch shape = words_mma_launch(problem, gradients, limit(device));
  if (shape.words == 0) return false;
  const int64_t tiles = ceil_div(problem.words, shape.words);
  if (tiles == 0) return true;
  by_words(shape.words, [&](auto words) {
    launch(device, "words_mma_kernel", words_mma_kernel<S, words()>,
           grid_of(problem.pairs * tiles, "words_mma_kernel"), shape.threads, shape.shared, stream,
           problem, gradients, tiles);
  });
  return true;
}

template <class S>
bool patches_mma(const DeviceGuard& device, const Problem<S>& problem, const Backward<S>& gradients,
                 void* stream) {
  if (!can_run(patches_mma_kernel<S, kMmaFewWords>)) return false;
  const MmaLaunch shape = patches_mma_launch(problem, gradients, limit(device));
  if (shape.words == 0) return false;
  const int64_t patches = int64_t(shape.threads / kWarp) * kGroup;
  const int64_t sketch = ceil_div(problem.side[kSketch].patches, patches);
  const int64_t photo =
      problem.sides < kSides ? 0 : ceil_div(problem.side[kPhoto].patches, patches);
  by_words(shape.words, [&](auto words) {
    launch(device, "patches_mma_kernel", patches_mma_kernel<S, words()>,
           grid_of(problem.pairs * (sketch + photo), "patches_mma_kernel"), shape.threads,
           shape.shared, stream, problem, gradients, sketch, sketch + photo);
  });
  return true;
}

#define ZSBIR_INSTANTIATE(S)                                                                    \
  template bool forward_mma<S>(const DeviceGuard&, const Problem<S>&, const Forward<float>&,    \
                               void*);                                                          \
  template bool words_mma<S>(const DeviceGuard&, const Problem<S>&, const Backward<S>&, void*); \
  template bool patches_mma<S>(const DeviceGuard&, const Problem<S>&, const Backward<S>&, void*);
ZSBIR_INSTANTIATE(Half)
ZSBIR_INSTANTIATE(BFloat16)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::token_weighting
