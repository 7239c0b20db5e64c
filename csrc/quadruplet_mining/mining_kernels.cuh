// Mining on CUDA: the products of an anchor's row tell which references may be chosen, and only the
// distances of those are computed.
//
// In / out     products [rows, references] of anchors -> index and distance [choices, anchors].
// Algorithm    A block takes an anchor, in two passes over its products. The first finds, by
//              choice, the best bound that some distance surely keeps. In the second every thread
//              sums the distances of those of its references that may be as good, about one a
//              choice in all unless distances are equal.
// Work         Per pair 2 x 10 operations; per candidate D subtractions and fused multiply-adds in
//              one chain, for which the other lanes of the warp wait.
// Memory       Per pair and pass 16 bytes (product, length, label) come from L2: the products are
//              those of a few anchors at a time, and lengths and labels are the same for all.
// Determinism  Bitwise, and the same for products rounded in any other way: distances are one chain
//              of fused multiply-adds, choices are by (distance, index).
// Limits       references < 2^31; blockDim.x a multiple of 32.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/block.cuh"
#include "quadruplet_mining/estimates.h"
#include "quadruplet_mining/hinges.h"

namespace zsbir::quadruplet_mining {

ZSBIR_HD bool is_nearest(int32_t choice) {
  return choice == kNearestSame || choice == kNearestOther;
}

// A raw distance, or a bound of one, and the index of its reference; -1 stands for no reference.
template <class T>
struct Candidate {
  T distance, raw;
  int32_t index;
};

// Nearer (or farther), or equally near with a lower index.
template <class T>
__device__ __forceinline__ bool better(bool nearest, const Candidate<T>& x,
                                       const Candidate<T>& best) {
  if (x.index < 0) return false;
  if (best.index < 0) return true;
  if (x.distance == best.distance) return x.index < best.index;
  return nearest ? x.distance < best.distance : x.distance > best.distance;
}

template <class T>
struct MiningShared {
  T bound[kMaxWarps][kChoices];
  T distance[kMaxWarps][kChoices];
  int32_t index[kMaxWarps][kChoices];
};

// One anchor; every thread looks at references threadIdx.x, + blockDim.x, ...
template <class T>
class AnchorMiner {
 public:
  __device__ AnchorMiner(const Rows<T>& anchors, const Rows<T>& references,
                         const SelectFilter<T>& filter, const Estimates<T>& estimates,
                         Distance distance, int32_t wanted, int64_t anchor)
      : row_(anchors.data + anchor * anchors.width),
        references_(references),
        filter_(filter),
        estimates_(estimates),
        distance_(distance),
        wanted_(wanted),
        anchor_(anchor),
        dot_(distance == Distance::one_minus_dot),
        products_(estimates.products + (anchor - estimates.first) * references.count),
        length_(estimates.anchor_lengths[anchor]),
        window_(window_of(filter, anchor, distance, estimates.tiny)) {
    for (int32_t c = 0; c < kChoices; ++c) best_[c] = {0, 0, -1};
  }

  // The best bound that a raw distance surely keeps, in all threads. Unwanted choices get one that
  // no reference reaches.
  __device__ void find_bounds(MiningShared<T>& shared) {
    for (int32_t c = 0; c < kChoices; ++c) bound_[c] = is_nearest(c) ? T(INFINITY) : -T(INFINITY);
    for (int32_t r = threadIdx.x; r < references_.count; r += blockDim.x) {
      const Interval<T> raw = interval(r);
      const int32_t nearest = nearest_choice(r);
      if (nearest < 0 || !surely_inside(window_, raw)) continue;
#pragma unroll
      for (int32_t c = 0; c < kChoices; c += 2) {
        if (c != nearest) continue;
        bound_[c] = min(bound_[c], raw.high);
        bound_[c + 1] = max(bound_[c + 1], raw.low);
      }
    }
#pragma unroll
    for (int32_t c = 0; c < kChoices; ++c) {
      for (int32_t step = kWarp / 2; step > 0; step /= 2) {
        const T other = __shfl_xor_sync(kFullWarp, bound_[c], step);
        bound_[c] = is_nearest(c) ? min(bound_[c], other) : max(bound_[c], other);
      }
      if (threadIdx.x % kWarp == 0) shared.bound[threadIdx.x / kWarp][c] = bound_[c];
    }
    __syncthreads();  // the bounds of all warps are there before any thread joins them
#pragma unroll
    for (int32_t c = 0; c < kChoices; ++c) {
      for (uint32_t w = 0; w < blockDim.x / kWarp; ++w) {
        const T other = shared.bound[w][c];
        bound_[c] = is_nearest(c) ? min(bound_[c], other) : max(bound_[c], other);
      }
      if (!(wanted_ >> c & 1)) bound_[c] = is_nearest(c) ? -T(INFINITY) : T(INFINITY);
    }
  }

  __device__ void look_at_candidates() {
    for (int32_t r = threadIdx.x; r < references_.count; r += blockDim.x) {
      const Interval<T> raw = interval(r);
      const int32_t nearest = nearest_choice(r);
      if (nearest < 0 || !possibly_inside(window_, raw)) continue;
#pragma unroll
      for (int32_t c = 0; c < kChoices; c += 2) {
        if (c == nearest && may_improve(raw, bound_[c], bound_[c + 1], best_[c], best_[c + 1])) {
          take(r, best_[c], best_[c + 1]);
        }
      }
    }
  }

  // The best of all threads, by the first thread of the block.
  __device__ void finish(MiningShared<T>& shared, int64_t anchors, int64_t* index, T* chosen) {
#pragma unroll
    for (int32_t c = 0; c < kChoices; ++c) {
      Candidate<T> best = best_[c];
      for (int32_t step = kWarp / 2; step > 0; step /= 2) {
        const Candidate<T> other{__shfl_xor_sync(kFullWarp, best.distance, step), 0,
                                 __shfl_xor_sync(kFullWarp, best.index, step)};
        if (better(is_nearest(c), other, best)) best = other;
      }
      if (threadIdx.x % kWarp != 0) continue;
      shared.distance[threadIdx.x / kWarp][c] = best.distance;
      shared.index[threadIdx.x / kWarp][c] = best.index;
    }
    __syncthreads();  // the choices of all warps are there before they are compared
    if (threadIdx.x >= kChoices) return;
    const int32_t c = threadIdx.x;
    Candidate<T> best{0, 0, -1};
    for (uint32_t w = 0; w < blockDim.x / kWarp; ++w) {
      const Candidate<T> other{shared.distance[w][c], 0, shared.index[w][c]};
      if (better(is_nearest(c), other, best)) best = other;
    }
    const bool there = (wanted_ >> c & 1) && best.index >= 0;
    index[c * anchors + anchor_] = there ? best.index : -1;
    chosen[c * anchors + anchor_] = there ? best.distance : T(0);
  }

 private:
  __device__ __forceinline__ Interval<T> interval(int32_t r) const {
    return raw_interval(estimates_, dot_, length_, estimates_.reference_lengths[r], products_[r]);
  }

  // kNearestSame or kNearestOther; the farthest is the next number. -1 counts as neither.
  __device__ __forceinline__ int32_t nearest_choice(int32_t r) const {
    const int64_t of = filter_.reference_labels[r];
    if (of == filter_.anchor_labels[anchor_]) return r < filter_.same_limit ? kNearestSame : -1;
    return filter_.forbidden && of == filter_.forbidden[anchor_] ? -1 : kNearestOther;
  }

  // Whether this thread may choose a reference of this interval. Its next ones have higher indices,
  // so an equal distance is no improvement. Sums of squares are not negative.
  __device__ __forceinline__ bool may_improve(const Interval<T>& raw, T near_bound, T far_bound,
                                              const Candidate<T>& near,
                                              const Candidate<T>& far) const {
    const T low = dot_ ? raw.low : max(raw.low, T(0));
    return (!(raw.low > near_bound) && (near.index < 0 || !(low >= near.raw))) ||
           (!(raw.high < far_bound) && (far.index < 0 || !(raw.high <= far.raw)));
  }

  __device__ void take(int32_t r, Candidate<T>& near, Candidate<T>& far) const {
    const T* other = references_.data + r * references_.width;
    T sum = 0;
#pragma unroll 4
    for (int64_t d = 0; d < references_.width; ++d) sum = add_element(dot_, sum, row_[d], other[d]);
    const Candidate<T> x{distance_of_sum(distance_, sum), raw_of_sum(dot_, sum), r};
    if (filter_.low && !(x.distance > filter_.low[anchor_])) return;
    if (filter_.high && !(x.distance < filter_.high[anchor_])) return;
    if (better(true, x, near)) near = x;
    if (better(false, x, far)) far = x;
  }

  const T* row_;
  const Rows<T>& references_;
  const SelectFilter<T>& filter_;
  const Estimates<T>& estimates_;
  Distance distance_;
  int32_t wanted_;
  int64_t anchor_;
  bool dot_;
  const T* products_;
  T length_;
  Window<T> window_;
  T bound_[kChoices];
  Candidate<T> best_[kChoices];
};

// The grid has one block per anchor of `estimates`.
template <class T>
__global__ void select_kernel(Rows<T> anchors, Rows<T> references, SelectFilter<T> filter,
                              Estimates<T> estimates, Distance distance, int32_t wanted,
                              int64_t* index, T* chosen) {
  __shared__ MiningShared<T> shared;
  AnchorMiner<T> miner(anchors, references, filter, estimates, distance, wanted,
                       estimates.first + blockIdx.x);
  miner.find_bounds(shared);
  miner.look_at_candidates();
  miner.finish(shared, anchors.count, index, chosen);
}

}  // namespace zsbir::quadruplet_mining
