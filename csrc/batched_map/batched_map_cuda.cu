// Launchers of batched_map on CUDA: they choose grid and shared memory for this device and problem.
#include <algorithm>
#include <cstdint>
#include <string>

#include "batched_map/batched_map.h"
#include "batched_map/batched_map_kernels.cuh"
#include "common/cuda_guard.h"

namespace zsbir::batched_map {

namespace {

constexpr int64_t kMaxGridX = 2147483647, kMaxGridY = 65535;  // hardware limits

constexpr int32_t kCapacity = 2048;  // relevant items at a time: 49 KB of shared memory in float
constexpr int64_t kBlocksPerSm = 8;  // about two waves of resident blocks hide a ragged end
constexpr int64_t kMinSlice = 8192;  // columns that outweigh building a table and merging counters
constexpr int64_t kSliceMultiple = 128;  // slices keep the alignment of their row

constexpr int32_t kMetricsThreads = 32;  // few queries, long sequential sums: spread over all SMs

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

unsigned grid_x(int64_t blocks, const char* kernel) {
  if (blocks > kMaxGridX) {
    throw std::runtime_error(std::string(kernel) + ": at most 2^31 - 1 blocks of queries, got " +
                             std::to_string(blocks));
  }
  return unsigned(blocks);
}

// One slice per row if the queries alone fill the device.
int64_t slice_columns(int64_t queries, int64_t gallery, const DeviceGuard& device) {
  const int64_t wanted = kBlocksPerSm * device.attribute(cudaDevAttrMultiProcessorCount);
  const int64_t most = std::min(ceil_div(gallery, kMinSlice), kMaxGridY);
  const int64_t slices = std::clamp<int64_t>(ceil_div(wanted, queries), 1, most);
  return ceil_div(ceil_div(gallery, slices), kSliceMultiple) * kSliceMultiple;
}

}  // namespace

template <class T>
void rank_counts_cuda(const Scores<T>& scores, const Relevant<T>& relevant, int32_t* counts,
                      int device, void* stream) {
  if (scores.queries == 0 || scores.gallery == 0) return;
  const DeviceGuard guard(device);
  const int64_t columns = slice_columns(scores.queries, scores.gallery, guard);
  const dim3 grid(grid_x(scores.queries, "rank_counts_kernel"),
                  unsigned(ceil_div(scores.gallery, columns)));
  launch(guard, "rank_counts_kernel", rank_counts_kernel<T, kCapacity>, grid, kRankCountsThreads,
         sizeof(RankCountsShared<T, kCapacity>), stream, scores, relevant, counts,
         int32_t(columns));
}

template <class T>
void ranking_metrics_cuda(int64_t queries, const Relevant<T>& relevant, const int32_t* counts,
                          const Definition& definition, double* out, int device, void* stream) {
  if (queries == 0) return;
  const DeviceGuard guard(device);
  const dim3 grid(grid_x(ceil_div(queries, kMetricsThreads), "ranking_metrics_kernel"));
  launch(guard, "ranking_metrics_kernel", ranking_metrics_kernel<T>, grid, kMetricsThreads, 0,
         stream, queries, relevant, counts, definition, out);
}

#define ZSBIR_INSTANTIATE(T)                                                                     \
  template void rank_counts_cuda<T>(const Scores<T>&, const Relevant<T>&, int32_t*, int, void*); \
  template void ranking_metrics_cuda<T>(int64_t, const Relevant<T>&, const int32_t*,             \
                                        const Definition&, double*, int, void*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::batched_map
