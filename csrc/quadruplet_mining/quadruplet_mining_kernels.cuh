// Distances and hinges on CUDA; mining_kernels.cuh has the choices, batch_all_kernels.cuh the sums
// over all triplets.
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
// goes through shared memory in chunks: every element that is loaded takes part in kTile distances.
// Rows and columns of a thread are kSide apart, so that neighbouring threads read neighbouring
// words of shared memory and write neighbouring distances.
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
  // Beyond the matrix a 0 is read, which adds nothing to a sum.
  static __device__ void load(T (&to)[kChunk][kTile + 1], const Rows<T>& rows, int64_t first,
                              int64_t from) {
    for (int32_t i = threadIdx.x; i < kTile * kChunk; i += kThreads) {
      const int32_t r = i / kChunk, d = i % kChunk;
      const bool inside = first + r < rows.count && from + d < rows.width;
      to[d][r] = inside ? rows.data[(first + r) * rows.width + from + d] : T(0);
    }
  }
};

// The grid is (tiles of b, tiles of a).
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

// --- hinges of given quadruplets ----------------------------------------------------------------

template <class T>
__device__ __forceinline__ const T* corner(const MinedRows<T>& m, int64_t anchor, int32_t role) {
  const int64_t width = m.sketches.width;
  if (role == kSketch) return m.sketches.data + anchor * width;
  if (role == kPositive) return m.photos.data + m.positive[anchor] * width;
  if (role == kPhotoNegative) return m.photos.data + m.photo_negative[anchor] * width;
  return m.references.data + m.sketch_negative[anchor] * width;
}

// A warp takes an anchor; its lanes stride over the width.
template <class T>
__global__ void quadruplet_hinges_kernel(MinedRows<T> m, HingeForm form, Distance distance,
                                         T* hinges, T* slopes) {
  const int64_t a = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int32_t lane = threadIdx.x % kWarp;
  if (a >= m.sketches.count) return;
  T d[kEdges], slope[kEdges];
  T hinge = 0;
  bool exist = true;
  for (int32_t e = 0; e < kEdges; ++e) {
    d[e] = slope[e] = 0;
    exist = exist && (!m.valid[a] || !uses_edge(form, e) || edge_exists(m, a, e));
  }
  if (!exist) {  // a kernel cannot raise an error; a NaN hinge shows in the loss
    hinge = T(NAN);
  } else if (m.valid[a]) {
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
    if (!edge_exists(m, anchor, e)) continue;
    const T factor = upstream[anchor] * slopes[anchor * kEdges + e];
    const T* y = corner(m, anchor, from == role ? to : from);
    const bool dot = distance == Distance::one_minus_dot;
    for (int64_t i = threadIdx.x; i < m.sketches.width; i += blockDim.x) {
      out[i] += factor * (dot ? y[i] : x[i] - y[i]);
    }
  }
}

// A block takes a row of sketches, then of photos, then of references, where their gradient is
// wanted. It looks through all anchors for its row and adds the terms in their order, without float
// atomics and without a list.
template <class T>
__global__ void quadruplet_hinges_backward_kernel(MinedRows<T> m, Distance distance,
                                                  const T* slopes, const T* upstream,
                                                  T* sketches_grad, T* photos_grad,
                                                  T* references_grad) {
  __shared__ unsigned found[2][kMaxWarps];  // of 32 anchors each; in turn, one barrier a turn
  const int64_t width = m.sketches.width, anchors = m.sketches.count;
  const int64_t photos = photos_grad ? m.photos.count : 0;
  int64_t row = blockIdx.x;
  const bool is_sketch = sketches_grad && row < anchors;
  if (sketches_grad && !is_sketch) row -= anchors;
  const bool is_photo = !is_sketch && row < photos;
  if (!is_sketch && !is_photo) row -= photos;
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
