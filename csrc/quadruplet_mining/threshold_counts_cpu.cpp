#include "quadruplet_mining/threshold_counts_cpu.h"

#include <algorithm>

#include "common/cpu_features.h"

namespace zsbir::quadruplet_mining {

namespace {

// A block of values stays in the first-level cache for all thresholds; both inner loops are
// comparisons and additions of 32-bit integers that the compiler puts into vectors.
template <class T>
inline __attribute__((always_inline)) void count_plain(const T* values, const int32_t* weights,
                                                       int64_t columns, const T* thresholds,
                                                       int64_t count, int64_t* below,
                                                       int32_t* above) {
  constexpr int64_t kBlock = 256;
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t size = std::min(kBlock, columns - begin);
    const T* x = values + begin;
    const int32_t* weight = weights + begin;
    int32_t* number = above + begin;
    for (int64_t c = 0; c < size; ++c) number[c] = 0;
    for (int64_t i = 0; i < count; ++i) {
      const T t = thresholds[i];
      int32_t weighted = 0;  // at most 256 weights, each below 2^23: a batch has fewer rows
      for (int64_t c = 0; c < size; ++c) {
        const int32_t inside = x[c] < t ? 1 : 0;
        number[c] += inside;
        weighted += inside * weight[c];
      }
      below[i] += weighted;
    }
  }
}

template <class T>
void count_baseline(const T* values, const int32_t* weights, int64_t columns, const T* thresholds,
                    int64_t count, int64_t* below, int32_t* above) {
  count_plain(values, weights, columns, thresholds, count, below, above);
}

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
template <class T>
__attribute__((target("avx2"))) void count_avx2(const T* values, const int32_t* weights,
                                                int64_t columns, const T* thresholds, int64_t count,
                                                int64_t* below, int32_t* above) {
  count_plain(values, weights, columns, thresholds, count, below, above);
}
template <class T>
__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512"))) void
count_avx512(const T* values, const int32_t* weights, int64_t columns, const T* thresholds,
             int64_t count, int64_t* below, int32_t* above) {
  count_plain(values, weights, columns, thresholds, count, below, above);
}
#endif

}  // namespace

template <class T>
ThresholdCounts<T> threshold_counts() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return count_avx512<T>;
  if (level == Simd::avx2) return count_avx2<T>;
#endif
  return count_baseline<T>;
}

template ThresholdCounts<float> threshold_counts<float>();
template ThresholdCounts<double> threshold_counts<double>();

}  // namespace zsbir::quadruplet_mining
