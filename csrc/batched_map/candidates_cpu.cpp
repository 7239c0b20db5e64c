#include "batched_map/candidates_cpu.h"

#include <algorithm>
#include <type_traits>

#include "common/cpu_features.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#include <immintrin.h>
#endif

namespace zsbir::batched_map {

namespace {

// Plain C++: a compaction without branches (whether a column counts is a coin toss, which a branch
// predictor would lose), then the bucket numbers in a loop that the compiler vectorises.
template <class T>
inline __attribute__((always_inline)) void select_plain(const T* scores, const int32_t* classes,
                                                        int32_t columns, const Filter<T>& filter,
                                                        Candidates<T>& out) {
  int32_t size = 0;
  for (int32_t i = 0; i < columns; ++i) {
    const T key = filter.negate ? -scores[i] : scores[i];
    out.key[size] = key;
    out.column[size] = i;
    const bool relevant = classes != nullptr && classes[i] == filter.query_class;
    size += int32_t(key <= filter.highest && !relevant);
  }
  const T last = T(filter.buckets - 1);
  for (int32_t i = 0; i < size; ++i) {
    out.bucket[i] =
        int32_t(std::min(std::max(T(0), (out.key[i] - filter.lowest) * filter.scale), last));
  }
  out.size = size;
}

template <class T>
void select_baseline(const T* scores, const int32_t* classes, int32_t columns,
                     const Filter<T>& filter, Candidates<T>& out) {
  select_plain(scores, classes, columns, filter, out);
}

#if defined(ZSBIR_X86)
template <class T>
__attribute__((target("avx2"))) void select_avx2(const T* scores, const int32_t* classes,
                                                 int32_t columns, const Filter<T>& filter,
                                                 Candidates<T>& out) {
  select_plain(scores, classes, columns, filter, out);
}

// Takes 16 columns at a time. The compaction goes through a register (compress, then a plain
// store), because the compressing store is slow on AMD.
__attribute__((target("avx512f,avx512vl"))) void select_avx512(const float* scores,
                                                               const int32_t* classes,
                                                               int32_t columns,
                                                               const Filter<float>& filter,
                                                               Candidates<float>& out) {
  const __m512 highest = _mm512_set1_ps(filter.highest), lowest = _mm512_set1_ps(filter.lowest);
  const __m512 scale = _mm512_set1_ps(filter.scale),
               last = _mm512_set1_ps(float(filter.buckets - 1));
  const __m512i sign = _mm512_set1_epi32(filter.negate ? int32_t(0x80000000u) : 0);
  const __m512i own = _mm512_set1_epi32(filter.query_class);
  __m512i column = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int32_t size = 0;
  for (int32_t i = 0; i < columns;
       i += 16, column = _mm512_add_epi32(column, _mm512_set1_epi32(16))) {
    const __mmask16 valid = columns - i >= 16 ? 0xFFFF : __mmask16((1u << (columns - i)) - 1);
    const __m512i bits = _mm512_maskz_loadu_epi32(valid, scores + i);
    const __m512 key = _mm512_castsi512_ps(_mm512_xor_epi32(bits, sign));
    __mmask16 keep = _mm512_mask_cmp_ps_mask(valid, key, highest, _CMP_LE_OQ);
    if (classes != nullptr) {
      keep = _mm512_mask_cmpneq_epi32_mask(keep, _mm512_maskz_loadu_epi32(keep, classes + i), own);
    }
    const __m512 kept = _mm512_maskz_compress_ps(keep, key);
    // A NaN (overflow times zero) turns into the second operand of max.
    const __m512 scaled =
        _mm512_max_ps(_mm512_mul_ps(_mm512_sub_ps(kept, lowest), scale), _mm512_setzero_ps());
    _mm512_storeu_ps(out.key + size, kept);
    _mm512_storeu_si512(out.bucket + size, _mm512_cvttps_epi32(_mm512_min_ps(scaled, last)));
    _mm512_storeu_si512(out.column + size, _mm512_maskz_compress_epi32(keep, column));
    size += __builtin_popcount(keep);
  }
  out.size = size;
}
#endif

}  // namespace

template <class T>
SelectCandidates<T> select_candidates() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if constexpr (std::is_same_v<T, float>) {
    if (level == Simd::avx512) return select_avx512;
  }
  if (level >= Simd::avx2) return select_avx2<T>;
#endif
  return select_baseline<T>;
}

template SelectCandidates<float> select_candidates<float>();
template SelectCandidates<double> select_candidates<double>();

}  // namespace zsbir::batched_map
