#include "batched_map/count_row_cpu.h"

#include <algorithm>
#include <type_traits>

#include "common/cpu_features.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#include <immintrin.h>
#endif

namespace zsbir::batched_map {

namespace {

// Plain C++. No branch depends on the data: whether a column ties, or counts at all, is a coin toss that
// the branch predictor would lose, so every column is written and the write position moves or does not.
template <class T>
inline __attribute__((always_inline)) void find_plain(const T* scores, const int32_t* classes, int32_t columns,
                                                      const PlaceMap<T>& map, Places& out) {
  alignas(64) int32_t bucket[kBlock];
  const T last = T(map.buckets - 1);
  for (int32_t i = 0; i < columns; ++i) { // vectorised by the compiler
    const T key = map.negate ? -scores[i] : scores[i];
    bucket[i] = int32_t(std::min(std::max(T(0), (key - map.lowest) * map.scale), last));
  }
  int32_t places = 0, unsures = 0;
  for (int32_t i = 0; i < columns; ++i) {
    const T key = map.negate ? -scores[i] : scores[i];
    const bool relevant = classes != nullptr && classes[i] == map.query_class;
    const bool counts = key <= map.highest && !relevant;
    const int32_t entry = map.entry[bucket[i]];
    const T* near = map.key + (entry >> 1);
    const bool unsure = (entry & 1) | (near[0] == key) | (near[1] == key);
    out.place[places] = (entry >> 1) + (near[0] < key) + (near[1] < key);
    out.unsure[unsures] = i;
    places += int32_t(counts & !unsure);
    unsures += int32_t(counts & unsure);
  }
  out.places = places;
  out.unsures = unsures;
}

template <class T>
void find_baseline(const T* scores, const int32_t* classes, int32_t columns, const PlaceMap<T>& map, Places& out) {
  find_plain(scores, classes, columns, map, out);
}

#if defined(ZSBIR_X86)
template <class T>
__attribute__((target("avx2"))) void find_avx2(const T* scores, const int32_t* classes, int32_t columns,
                                               const PlaceMap<T>& map, Places& out) {
  find_plain(scores, classes, columns, map, out);
}

// 16 columns at a time. Lists are compacted in a register and stored plainly: the compressing store is
// slow on AMD.
__attribute__((target("avx512f,avx512vl"))) void find_avx512(const float* scores, const int32_t* classes,
                                                             int32_t columns, const PlaceMap<float>& map,
                                                             Places& out) {
  const __m512 highest = _mm512_set1_ps(map.highest), lowest = _mm512_set1_ps(map.lowest);
  const __m512 scale = _mm512_set1_ps(map.scale), last = _mm512_set1_ps(float(map.buckets - 1));
  const __m512i sign = _mm512_set1_epi32(map.negate ? int32_t(0x80000000u) : 0);
  const __m512i own = _mm512_set1_epi32(map.query_class), one = _mm512_set1_epi32(1);
  __m512i column = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int32_t places = 0, unsures = 0;
  for (int32_t i = 0; i < columns; i += 16, column = _mm512_add_epi32(column, _mm512_set1_epi32(16))) {
    const __mmask16 valid = columns - i >= 16 ? 0xFFFF : __mmask16((1u << (columns - i)) - 1);
    const __m512i bits = _mm512_maskz_loadu_epi32(valid, scores + i);
    const __m512 key = _mm512_castsi512_ps(_mm512_xor_epi32(bits, sign));
    __mmask16 counts = _mm512_mask_cmp_ps_mask(valid, key, highest, _CMP_LE_OQ);
    if (classes != nullptr) {
      counts = _mm512_mask_cmpneq_epi32_mask(counts, _mm512_maskz_loadu_epi32(counts, classes + i), own);
    }
    // The second operand of max is what a NaN (overflow times zero) turns into.
    const __m512 scaled = _mm512_max_ps(_mm512_mul_ps(_mm512_sub_ps(key, lowest), scale), _mm512_setzero_ps());
    const __m512i bucket = _mm512_cvttps_epi32(_mm512_min_ps(scaled, last));
    // Two 16-bit entries come with each gather; the lower half is the one asked for.
    const __m512i entry = _mm512_and_epi32(_mm512_i32gather_epi32(bucket, map.entry, 2), _mm512_set1_epi32(0xFFFF));
    const __m512i slot = _mm512_srli_epi32(entry, 1);
    const __m512 first = _mm512_i32gather_ps(slot, map.key, 4), second = _mm512_i32gather_ps(slot, map.key + 1, 4);
    const __mmask16 crowded = _mm512_test_epi32_mask(entry, one);
    const __mmask16 tied = _mm512_cmp_ps_mask(first, key, _CMP_EQ_OQ) | _mm512_cmp_ps_mask(second, key, _CMP_EQ_OQ);
    const __mmask16 unsure = counts & (crowded | tied), sure = counts & __mmask16(~unsure);
    __m512i place = _mm512_mask_add_epi32(slot, _mm512_cmp_ps_mask(first, key, _CMP_LT_OQ), slot, one);
    place = _mm512_mask_add_epi32(place, _mm512_cmp_ps_mask(second, key, _CMP_LT_OQ), place, one);
    _mm512_storeu_si512(out.place + places, _mm512_maskz_compress_epi32(sure, place));
    places += __builtin_popcount(sure);
    if (unsure) {
      _mm512_storeu_si512(out.unsure + unsures, _mm512_maskz_compress_epi32(unsure, column));
      unsures += __builtin_popcount(unsure);
    }
  }
  out.places = places;
  out.unsures = unsures;
}
#endif

} // namespace

template <class T>
FindPlaces<T> find_places() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if constexpr (std::is_same_v<T, float>) {
    if (level == Simd::avx512) return find_avx512;
  }
  if (level >= Simd::avx2) return find_avx2<T>;
#endif
  return find_baseline<T>;
}

template FindPlaces<float> find_places<float>();
template FindPlaces<double> find_places<double>();

} // namespace zsbir::batched_map
