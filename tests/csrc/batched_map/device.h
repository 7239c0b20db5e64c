// The CUDA kernels on a GPU, with host memory in and out, as emulated.h runs them on CPU threads.
#pragma once
#include "batched_map/batched_map_kernels.cuh"
#include "launch_shape.h"
#include "on_device.h"

namespace kernels {

template <class T>
void rank_counts(const zsbir::batched_map::Scores<T>& host,
                 const zsbir::batched_map::Relevant<T>& host_relevant, int32_t* host_counts,
                 const LaunchShape& shape) {
  using namespace zsbir::batched_map;
  const int64_t nnz = host_relevant.offsets[host.queries];
  const int64_t elements =
      host.queries == 0 ? 0 : (host.queries - 1) * host.row_stride + host.gallery;
  const OnDevice data(host.data, elements);
  const OnDevice query_class(host.query_class, host.queries);
  const OnDevice gallery_class(host.gallery_class, host.gallery);
  const OnDevice gallery_index(host.gallery_index, host.gallery);
  const OnDevice offsets(host_relevant.offsets, host.queries + 1);
  const OnDevice key(host_relevant.key, nnz);
  const OnDevice index(host_relevant.index, nnz);
  const OnDevice counts(host_counts, kCountRows * nnz);
  Scores<T> scores = host;
  scores.data = data.get();
  scores.query_class = query_class.get();
  scores.gallery_class = gallery_class.get();
  scores.gallery_index = gallery_index.get();
  const Relevant<T> relevant{offsets.get(), key.get(), index.get()};
  const LaunchShape usual;
  if (shape.threads == usual.threads && shape.capacity == usual.capacity &&
      shape.columns_per_slice == usual.columns_per_slice) {
    rank_counts_cuda(scores, relevant, counts.get(), 0, nullptr);
  } else {
    const int64_t slice = std::min<int64_t>(shape.columns_per_slice, host.gallery);
    const dim3 grid(unsigned(host.queries), unsigned((host.gallery + slice - 1) / slice));
    with_capacity(shape, [&]<int32_t capacity>() {
      zsbir::launch(zsbir::DeviceGuard(0), "rank_counts_kernel", rank_counts_kernel<T, capacity>,
                    grid, shape.threads, sizeof(RankCountsShared<T, capacity>), nullptr, scores,
                    relevant, counts.get(), int32_t(slice));
    });
  }
  counts.copy_to(host_counts);
}

template <class T>
void ranking_metrics(int64_t queries, const zsbir::batched_map::Relevant<T>& host_relevant,
                     const int32_t* host_counts,
                     const zsbir::batched_map::Definition& host_definition, double* host_out) {
  using namespace zsbir::batched_map;
  const int64_t nnz = host_relevant.offsets[queries];
  const OnDevice offsets(host_relevant.offsets, queries + 1);
  const OnDevice key(host_relevant.key, nnz);
  const OnDevice counts(host_counts, kCountRows * nnz);
  const OnDevice ks(host_definition.ks, host_definition.n_ks);
  const OnDevice out(host_out, queries * (kFixedColumns + kColumnsPerK * host_definition.n_ks));
  Definition definition = host_definition;
  definition.ks = ks.get();
  ranking_metrics_cuda<T>(queries, {offsets.get(), key.get(), nullptr}, counts.get(), definition,
                          out.get(), 0, nullptr);
  out.copy_to(host_out);
}

}  // namespace kernels
