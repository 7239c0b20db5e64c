// The pair kernels of the CPU for AVX2 with FMA: 8 floats a vector, 16 registers.
#include <cmath>

#include "token_weighting/pair_cpu.h"

#if defined(ZSBIR_X86_LEVELS)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "token_weighting/pair_cpu_body.h"

namespace zsbir::token_weighting {

namespace {

struct Avx2 {
  using T = float;
  using R = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kDotRows = 2;             // 2 x 4 sums, 4 columns, a row: 13 registers
  static constexpr int kRows = 6, kColumns = 2;  // 6 x 2 sums, 2 columns, a weight
  static ZSBIR_INLINE R zero() { return _mm256_setzero_ps(); }
  static ZSBIR_INLINE R set(T x) { return _mm256_set1_ps(x); }
  static ZSBIR_INLINE R load(const T* p) { return _mm256_loadu_ps(p); }
  static ZSBIR_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static ZSBIR_INLINE R load_part(const T* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  static ZSBIR_INLINE void store(T* p, R x) { _mm256_storeu_ps(p, x); }
  static ZSBIR_INLINE void store_part(T* p, R x, int n) { _mm256_maskstore_ps(p, first(n), x); }
  static ZSBIR_INLINE void stream(T* p, R x) { _mm256_stream_ps(p, x); }
  static ZSBIR_INLINE void fence() { _mm_sfence(); }
  static ZSBIR_INLINE void fetch_l1(const T* p) { _mm_prefetch(p, _MM_HINT_T0); }
  static ZSBIR_INLINE void fetch_l2(const T* p) { _mm_prefetch(p, _MM_HINT_T1); }
  static ZSBIR_INLINE R add(R a, R b) { return _mm256_add_ps(a, b); }
  static ZSBIR_INLINE R sub(R a, R b) { return _mm256_sub_ps(a, b); }
  static ZSBIR_INLINE R mul(R a, R b) { return _mm256_mul_ps(a, b); }
  static ZSBIR_INLINE R max(R a, R b) { return _mm256_max_ps(a, b); }
  static ZSBIR_INLINE R fma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }
  static ZSBIR_INLINE R abs(R a) { return _mm256_andnot_ps(set(-0.0f), a); }

  static ZSBIR_INLINE T sum(R a) {
    alignas(32) T four[4];
    store_sums(four, a, a, a, a);
    return four[0];
  }
  static ZSBIR_INLINE T largest(R a) {
    alignas(32) T lane[kWidth];
    store(lane, a);
    T most = lane[0];
    for (int i = 1; i < kWidth; ++i) most = most < lane[i] ? lane[i] : most;
    return most;
  }

  static ZSBIR_INLINE void store_sums(T* p, R a, R b, R c, R d) {
    const R four = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
  }

  // As in avx512_cpu.cpp; results below the smallest normal number become 0.
  static ZSBIR_INLINE R exp(R x) {
    const R normal = _mm256_cmp_ps(x, set(-87.0f), _CMP_GE_OQ);
    x = max(x, set(-87.0f));
    const R n =
        _mm256_round_ps(mul(x, set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const R r =
        _mm256_fnmadd_ps(n, set(-2.12194440e-4f), _mm256_fnmadd_ps(n, set(0.693359375f), x));
    R p = set(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
      p = fma(p, r, set(c));
    }
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    const R power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    return _mm256_and_ps(normal, mul(p, power));
  }
};

}  // namespace

template <>
PairKernels<float> avx2_kernels<float>() {
  return kernels<Avx2, float>();
}
template <>
PairKernels<Half> avx2_kernels<Half>() {
  return kernels<Avx2, Half>();
}
template <>
PairKernels<BFloat16> avx2_kernels<BFloat16>() {
  return kernels<Avx2, BFloat16>();
}

}  // namespace zsbir::token_weighting
#pragma GCC pop_options
#endif
