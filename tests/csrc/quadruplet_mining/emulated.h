// The CUDA kernels of the room, run by cuda_emulation.h, as device.h runs them on a GPU. Blocks are
// small, and so is the capacity of a row of hinges, so that tests see tiles, slices and segments.
#pragma once
#include "cuda_emulation.h"
// After it, because it says what __global__ is:
#include "quadruplet_mining/batch_all_kernels.cuh"
#include "quadruplet_mining/mining_kernels.cuh"
#include "quadruplet_mining/quadruplet_mining_kernels.cuh"

namespace kernels {

using namespace zsbir::quadruplet_mining;

constexpr int32_t kSide = 8, kThreads = 64, kCapacity = 8;

inline unsigned blocks(int64_t items, int64_t per_block) {
  return unsigned((items + per_block - 1) / per_block);
}

template <class T>
void pair_distances(Rows<T> a, Rows<T> b, Distance distance, T* out) {
  constexpr int64_t tile = DistanceTile<T, kSide>::kTile;
  if (a.count == 0 || b.count == 0) return;
  emulation::launch(pair_distances_kernel<T, kSide>, {blocks(b.count, tile), blocks(a.count, tile)},
                    kSide * kSide, 0, a, b, distance, out);
}

template <class T>
void select_pairs(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                  const Estimates<T>& estimates, Distance distance, int32_t wanted, int64_t* index,
                  T* chosen) {
  if (estimates.rows == 0) return;
  emulation::launch(select_kernel<T>, {unsigned(estimates.rows)}, kThreads, 0, anchors, references,
                    filter, estimates, distance, wanted, index, chosen);
}

template <class T>
void quadruplet_hinges(const MinedRows<T>& rows, const HingeForm& form, Distance distance,
                       T* hinges, T* slopes) {
  if (rows.sketches.count == 0) return;
  emulation::launch(quadruplet_hinges_kernel<T>, {blocks(rows.sketches.count * 32, kThreads)},
                    kThreads, 0, rows, form, distance, hinges, slopes);
}

template <class T>
void quadruplet_hinges_backward(const MinedRows<T>& rows, Distance distance, const T* slopes,
                                const T* upstream, T* sketches_grad, T* photos_grad,
                                T* references_grad) {
  const int64_t all = rows_with_gradient(rows, sketches_grad, photos_grad, references_grad);
  if (all == 0) return;
  emulation::launch(quadruplet_hinges_backward_kernel<T>, {unsigned(all)}, kThreads, 0, rows,
                    distance, slopes, upstream, sketches_grad, photos_grad, references_grad);
}

template <class T>
void hinge_rows(const HingeRows<T>& problem, double* sums, double* active, T* by_threshold,
                T* by_value) {
  if (problem.rows == 0) return;
  emulation::launch(hinge_rows_kernel<T, kCapacity>, {unsigned(problem.rows)}, kThreads,
                    sizeof(HingeRowShared<T, kCapacity>), problem, sums, active, by_threshold,
                    by_value);
}

template <class T>
void probe_pairs(const Probes<T>& problem, double* sums, T* by_value, int64_t* hits,
                 int64_t* class_hits) {
  if (problem.rows == 0) return;
  emulation::launch(probe_pairs_kernel<T>, {unsigned(problem.rows)}, kThreads, 0, problem, sums,
                    by_value, reinterpret_cast<Counter*>(hits),
                    reinterpret_cast<Counter*>(class_hits));
}

template <class T>
void union_counts(const UnionRows<T>& problem, T* out) {
  if (problem.rows == 0 || problem.columns == 0) return;
  emulation::launch(union_counts_kernel<T>,
                    {blocks(problem.columns * 32, kThreads), unsigned(problem.rows)}, kThreads, 0,
                    problem, out);
}

template <class T>
void probe_union(const ProbeUnion<T>& problem, int64_t* totals) {
  if (problem.count == 0) return;
  emulation::launch(probe_union_kernel<T>, {blocks(problem.count * 32, kThreads)}, kThreads, 0,
                    problem, totals);
}

}  // namespace kernels
