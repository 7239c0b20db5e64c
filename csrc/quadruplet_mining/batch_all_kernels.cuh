// Sums over all triplets and quadruplets on CUDA; batch_all_cpu.cpp has the idea.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/block.cuh"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

using Counter = unsigned long long;  // the type of 64-bit atomics

// The number of ascending keys that are below x, or not above it.
template <class T>
__device__ __forceinline__ int64_t keys_below(const T* keys, int64_t count, T x, bool or_equal) {
  int64_t first = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    const T key = keys[first + half];
    if (key < x || (or_equal && key == x)) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

constexpr int32_t kHingeThreads = 256;

// kCapacity thresholds of a row (a power of two) are taken at a time: one pass over the values
// each.
template <class T, int32_t kCapacity>
struct HingeRowShared {
  T key[kCapacity];
  int32_t column[kCapacity];
  Counter count[kCapacity];          // first a histogram of places, then its prefix sums
  int32_t own_totals[2][kMaxWarps];  // in turn, so that one barrier a turn is enough
  Counter counter_totals[kMaxWarps];
  double sum_totals[kMaxWarps], active_totals[kMaxWarps];
};

template <class T, int32_t kCapacity>
struct HingeRow {
  const HingeRows<T>& p;
  int64_t r;
  HingeRowShared<T, kCapacity>& s;
  int32_t taken, total;  // thresholds in shared memory; thresholds of the row

  // Gathers the row's own columns number `first` to `first + kCapacity`, in ascending order.
  __device__ void gather(int32_t first) {
    total = 0;
    int32_t turn = 0;
    for (int64_t begin = 0; begin < p.threshold_columns; begin += blockDim.x, turn ^= 1) {
      const int64_t c = begin + threadIdx.x;
      const int32_t own = c < p.threshold_columns && p.threshold_labels[c] == p.row_labels[r] &&
                          !(p.exclude_self && c == r);
      const int32_t ahead = block_exclusive_sum(own, s.own_totals[turn]);
      const int32_t at = total + ahead - first;
      if (own && at >= 0 && at < kCapacity) {
        s.key[at] = p.thresholds[r * p.threshold_columns + c] + T(p.margin);
        s.column[at] = int32_t(c);
      }
      int32_t of_block = 0;
      for (uint32_t w = 0; w < blockDim.x / kWarp; ++w) of_block += s.own_totals[turn][w];
      total += of_block;
    }
    taken = min(max(total - first, 0), kCapacity);
  }

  // A bitonic sort (Batcher, 1968) of (key, column); +inf fills up to a power of two.
  __device__ void sort() {
    int32_t size = 1;
    while (size < taken) size *= 2;
    for (int32_t i = threadIdx.x; i < size; i += blockDim.x) {
      if (i >= taken) s.key[i] = T(INFINITY);
      s.count[i] = 0;
    }
    __syncthreads();  // keys are complete and counters clear
    for (int32_t run = 2; run <= size; run *= 2) {
      for (int32_t step = run / 2; step > 0; step /= 2) {
        for (int32_t i = threadIdx.x; i < size / 2; i += blockDim.x) {
          const int32_t low = 2 * step * (i / step) + i % step, high = low + step;
          const bool ascending = (low & run) == 0;
          if ((s.key[high] < s.key[low]) == ascending && s.key[low] != s.key[high]) {
            const T key = s.key[low];
            const int32_t column = s.column[low];
            s.key[low] = s.key[high];
            s.column[low] = s.column[high];
            s.key[high] = key;
            s.column[high] = column;
          }
        }
        __syncthreads();  // this step is done everywhere before the next compares other pairs
      }
    }
  }

  __device__ __forceinline__ int64_t weight(int64_t column) const {
    if (p.value_labels[column] == p.row_labels[r]) return 0;
    return p.row_weights ? int64_t(p.row_weights[r]) - p.value_weights[column] : 1;
  }

  // Counts every value among the thresholds; returns this thread's part of the sum.
  __device__ double stream(bool first_pass, T* by_value) {
    double sum = 0;
    for (int64_t c = threadIdx.x; c < p.value_columns; c += blockDim.x) {
      const T x = p.values[r * p.value_columns + c];
      const int64_t w = weight(c);
      const int64_t place = w == 0 ? taken : keys_below(s.key, taken, x, true);
      const double weighted = double(w) * double(taken - place);
      sum -= weighted * double(x);
      if (place < taken) atomicAdd(&s.count[place], Counter(w));
      if (first_pass) {
        by_value[c] = T(-weighted);
      } else if (w != 0) {
        by_value[c] += T(-weighted);
      }
    }
    return sum;
  }

  // Histogram to prefix sums: every thread takes a run of neighbouring thresholds.
  __device__ double write_counts(T* by_threshold, double& active) {
    const int32_t run = (taken + blockDim.x - 1) / blockDim.x;
    const int32_t begin = min(int32_t(threadIdx.x) * run, taken), end = min(begin + run, taken);
    Counter below = 0;
    for (int32_t i = begin; i < end; ++i) below += s.count[i];
    below = block_exclusive_sum(below, s.counter_totals);
    double sum = 0;
    for (int32_t i = begin; i < end; ++i) {
      below += s.count[i];
      by_threshold[s.column[i]] = T(below);
      sum += double(below) * double(s.key[i]);
      active += double(below);
    }
    return sum;
  }
};

// A block takes a row; its dynamic shared memory is a HingeRowShared.
template <class T, int32_t kCapacity>
__global__ void __launch_bounds__(kHingeThreads, 4)
    hinge_rows_kernel(HingeRows<T> problem, double* sums, double* active, T* by_threshold,
                      T* by_value) {
  ZSBIR_DYNAMIC_SHARED(memory);
  const int64_t r = blockIdx.x;
  HingeRow<T, kCapacity> row{problem, r, *reinterpret_cast<HingeRowShared<T, kCapacity>*>(memory),
                             0, 0};
  T* out_t = by_threshold + r * problem.threshold_columns;
  T* out_v = by_value ? by_value + r * problem.value_columns : out_t;
  if (by_value || problem.value_columns == 0) {
    for (int64_t c = threadIdx.x; c < problem.threshold_columns; c += blockDim.x) out_t[c] = 0;
  }
  double sum = 0, counted = 0;
  int32_t first = 0;
  do {
    row.gather(first);
    row.sort();
    sum += row.stream(first == 0, out_v);
    __syncthreads();  // values are counted and both matrices written before the counts are written
    sum += row.write_counts(out_t, counted);
    first += kCapacity;  // gather() waits for all threads before it replaces a key
  } while (first < row.total);
  sum = block_sum(sum, row.s.sum_totals);
  counted = block_sum(counted, row.s.active_totals);
  if (threadIdx.x == 0) {
    sums[r] = sum;
    active[r] = counted;
  }
}

// A block takes a row. All blocks share the counters: they are integers, so any order gives the
// same.
template <class T>
__global__ void probe_pairs_kernel(Probes<T> p, double* sums, T* by_value, Counter* hits,
                                   Counter* class_hits) {
  __shared__ double totals[kMaxWarps];
  const int64_t q = blockIdx.x, count = *p.count;
  double sum = 0;
  for (int64_t n = threadIdx.x; n < p.columns; n += blockDim.x) {
    const T x = p.values[q * p.columns + n];
    const int32_t classes[2] = {p.row_class[q], p.column_class[n]};
    const int64_t place = keys_below(p.thresholds, count, x, true);
    int64_t above = count - place;
    if (classes[0] == classes[1]) above = 0;
    if (above > 0) {
      atomicAdd(&hits[place], Counter(1));
      double threshold_sum = p.threshold_sums[place];
#pragma unroll
      for (int32_t k = 0; k < 2; ++k) {
        const int64_t begin = p.class_offsets[classes[k]], end = p.class_offsets[classes[k] + 1];
        const int64_t at = begin + keys_below(p.by_class + begin, end - begin, x, true);
        if (at == end) continue;
        above -= end - at;
        threshold_sum -= p.by_class_sums[at];
        atomicAdd(&class_hits[at], Counter(1));
      }
      if (above > 0) sum += threshold_sum - double(above) * double(x);
    }
    by_value[q * p.columns + n] = T(-above);
  }
  sum = block_sum(sum, totals);
  if (threadIdx.x == 0) sums[q] = sum;
}

// --- counting non-zero quadruplets --------------------------------------------------------------

// A warp takes a pair of a row and a column; the grid is (columns in blocks, rows).
template <class T>
__global__ void union_counts_kernel(UnionRows<T> p, T* out) {
  const int64_t r = blockIdx.y;
  const int64_t c = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (c >= p.columns) return;
  int32_t inside = 0;
  if (p.column_labels[c] == p.row_labels[r]) {
    const T d = p.pairs[r * p.columns + c];
    const T below_first = d + T(p.first_margin), below_second = d + T(p.second_margin);
    for (int64_t v = threadIdx.x % kWarp; v < p.values; v += kWarp) {
      const bool active =
          p.first[r * p.values + v] < below_first || p.second[c * p.values + v] < below_second;
      inside += int32_t(active && p.value_labels[v] != p.row_labels[r]);
    }
  }
  inside = warp_sum(inside);
  if (threadIdx.x % kWarp == 0) out[r * p.columns + c] = T(inside);
}

// A warp takes an entry of by_class; totals [count] has its number of non-zero quadruplets.
template <class T>
__global__ void probe_union_kernel(ProbeUnion<T> p, int64_t* totals) {
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (i >= p.count) return;
  const T threshold = p.by_class[i];
  int64_t total = 0;
  if (threshold < T(INFINITY)) {
    const int32_t own = p.sketch_class[p.anchor[i]];
    const int64_t begin = p.member_offsets[own], end = p.member_offsets[own + 1];
    for (int64_t n = threadIdx.x % kWarp; n < p.photo_count; n += kWarp) {
      const int32_t other = p.photo_class[n];
      if (other == own) continue;
      const T* distances = p.values + n * p.sketch_count;
      const bool h1 = p.h1_threshold && distances[p.anchor[i]] < p.h1_threshold[i];
      const bool h4 = p.photos && p.photos[n * p.photo_count + p.positive[i]] < p.h4_threshold[i];
      if (h1 || h4) {
        total += p.sketch_count - (p.member_offsets[other + 1] - p.member_offsets[other]) -
                 (end - begin);
        continue;
      }
      total += keys_below(p.sorted + n * p.sketch_count, p.sketch_count, threshold, false);
      for (int64_t m = begin; m < end; ++m) total -= distances[p.members[m]] < threshold;
    }
  }
  total = warp_sum(total);
  if (threadIdx.x % kWarp == 0) totals[i] = total;
}

}  // namespace zsbir::quadruplet_mining
