// Launchers of quadruplet_mining on CUDA: they choose grids for this device and problem.
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/cuda_guard.h"
#include "quadruplet_mining/batch_all_kernels.cuh"
#include "quadruplet_mining/mining_kernels.cuh"
#include "quadruplet_mining/quadruplet_mining.h"
#include "quadruplet_mining/quadruplet_mining_kernels.cuh"

namespace zsbir::quadruplet_mining {

namespace {

constexpr int64_t kMaxGridX = 2147483647, kMaxGridY = 65535;  // hardware limits

constexpr int32_t kSide = 16;          // 256 threads; tiles of 64 x 64 distances, in double 32 x 32
constexpr int32_t kWarpThreads = 128;  // of kernels in which a warp works alone
constexpr int32_t kMiningThreads = 128;
constexpr int32_t kGatherThreads = 256;
constexpr int32_t kCapacity = 1024;  // thresholds of a row at a time: 16 KB of shared memory

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

dim3 grid_of(int64_t x, int64_t y, const char* kernel) {
  if (x > kMaxGridX || y > kMaxGridY) {
    throw std::runtime_error(std::string(kernel) + ": the batch is too large for one launch, " +
                             std::to_string(x) + " x " + std::to_string(y) + " blocks");
  }
  return dim3(unsigned(x), unsigned(y));
}

template <class T>
constexpr int64_t kTile = DistanceTile<T, kSide>::kTile;

}  // namespace

template <class T>
void pair_distances_cuda(Rows<T> a, Rows<T> b, Distance distance, T* out, int device,
                         void* stream) {
  if (a.count == 0 || b.count == 0) return;
  const dim3 grid =
      grid_of(ceil_div(b.count, kTile<T>), ceil_div(a.count, kTile<T>), "pair_distances");
  launch(DeviceGuard(device), "pair_distances_kernel", pair_distances_kernel<T, kSide>, grid,
         kSide * kSide, 0, stream, a, b, distance, out);
}

template <class T>
void select_pairs_cuda(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                       const Estimates<T>& estimates, Distance distance, int32_t wanted,
                       int64_t* index, T* chosen, int device, void* stream) {
  if (estimates.rows == 0) return;
  launch(DeviceGuard(device), "select_kernel", select_kernel<T>,
         grid_of(estimates.rows, 1, "select_pairs"), kMiningThreads, 0, stream, anchors, references,
         filter, estimates, distance, wanted, index, chosen);
}

template <class T>
void quadruplet_hinges_cuda(const MinedRows<T>& rows, const HingeForm& form, Distance distance,
                            T* hinges, T* slopes, int device, void* stream) {
  if (rows.sketches.count == 0) return;
  const dim3 grid =
      grid_of(ceil_div(rows.sketches.count * kWarp, kWarpThreads), 1, "quadruplet_hinges");
  launch(DeviceGuard(device), "quadruplet_hinges_kernel", quadruplet_hinges_kernel<T>, grid,
         kWarpThreads, 0, stream, rows, form, distance, hinges, slopes);
}

template <class T>
void quadruplet_hinges_backward_cuda(const MinedRows<T>& rows, Distance distance, const T* slopes,
                                     const T* upstream, T* sketches_grad, T* photos_grad,
                                     T* references_grad, int device, void* stream) {
  const int64_t all = rows_with_gradient(rows, sketches_grad, photos_grad, references_grad);
  if (all == 0) return;
  launch(DeviceGuard(device), "quadruplet_hinges_backward_kernel",
         quadruplet_hinges_backward_kernel<T>, grid_of(all, 1, "quadruplet_hinges_backward"),
         kGatherThreads, 0, stream, rows, distance, slopes, upstream, sketches_grad, photos_grad,
         references_grad);
}

template <class T>
void hinge_rows_cuda(const HingeRows<T>& problem, double* sums, double* active, T* by_threshold,
                     T* by_value, int device, void* stream) {
  if (problem.rows == 0) return;
  launch(DeviceGuard(device), "hinge_rows_kernel", hinge_rows_kernel<T, kCapacity>,
         grid_of(problem.rows, 1, "hinge_rows"), kHingeThreads,
         sizeof(HingeRowShared<T, kCapacity>), stream, problem, sums, active, by_threshold,
         by_value);
}

template <class T>
void probe_pairs_cuda(const Probes<T>& problem, double* sums, T* by_value, int64_t* hits,
                      int64_t* class_hits, int device, void* stream) {
  if (problem.rows == 0) return;
  launch(DeviceGuard(device), "probe_pairs_kernel", probe_pairs_kernel<T>,
         grid_of(problem.rows, 1, "probe_pairs"), kGatherThreads, 0, stream, problem, sums,
         by_value, reinterpret_cast<Counter*>(hits), reinterpret_cast<Counter*>(class_hits));
}

template <class T>
void union_counts_cuda(const UnionRows<T>& problem, T* out, int device, void* stream) {
  if (problem.rows == 0 || problem.columns == 0) return;
  const dim3 grid =
      grid_of(ceil_div(problem.columns * kWarp, kWarpThreads), problem.rows, "union_counts");
  launch(DeviceGuard(device), "union_counts_kernel", union_counts_kernel<T>, grid, kWarpThreads, 0,
         stream, problem, out);
}

template <class T>
void probe_union_cuda(const ProbeUnion<T>& problem, int64_t* totals, int device, void* stream) {
  if (problem.count == 0) return;
  const dim3 grid = grid_of(ceil_div(problem.count * kWarp, kWarpThreads), 1, "probe_union");
  launch(DeviceGuard(device), "probe_union_kernel", probe_union_kernel<T>, grid, kWarpThreads, 0,
         stream, problem, totals);
}

#define ZSBIR_INSTANTIATE(T)                                                                       \
  template void pair_distances_cuda<T>(Rows<T>, Rows<T>, Distance, T*, int, void*);                \
  template void select_pairs_cuda<T>(Rows<T>, Rows<T>, const SelectFilter<T>&,                     \
                                     const Estimates<T>&, Distance, int32_t, int64_t*, T*, int,    \
                                     void*);                                                       \
  template void quadruplet_hinges_cuda<T>(const MinedRows<T>&, const HingeForm&, Distance, T*, T*, \
                                          int, void*);                                             \
  template void quadruplet_hinges_backward_cuda<T>(const MinedRows<T>&, Distance, const T*,        \
                                                   const T*, T*, T*, T*, int, void*);              \
  template void hinge_rows_cuda<T>(const HingeRows<T>&, double*, double*, T*, T*, int, void*);     \
  template void probe_pairs_cuda<T>(const Probes<T>&, double*, T*, int64_t*, int64_t*, int,        \
                                    void*);                                                        \
  template void union_counts_cuda<T>(const UnionRows<T>&, T*, int, void*);                         \
  template void probe_union_cuda<T>(const ProbeUnion<T>&, int64_t*, int, void*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::quadruplet_mining
