// The pair kernels of the CPU for AVX-512: 16 floats a vector, 32 registers.
#include <cmath>

#include "token_weighting/pair_cpu.h"

#if defined(ZSBIR_X86_LEVELS)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC diagnostic ignored "-Wuninitialized"  // of GCC 12's own AVX-512 header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512vl,fma")
#include "token_weighting/pair_cpu_body.h"

namespace zsbir::token_weighting {

namespace {

struct Avx512 {
  using T = float;
  using R = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kDotRows = 6;             // 6 x 4 sums, 4 columns, a row: 29 registers
  static constexpr int kRows = 6, kColumns = 4;  // 6 x 4 sums, 4 columns, a weight
  static ZSBIR_INLINE R zero() { return _mm512_setzero_ps(); }
  static ZSBIR_INLINE R set(T x) { return _mm512_set1_ps(x); }
  static ZSBIR_INLINE R load(const T* p) { return _mm512_loadu_ps(p); }
  static ZSBIR_INLINE __mmask16 first(int n) { return __mmask16((1u << n) - 1); }
  static ZSBIR_INLINE R load_part(const T* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static ZSBIR_INLINE void store(T* p, R x) { _mm512_storeu_ps(p, x); }
  static ZSBIR_INLINE void store_part(T* p, R x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static ZSBIR_INLINE void stream(T* p, R x) { _mm512_stream_ps(p, x); }
  static ZSBIR_INLINE void fence() { _mm_sfence(); }
  static ZSBIR_INLINE void fetch_l1(const T* p) { _mm_prefetch(p, _MM_HINT_T0); }
  static ZSBIR_INLINE void fetch_l2(const T* p) { _mm_prefetch(p, _MM_HINT_T1); }
  static ZSBIR_INLINE R add(R a, R b) { return _mm512_add_ps(a, b); }
  static ZSBIR_INLINE R sub(R a, R b) { return _mm512_sub_ps(a, b); }
  static ZSBIR_INLINE R mul(R a, R b) { return _mm512_mul_ps(a, b); }
  static ZSBIR_INLINE R max(R a, R b) { return _mm512_max_ps(a, b); }
  static ZSBIR_INLINE R fma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }
  static ZSBIR_INLINE R abs(R a) { return _mm512_abs_ps(a); }
  static ZSBIR_INLINE T sum(R a) { return _mm512_reduce_add_ps(a); }
  static ZSBIR_INLINE T largest(R a) { return _mm512_reduce_max_ps(a); }

  // The sums of four vectors side by side: lanes are added in pairs while the four are transposed.
  static ZSBIR_INLINE void store_sums(T* p, R a, R b, R c, R d) {
    const R ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const R cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const R four = add(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(four), 1));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(four), upper);
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
  }

  // exp(x) = 2^n exp(r), |r| <= log(2) / 2, and a Taylor polynomial of degree 7: within 2 ulp.
  static ZSBIR_INLINE R exp(R x) {
    x = max(x, set(-110.0f));  // 0 already; keeps n ln 2 exact enough
    const R n = _mm512_roundscale_ps(mul(x, set(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const R r =
        _mm512_fnmadd_ps(n, set(-2.12194440e-4f), _mm512_fnmadd_ps(n, set(0.693359375f), x));
    R p = set(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
      p = fma(p, r, set(c));
    }
    return _mm512_scalef_ps(p, n);
  }
};

}  // namespace

template <>
PairKernels<float> avx512_kernels<float>() {
  return kernels<Avx512, float>();
}
template <>
PairKernels<Half> avx512_kernels<Half>() {
  return kernels<Avx512, Half>();
}
template <>
PairKernels<BFloat16> avx512_kernels<BFloat16>() {
  return kernels<Avx512, BFloat16>();
}

}  // namespace zsbir::token_weighting
#pragma GCC pop_options
#endif
