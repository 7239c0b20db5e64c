// The CUDA kernels of the room, run by cuda_emulation.h, as device.h runs them on a GPU.
#pragma once
#include "cuda_emulation.h"
#include "launch_shape.h"
// After it, because it says what __global__ is:
#include "batched_map/batched_map_kernels.cuh"

namespace kernels {

template <class T>
void rank_counts(const zsbir::batched_map::Scores<T>& scores,
                 const zsbir::batched_map::Relevant<T>& relevant, int32_t* counts,
                 const LaunchShape& shape) {
  if (scores.queries == 0 || scores.gallery == 0) return;
  const int64_t slice = std::min<int64_t>(shape.columns_per_slice, scores.gallery);
  const dim3 grid{unsigned(scores.queries), unsigned((scores.gallery + slice - 1) / slice), 1};
  with_capacity(shape, [&]<int32_t capacity>() {
    emulation::launch(zsbir::batched_map::rank_counts_kernel<T, capacity>, grid, shape.threads,
                      sizeof(zsbir::batched_map::RankCountsShared<T, capacity>), scores, relevant,
                      counts, int32_t(slice));
  });
}

template <class T>
void ranking_metrics(int64_t queries, const zsbir::batched_map::Relevant<T>& relevant,
                     const int32_t* counts, const zsbir::batched_map::Definition& definition,
                     double* out) {
  if (queries == 0) return;
  emulation::launch(zsbir::batched_map::ranking_metrics_kernel<T>,
                    {unsigned((queries + 31) / 32), 1, 1}, 32, 0, queries, relevant, counts,
                    definition, out);
}

}  // namespace kernels
