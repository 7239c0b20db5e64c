// Distances, mining and hinges on CUDA; batch_all_kernels.cuh has the sums over all triplets.
//
// No launch and no library call here: tests/csrc compiles this file for CPU threads, too. Every
// block is one-dimensional. Distances are one chain of fused multiply-adds over the width, as on
// the CPU, and equal to those in all bits.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/block.cuh"
#include "quadruplet_mining/hinges.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

// A square of distances, kPerThread x kPerThread of them in the registers of each thread. The width
// goes through shared memory in chunks: every element that is loaded takes part in kTile
// distances. Rows and columns of a thread are kSide apart, so that neighbouring threads read
// neighbouring words of shared memory and write neighbouring distances.
template <class T, int32_t kSide>
struct DistanceTile {
  static constexpr int32_t kPerThread = sizeof(T) == 8 ? 2 : 4;  // in double more would spill
  static constexpr int32_t kTile = kPerThread * kSide, kThreads = kSide * kSide;
  static constexpr int32_t kChunk = 16;

  struct Shared {
    T a[kChunk][kTile + 1], b[kChunk][kTile + 1];  // + 1: a column of threads hits all banks
  };

  T sum[kPerThread][kPerThread];

  static __device__ __forceinline__ int32_t row() { return threadIdx.x / kSide; }
  static __device__ __forceinline__ int32_t column() { return threadIdx.x % kSide; }

  __device__ void compute(Shared& shared, const Rows<T>& a, int64_t first_row, const Rows<T>& b,
                          int64_t first_column, bool dot) {
    for (int32_t i = 0; i < kPerThread; ++i) {
      for (int32_t j = 0; j < kPerThread; ++j) sum[i][j] = 0;
    }
    for (int64_t from = 0; from < a.width; from += kChunk) {
      load(shared.a, a, first_row, from);
      load(shared.b, b, first_column, from);
      __syncthreads();  // both chunks are complete before any thread reads them
      for (int32_t d = 0; d < kChunk; ++d) {
        T x[kPerThread], y[kPerThread];
#pragma unroll
        for (int32_t i = 0; i < kPerThread; ++i) {
          x[i] = shared.a[d][row() + i * kSide];
          y[i] = shared.b[d][column() + i * kSide];
        }
#pragma unroll
        for (int32_t i = 0; i < kPerThread; ++i) {
#pragma unroll
          for (int32_t j = 0; j < kPerThread; ++j) {
            sum[i][j] = add_element(dot, sum[i][j], x[i], y[j]);
          }
        }
      }
      __syncthreads();  // all have read the chunks before the next ones replace them
    }
  }

 private:
  // Beyond the matrix stands 0, which adds nothing to a sum.
  static __device__ void load(T (&to)[kChunk][kTile + 1], const Rows<T>& rows, int64_t first,
                              int64_t from) {
    for (int32_t i = threadIdx.x; i < kTile * kChunk; i += kThreads) {
      const int32_t r = i / kChunk, d = i % kChunk;
      const bool inside = first + r < rows.count && from + d < rows.width;
      to[d][r] = inside ? rows.data[(first + r) * rows.width + from + d] : T(0);
    }
  }
};

// grid (tiles of b, tiles of a).
template <class T, int32_t kSide>
__global__ void __launch_bounds__(kSide* kSide)
    pair_distances_kernel(Rows<T> a, Rows<T> b, Distance distance, T* out) {
  using Tile = DistanceTile<T, kSide>;
  __shared__ typename Tile::Shared shared;
  const int64_t first_row = int64_t(blockIdx.y) * Tile::kTile;
  const int64_t first_column = int64_t(blockIdx.x) * Tile::kTile;
  Tile tile;
  tile.compute(shared, a, first_row, b, first_column, distance == Distance::one_minus_dot);
  for (int32_t i = 0; i < Tile::kPerThread; ++i) {
    const int64_t r = first_row + Tile::row() + i * kSide;
    for (int32_t j = 0; j < Tile::kPerThread; ++j) {
      const int64_t c = first_column + Tile::column() + j * kSide;
      if (r < a.count && c < b.count) {
        out[r * b.count + c] = distance_of_sum(distance, tile.sum[i][j]);
      }
    }
  }
}

// --- mining -------------------------------------------------------------------------------------

template <class T>
struct Candidate {
  T distance = 0;
  int32_t index = -1;
};

// Whether x is chosen rather than best: nearer (or farther), or as near with a lower index.
template <class T>
__device__ __forceinline__ bool better(int32_t choice, const Candidate<T>& x,
                                       const Candidate<T>& best) {
  if (x.index < 0) return false;
  if (best.index < 0) return true;
  if (x.distance == best.distance) return x.index < best.index;
  const bool nearest = choice == kNearestSame || choice == kNearestOther;
  return nearest ? x.distance < best.distance : x.distance > best.distance;
}

// Takes reference x of an anchor for each choice that it makes better.
template <class T>
__device__ __forceinline__ void consider(const SelectFilter<T>& filter, int64_t anchor,
                                         const Candidate<T>& x, Candidate<T> (&best)[kChoices]) {
  if (filter.low && !(x.distance > filter.low[anchor])) return;
  if (filter.high && !(x.distance < filter.high[anchor])) return;
  const int64_t of = filter.reference_labels[x.index];
  if (of == filter.anchor_labels[anchor]) {
    if (x.index >= filter.same_limit) return;
    if (better(kNearestSame, x, best[kNearestSame])) best[kNearestSame] = x;
    if (better(kFarthestSame, x, best[kFarthestSame])) best[kFarthestSame] = x;
  } else {
    if (filter.forbidden && of == filter.forbidden[anchor]) return;
    if (better(kNearestOther, x, best[kNearestOther])) best[kNearestOther] = x;
    if (better(kFarthestOther, x, best[kFarthestOther])) best[kFarthestOther] = x;
  }
}

// grid (tiles of anchors, slices of references). Every block keeps the best of its slice in
// registers and writes one candidate per anchor and choice: nothing of size anchors x references is
// stored. partial_index, partial_distance [slices, kChoices, anchors].
template <class T, int32_t kSide>
__global__ void __launch_bounds__(kSide* kSide)
    select_kernel(Rows<T> anchors, Rows<T> references, SelectFilter<T> filter, Distance distance,
                  int64_t references_per_slice, int64_t* partial_index, T* partial_distance) {
  using Tile = DistanceTile<T, kSide>;
  constexpr int32_t kRows = Tile::kPerThread;
  __shared__ typename Tile::Shared shared;
  __shared__ T best_distance[Tile::kTile][kSide];
  __shared__ int32_t best_index[Tile::kTile][kSide];
  const int64_t first_anchor = int64_t(blockIdx.x) * Tile::kTile;
  const int64_t begin = int64_t(blockIdx.y) * references_per_slice;
  const int64_t end = min(begin + references_per_slice, references.count);
  Candidate<T> best[kRows][kChoices];
  for (int64_t first = begin; first < end; first += Tile::kTile) {
    Tile tile;
    tile.compute(shared, anchors, first_anchor, references, first,
                 distance == Distance::one_minus_dot);
#pragma unroll
    for (int32_t i = 0; i < kRows; ++i) {
      const int64_t a = min(first_anchor + Tile::row() + i * kSide, anchors.count - 1);
#pragma unroll
      for (int32_t j = 0; j < kRows; ++j) {  // ascending indices
        const int64_t r = first + Tile::column() + j * kSide;
        const T d = distance_of_sum(distance, tile.sum[i][j]);
        if (r < end) consider(filter, a, Candidate<T>{d, int32_t(r)}, best[i]);
      }
    }
  }
#pragma unroll
  for (int32_t choice = 0; choice < kChoices; ++choice) {
#pragma unroll
    for (int32_t i = 0; i < kRows; ++i) {
      best_distance[Tile::row() + i * kSide][Tile::column()] = best[i][choice].distance;
      best_index[Tile::row() + i * kSide][Tile::column()] = best[i][choice].index;
    }
    __syncthreads();  // the candidates of all threads of a row are there before one compares them
    for (int32_t r = threadIdx.x; r < Tile::kTile; r += Tile::kThreads) {
      Candidate<T> chosen;
      for (int32_t c = 0; c < kSide; ++c) {
        const Candidate<T> x{best_distance[r][c], best_index[r][c]};
        if (better(choice, x, chosen)) chosen = x;
      }
      if (first_anchor + r >= anchors.count) break;
      const int64_t at =
          (int64_t(blockIdx.y) * kChoices + choice) * anchors.count + first_anchor + r;
      partial_index[at] = chosen.index;
      partial_distance[at] = chosen.distance;
    }
    __syncthreads();  // compared, before the candidates of the next choice replace them
  }
}

// One thread per choice and anchor: the best of all slices.
template <class T>
__global__ void merge_slices_kernel(int64_t anchors, int64_t slices, const int64_t* partial_index,
                                    const T* partial_distance, int64_t* index, T* chosen) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= kChoices * anchors) return;
  const int32_t choice = int32_t(at / anchors);
  Candidate<T> best;
  for (int64_t s = 0; s < slices; ++s) {
    const int64_t from = s * kChoices * anchors + at;
    const Candidate<T> x{partial_distance[from], int32_t(partial_index[from])};
    if (better(choice, x, best)) best = x;
  }
  index[at] = best.index;
  chosen[at] = best.distance;
}

// --- hinges of given quadruplets ----------------------------------------------------------------

template <class T>
__device__ __forceinline__ const T* corner(const MinedRows<T>& m, int64_t anchor, int32_t role) {
  const int64_t width = m.sketches.width;
  if (role == kSketch) return m.sketches.data + anchor * width;
  if (role == kPositive) return m.photos.data + m.positive[anchor] * width;
  if (role == kPhotoNegative) return m.photos.data + m.photo_negative[anchor] * width;
  return m.references.data + m.sketch_negative[anchor] * width;
}

// One warp per anchor; lanes stride over the width.
template <class T>
__global__ void quadruplet_hinges_kernel(MinedRows<T> m, HingeForm form, Distance distance,
                                         T* hinges, T* slopes) {
  const int64_t a = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int32_t lane = threadIdx.x % kWarp;
  if (a >= m.sketches.count) return;
  T d[kEdges], slope[kEdges];
  T hinge = 0;
  for (int32_t e = 0; e < kEdges; ++e) d[e] = slope[e] = 0;
  if (m.valid[a]) {
#pragma unroll
    for (int32_t e = 0; e < kEdges; ++e) {
      if (!uses_edge(form, e)) continue;
      const T *x = corner(m, a, edge_from(e)), *y = corner(m, a, edge_to(e));
      T sum = 0;
      for (int64_t i = lane; i < m.sketches.width; i += kWarp) {
        sum = add_element(distance == Distance::one_minus_dot, sum, x[i], y[i]);
      }
      d[e] = distance_of_sum(distance, warp_sum(sum));
    }
    hinge = hinges_of(d, form, slope);
  }
  if (lane != 0) return;
  hinges[a] = hinge;
#pragma unroll
  for (int32_t e = 0; e < kEdges; ++e) {
    slopes[a * kEdges + e] = slope[e] == 0 ? T(0) : gradient_factor(distance, slope[e], d[e]);
  }
}

// Adds the terms of one anchor, in which the row plays `role`, to the row's gradient; every thread
// keeps its own elements.
template <class T>
__device__ void add_terms(const MinedRows<T>& m, Distance distance, const T* slopes,
                          const T* upstream, int64_t anchor, int32_t role, T* out) {
  const T* x = corner(m, anchor, role);
  for (int32_t e = 0; e < kEdges; ++e) {
    const int32_t from = edge_from(e), to = edge_to(e);
    if ((from != role && to != role) || slopes[anchor * kEdges + e] == 0) continue;
    const T factor = upstream[anchor] * slopes[anchor * kEdges + e];
    const T* y = corner(m, anchor, from == role ? to : from);
    const bool dot = distance == Distance::one_minus_dot;
    for (int64_t i = threadIdx.x; i < m.sketches.width; i += blockDim.x) {
      out[i] += factor * (dot ? y[i] : x[i] - y[i]);
    }
  }
}

// One block per row of sketches, then of photos, then of references. A block looks through all
// anchors for its row and adds the terms in their order: no float atomics, and no list to build.
template <class T>
__global__ void quadruplet_hinges_backward_kernel(MinedRows<T> m, Distance distance,
                                                  const T* slopes, const T* upstream,
                                                  T* sketches_grad, T* photos_grad,
                                                  T* references_grad) {
  __shared__ unsigned found[2][kMaxWarps];  // of 32 anchors each; in turn, one barrier a turn
  const int64_t width = m.sketches.width, anchors = m.sketches.count;
  int64_t row = blockIdx.x;
  const bool is_sketch = row < anchors;
  if (!is_sketch) row -= anchors;
  const bool is_photo = !is_sketch && row < m.photos.count;
  if (!is_sketch && !is_photo) row -= m.photos.count;
  T* out = (is_sketch ? sketches_grad : is_photo ? photos_grad : references_grad) + row * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) out[i] = 0;
  if (is_sketch) {
    if (m.valid[row]) add_terms(m, distance, slopes, upstream, row, kSketch, out);
    return;
  }
  int32_t turn = 0;
  for (int64_t first = 0; first < anchors; first += blockDim.x, turn ^= 1) {
    const int64_t a = first + threadIdx.x;
    const bool mine = a < anchors && m.valid[a] &&
                      (is_photo ? m.positive[a] == row || m.photo_negative[a] == row
                                : m.sketch_negative[a] == row);
    const unsigned votes = __ballot_sync(kFullWarp, mine);
    if (threadIdx.x % kWarp == 0) found[turn][threadIdx.x / kWarp] = votes;
    __syncthreads();  // the votes of all warps are there before any thread walks them
    for (uint32_t w = 0; w < blockDim.x / kWarp; ++w) {
      for (unsigned left = found[turn][w]; left != 0; left &= left - 1) {
        const int64_t anchor = first + w * kWarp + __ffs(int32_t(left)) - 1;
        if (!is_photo) {
          add_terms(m, distance, slopes, upstream, anchor, kSketchNegative, out);
          continue;
        }
        if (m.positive[anchor] == row) {
          add_terms(m, distance, slopes, upstream, anchor, kPositive, out);
        }
        if (m.photo_negative[anchor] == row) {
          add_terms(m, distance, slopes, upstream, anchor, kPhotoNegative, out);
        }
      }
    }
  }
}

}  // namespace zsbir::quadruplet_mining
