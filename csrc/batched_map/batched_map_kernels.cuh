// batched_map on CUDA: ranks each relevant item of Q queries among G gallery items without a sort.
//
// In / out     scores T[Q,G], classes int32[Q] and int32[G], and each query's sorted relevant items
//              -> counts int32[3,nnz] (added to), then metrics double[Q, 7 + 4 n_ks]; see
//              batched_map.h.
// Algorithm    rank_counts_kernel: every non-relevant column looks up its place among the R sorted
//              keys (a table of 2 x capacity buckets over their range, then a search within its
//              bucket) and increments a counter there; prefix sums of the counters are the counts.
//              A column that ties takes a second path. ranking_metrics_kernel runs metrics.h, one
//              thread per query.
// Work         G look-ups per query, O(R + capacity) for table and sums. Where R > capacity,
//              ceil(R / capacity) passes over the row are needed.
// Memory       One pass reads 4QG bytes of scores (float) and 4G of classes, which stay in L2. For
//              Q=1000 and G=54151 that is 217 MB, with a floor of 45 us at 4.8 TB/s. The limit is
//              shared memory, not this: see README.md, Cost.
// Mapping      A block takes a (query, gallery slice): blockIdx.x, blockIdx.y. Each thread has two
//              16-byte loads in flight. Keys, table and counters are in shared memory; one merge by
//              atomicAdd ends the block.
// Numerics     Keys are only compared. A rounded bucket number does no harm, because the map from
//              key to bucket is monotone (a subtraction, a product with a non-negative constant, a
//              clamp).
// Determinism  Bitwise: all sums over columns are integers; metrics are summed in rank order, in
//              one thread.
// Limits       R, G < 2^31; slices of at most 2^30 columns; capacity <= 32,767; blockDim.x a
//              multiple of 32. A NaN takes no part; infinities are fine.
#pragma once
#include <cmath>
#include <cstdint>

#include "batched_map/batched_map.h"
#include "batched_map/metrics.h"
#include "common/block.cuh"
#include "common/host_device.h"

namespace zsbir::batched_map {

constexpr int32_t kRankCountsThreads = 512;
// Blocks of 49 KB that an SM holds: 3 on data-centre chips (with at most 42 registers), else 2.
#if defined(__CUDA_ARCH__) && \
    (__CUDA_ARCH__ == 800 || (__CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200))
constexpr int32_t kRankCountsBlocksPerSm = 3;
#else
constexpr int32_t kRankCountsBlocksPerSm = 2;
#endif

// 16 bytes of a row, and the classes of its columns.
template <class T>
struct Pack;
template <>
struct Pack<float> {
  static constexpr int32_t columns = 4;
  float4 score;
  int4 of;
  __device__ __forceinline__ void load(const float* scores, const int32_t* classes, bool aligned) {
    score = __ldcs(reinterpret_cast<const float4*>(scores));  // used once: keep the classes in L2
    of = aligned ? *reinterpret_cast<const int4*>(classes)
                 : int4{classes[0], classes[1], classes[2], classes[3]};
  }
  template <class Key>
  __device__ __forceinline__ void keys(const Key& key, float* out) const {
    out[0] = key(score.x, of.x);
    out[1] = key(score.y, of.y);
    out[2] = key(score.z, of.z);
    out[3] = key(score.w, of.w);
  }
};
template <>
struct Pack<double> {
  static constexpr int32_t columns = 2;
  double2 score;
  int2 of;
  __device__ __forceinline__ void load(const double* scores, const int32_t* classes, bool aligned) {
    score = __ldcs(reinterpret_cast<const double2*>(scores));
    of = aligned ? *reinterpret_cast<const int2*>(classes) : int2{classes[0], classes[1]};
  }
  template <class Key>
  __device__ __forceinline__ void keys(const Key& key, double* out) const {
    out[0] = key(score.x, of.x);
    out[1] = key(score.y, of.y);
  }
};

// The shared memory of a block, for up to `capacity` relevant items at a time.
template <class T, int32_t capacity>
struct RankCountsShared {
  static_assert(capacity >= 1 && capacity <= 32767, "entry holds a slot and a flag in 16 bits");
  static constexpr int32_t buckets = 2 * capacity;

  T key[capacity];
  int64_t warp_totals[kMaxWarps];
  int32_t index[capacity];
  // Counters by place j; their prefix sums are the counts (add_counts).
  int32_t between[capacity + 1];  // columns with key[j-1] < their key < key[j]
  int32_t tied[capacity + 1];    // columns that tie with the group of equal keys that ends before j
  int32_t before[capacity + 1];  // differences of: tied columns with a smaller gallery index
  uint16_t entry[buckets + 1];   // bucket -> slot of its first key << 1 | it holds a key
};

// Up to `capacity` consecutive relevant items of a query, and the counters of this block for them.
template <class T, int32_t capacity>
struct Segment {
  using Shared = RankCountsShared<T, capacity>;
  static constexpr int32_t buckets = Shared::buckets;

  Shared& s;
  int32_t count = 0;
  T lowest = 0, highest = 0, scale = 0;

  // Any x up to `highest` has a bucket. A range that overflows or is empty gives NaN or an infinite
  // scale: everything then falls into bucket 0 or the last one, still in order, and is searched.
  __device__ __forceinline__ int32_t bucket_of(T x) const {
    const T scaled = (x - lowest) * scale;
    return scaled > T(0) ? (scaled < T(buckets - 1) ? int32_t(scaled) : buckets - 1) : 0;
  }

  // One past the last key equal to key[j].
  __device__ __forceinline__ int32_t group_end(int32_t j) const {
    int32_t first = j + 1, last = count;
    if (first == last || s.key[j] < s.key[first]) return first;  // nearly always
    while (first < last) {
      const int32_t middle = (first + last) / 2;
      if (s.key[j] < s.key[middle]) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    return first;
  }

  // Copies the items in, clears the counters and builds the table. Sync before use.
  __device__ void load(const T* keys, const int32_t* indices, int32_t items) {
    count = items;
    lowest = keys[0];
    highest = keys[count - 1];
    scale = T(buckets) / (highest - lowest);
    for (int32_t j = threadIdx.x; j <= count; j += blockDim.x) {
      s.between[j] = s.tied[j] = s.before[j] = 0;
      if (j == count) break;
      s.key[j] = keys[j];
      s.index[j] = indices[j];
    }
    // Key j fills the table behind the bucket of key j-1 up to its own; "key" `count` fills the
    // rest. Short gaps are filled by the thread, long ones (outliers leave them) by its warp.
    const int32_t lane = threadIdx.x % kWarp;
    for (int32_t base = threadIdx.x - lane; base <= count; base += blockDim.x) {
      const int32_t j = base + lane;
      const int32_t behind = j == 0 || j > count ? -1 : bucket_of(keys[j - 1]);
      const int32_t own = j > count ? -1 : j == count ? buckets : bucket_of(keys[j]);
      const bool far = own - behind > kShortGap;
      if (!far) fill(behind + 1, own, j, own, 1);
      for (unsigned todo = __ballot_sync(kFullWarp, far); todo != 0; todo &= todo - 1) {
        const int32_t source = __ffs(int32_t(todo)) - 1;
        const int32_t begin = __shfl_sync(kFullWarp, behind, source) + 1;
        const int32_t end = __shfl_sync(kFullWarp, own, source);
        fill(begin + lane, end, base + source, end, kWarp);
      }
    }
  }

  // Counts one column with a key between those of the segment, inclusive.
  __device__ __forceinline__ void count_column(T x, int32_t column, const int32_t* gallery_index) {
    const int32_t bucket = bucket_of(x), entry = s.entry[bucket];
    int32_t place = entry >> 1;
    bool ties = false;  // the last key found not to be smaller is the one at `place`
    if (entry & 1) {
      int32_t last = s.entry[bucket + 1] >> 1;
      while (place < last) {
        const int32_t middle = (place + last) / 2;
        const T key = s.key[middle];
        if (key < x) {
          place = middle + 1;
        } else {
          last = middle;
          ties = key == x;
        }
      }
    }
    if (ties) {
      count_tie(place, gallery_index ? gallery_index[column] : column);
      return;
    }
    atomicAdd(&s.between[place], 1);
  }

  // A column that ties with the group of keys that begins at `place`. It stands before those items
  // of the group that have a larger index, which are a suffix of the group.
  __device__ __forceinline__ void count_tie(int32_t place, int32_t gallery_index) {
    const int32_t end = group_end(place);
    int32_t last = end;
    while (place < last) {
      const int32_t middle = (place + last) / 2;
      if (gallery_index < s.index[middle]) {
        last = middle;
      } else {
        place = middle + 1;
      }
    }
    atomicAdd(&s.tied[end], 1);
    if (place < end) {
      atomicAdd(&s.before[place], 1);
      atomicAdd(&s.before[end], -1);
    }
  }

  // closer[j] counts all columns between or tied ahead of j; tied[j] those noted at the end of j's
  // group; tied_before[j] is the prefix sum of the differences. Every thread takes a run of
  // neighbouring items.
  __device__ void add_counts(int32_t* closer, int32_t* tied, int32_t* tied_before) {
    const int32_t run = (count + blockDim.x - 1) / blockDim.x;
    const int32_t begin = min(int32_t(threadIdx.x) * run, count), end = min(begin + run, count);
    int64_t sums =
        0;  // two sums in one: closer in the low half, never negative; before in the high
    for (int32_t j = begin; j < end; ++j) sums += both(j);
    sums = block_exclusive_sum(sums, s.warp_totals);
    for (int32_t j = begin; j < end; ++j) {
      sums += both(j);
      add_unless_zero(&closer[j], int32_t(sums & 0xffffffff));
      add_unless_zero(&tied[j], s.tied[group_end(j)]);
      add_unless_zero(&tied_before[j], int32_t(sums >> 32));
    }
  }

 private:
  static constexpr int32_t kShortGap = 8;  // twice the usual: a full segment leaves 2 buckets a key

  __device__ __forceinline__ void fill(int32_t begin, int32_t end, int32_t slot, int32_t holder,
                                       int32_t step) {
    for (int32_t bucket = begin; bucket <= end; bucket += step) {
      s.entry[bucket] = uint16_t(slot << 1 | int32_t(bucket == holder));
    }
  }

  __device__ __forceinline__ int64_t both(int32_t j) const {
    return int64_t(s.between[j]) + s.tied[j] + int64_t(s.before[j]) * (int64_t(1) << 32);
  }

  static __device__ __forceinline__ void add_unless_zero(int32_t* counter, int32_t value) {
    if (value != 0) atomicAdd(counter, value);
  }
};

// One slice of one query's row: columns [begin, begin + columns).
template <class T>
struct Slice {
  const T* scores;
  const int32_t* classes;
  const int32_t* gallery_index;  // nullptr: the column number
  int32_t begin, columns;
  int32_t own_class;
  T sign;  // key = sign * score; exact, and -0 still ties with 0

  // A relevant column turns into NaN, which no comparison counts, like a column that takes no part.
  __device__ __forceinline__ T key(T score, int32_t class_of) const {
    return class_of == own_class ? T(NAN) : sign * score;
  }

  template <class S>
  __device__ __forceinline__ void count(int32_t at, T key, S& segment, int32_t& below) const {
    if (!(key <= segment.highest)) return;
    if (key < segment.lowest) {
      ++below;  // ahead of every key: a register is cheaper than one crowded counter
    } else {
      segment.count_column(key, begin + at, gallery_index);
    }
  }

  template <class S>
  __device__ __forceinline__ void count_singly(int32_t from, int32_t to, S& segment,
                                               int32_t& below) const {
    for (int32_t at = from + threadIdx.x; at < to; at += blockDim.x) {
      count(at, key(scores[at], classes[at]), segment, below);
    }
  }

  // Streams the slice past the segment. Returns how many of this thread's columns precede all keys.
  template <class S>
  __device__ int32_t stream(S& segment) const {
    constexpr int32_t width = Pack<T>::columns;
    // Rows of odd length begin anywhere: single columns up to a 16-byte boundary, and at the end.
    const int32_t misaligned = int32_t(reinterpret_cast<uintptr_t>(scores) % 16 / sizeof(T));
    const int32_t head = min((width - misaligned) % width, columns);
    const int32_t body_end = head + (columns - head) / width * width;
    const bool aligned =
        reinterpret_cast<uintptr_t>(classes + head) % (width * sizeof(int32_t)) == 0;
    int32_t below = 0;
    count_singly(0, head, segment, below);
    const int32_t stride = blockDim.x * width;
    for (int32_t at = head + threadIdx.x * width; at < body_end; at += kInFlight * stride) {
      Pack<T> pack[kInFlight];
#pragma unroll
      for (int32_t u = 0; u < kInFlight;
           ++u) {  // all loads before the first use, so that they overlap
        const int32_t from = at + u * stride < body_end ? at + u * stride : at;
        pack[u].load(scores + from, classes + from, aligned);
      }
#pragma unroll
      for (int32_t u = 0; u < kInFlight; ++u) {
        if (at + u * stride >= body_end) break;
        T keys[width];
        pack[u].keys([this](T score, int32_t of) { return key(score, of); }, keys);
#pragma unroll
        for (int32_t i = 0; i < width; ++i) {
          count(at + u * stride + i, keys[i], segment, below);
        }
      }
    }
    count_singly(body_end, columns, segment, below);
    return below;
  }

 private:
  static constexpr int32_t kInFlight = 2;  // 1,536 threads x 32 B: twice what hides HBM latency
};

// The grid is (Q, slices), the dynamic shared memory a RankCountsShared<T, capacity>.
template <class T, int32_t capacity>
__global__ void __launch_bounds__(kRankCountsThreads, kRankCountsBlocksPerSm)
    rank_counts_kernel(Scores<T> scores, Relevant<T> relevant, int32_t* counts,
                       int32_t columns_per_slice) {
  ZSBIR_DYNAMIC_SHARED(memory);
  const int64_t query = blockIdx.x;
  const int64_t offset = relevant.offsets[query];
  const int64_t nnz = relevant.offsets[scores.queries];
  const int32_t items = int32_t(relevant.offsets[query + 1] - offset);
  const int64_t begin = int64_t(blockIdx.y) * columns_per_slice;
  const Slice<T> slice{scores.data + query * scores.row_stride + begin,
                       scores.gallery_class + begin,
                       scores.gallery_index,
                       int32_t(begin),
                       int32_t(min(scores.gallery - begin, int64_t(columns_per_slice))),
                       scores.query_class[query],
                       scores.larger_is_closer ? T(-1) : T(1)};
  Segment<T, capacity> segment{*reinterpret_cast<RankCountsShared<T, capacity>*>(memory)};
  for (int32_t first = 0; first < items; first += capacity) {
    segment.load(relevant.key + offset + first, relevant.index + offset + first,
                 min(items - first, capacity));
    __syncthreads();  // keys, table and cleared counters are complete before any thread looks up
    const int32_t below = warp_sum(slice.stream(segment));
    if (threadIdx.x % kWarp == 0 && below != 0) atomicAdd(&segment.s.between[0], below);
    __syncthreads();  // every column is counted before the counters are summed
    int32_t* out = counts + offset + first;
    segment.add_counts(out + kCloser * nnz, out + kTied * nnz, out + kTiedBefore * nnz);
    __syncthreads();  // keys, counters and totals are read before the next segment replaces them
  }
}

// A thread takes a query.
template <class T>
__global__ void ranking_metrics_kernel(int64_t queries, Relevant<T> relevant, const int32_t* counts,
                                       Definition definition, double* out) {
  const int64_t query = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (query >= queries) return;
  const int64_t nnz = relevant.offsets[queries];
  const int64_t offset = relevant.offsets[query];
  const int32_t* own = counts + offset;
  const QueryCounts<T> q{relevant.key + offset, own + kCloser * nnz, own + kTied * nnz,
                         own + kTiedBefore * nnz, relevant.offsets[query + 1] - offset};
  metrics_row(q, definition,
              out + query * (kFixedColumns + int64_t(kColumnsPerK) * definition.n_ks));
}

}  // namespace zsbir::batched_map
