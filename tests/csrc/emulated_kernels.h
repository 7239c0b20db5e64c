// The CUDA kernels of all rooms, run by cuda_emulation.h behind the arguments of their launchers.
#pragma once
#include "cuda_emulation.h"
// After it, because it says what __global__ is:
#include "batched_map/batched_map_kernels.cuh"

namespace emulation {

// What a launcher would choose. Tests choose other shapes, and a small capacity to see segments:
// one of 1, 7 and 2048.
struct Shape {
  int32_t threads = 64;
  int32_t columns_per_slice = 1 << 30;
  int32_t capacity = 2048;
};

template <class T>
void rank_counts(const zsbir::batched_map::Scores<T>& scores,
                 const zsbir::batched_map::Relevant<T>& relevant, int32_t* counts,
                 const Shape& shape) {
  if (scores.queries == 0 || scores.gallery == 0) return;
  const int64_t slice = std::min<int64_t>(shape.columns_per_slice, scores.gallery);
  const dim3 grid{unsigned(scores.queries), unsigned((scores.gallery + slice - 1) / slice), 1};
  const auto run = [&]<int32_t capacity>(std::integral_constant<int32_t, capacity>) {
    launch(zsbir::batched_map::rank_counts_kernel<T, capacity>, grid, shape.threads,
           sizeof(zsbir::batched_map::RankCountsShared<T, capacity>), scores, relevant, counts,
           int32_t(slice));
  };
  if (shape.capacity == 1) {
    run(std::integral_constant<int32_t, 1>());
  } else if (shape.capacity == 7) {
    run(std::integral_constant<int32_t, 7>());
  } else {
    run(std::integral_constant<int32_t, 2048>());
  }
}

template <class T>
void ranking_metrics(int64_t queries, const zsbir::batched_map::Relevant<T>& relevant,
                     const int32_t* counts, const zsbir::batched_map::Definition& definition,
                     double* out) {
  if (queries == 0) return;
  launch(zsbir::batched_map::ranking_metrics_kernel<T>, {unsigned((queries + 31) / 32), 1, 1}, 32,
         0, queries, relevant, counts, definition, out);
}

}  // namespace emulation
