// The vectors of the SIMD levels under one name: simd::<level>::Vector<T> has Vec, kLanes, load
// (from aligned memory), loadu, strided (elements `stride` apart), store (to any), set, zero, sub,
// fma and sqrt.
//
// Code for a level is written once in an .inl that is included between the pragmas of each level
// (row_products/product_tiles.inl); a function without them cannot inline these.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#include <immintrin.h>
#endif

namespace zsbir::simd {

namespace baseline {
// Single elements, which the compiler joins where it can. There is no fused multiply-add where the
// processor has none: a library call for it would cost a hundred times as much.
template <class T>
struct Vector {
  using Vec = T;
  static constexpr int64_t kLanes = 1;
  static Vec load(const T* from) { return *from; }
  static Vec loadu(const T* from) { return *from; }
  static Vec strided(const T* from, int64_t) { return *from; }
  static void store(T* to, Vec v) { *to = v; }
  static Vec set(T x) { return x; }
  static Vec zero() { return 0; }
  static Vec sub(Vec a, Vec b) { return a - b; }
#if defined(__FP_FAST_FMAF) && defined(__FP_FAST_FMA)
  static Vec fma(Vec a, Vec b, Vec c) { return std::fma(a, b, c); }
#else
  static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif
  static Vec sqrt(Vec a) { return std::sqrt(a); }
};
}  // namespace baseline

#if defined(ZSBIR_X86)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
template <class T>
struct Vector;
template <>
struct Vector<float> {
  using Vec = __m256;
  static constexpr int64_t kLanes = 8;
  static Vec load(const float* from) { return _mm256_load_ps(from); }
  static Vec loadu(const float* from) { return _mm256_loadu_ps(from); }
  static Vec strided(const float* from, int64_t stride) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_i32gather_ps(from, _mm256_mullo_epi32(lane, _mm256_set1_epi32(int(stride))), 4);
  }
  static void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
  static Vec set(float x) { return _mm256_set1_ps(x); }
  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
};
template <>
struct Vector<double> {
  using Vec = __m256d;
  static constexpr int64_t kLanes = 4;
  static Vec load(const double* from) { return _mm256_load_pd(from); }
  static Vec loadu(const double* from) { return _mm256_loadu_pd(from); }
  static Vec strided(const double* from, int64_t stride) {
    const __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    return _mm256_i32gather_pd(from, _mm_mullo_epi32(lane, _mm_set1_epi32(int(stride))), 8);
  }
  static void store(double* to, Vec v) { _mm256_storeu_pd(to, v); }
  static Vec set(double x) { return _mm256_set1_pd(x); }
  static Vec zero() { return _mm256_setzero_pd(); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_pd(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_pd(a, b, c); }
  static Vec sqrt(Vec a) { return _mm256_sqrt_pd(a); }
};
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq")
namespace avx512 {
template <class T>
struct Vector;
template <>
struct Vector<float> {
  using Vec = __m512;
  static constexpr int64_t kLanes = 16;
  static Vec load(const float* from) { return _mm512_load_ps(from); }
  static Vec loadu(const float* from) { return _mm512_loadu_ps(from); }
  static Vec strided(const float* from, int64_t stride) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_i32gather_ps(_mm512_mullo_epi32(lane, _mm512_set1_epi32(int(stride))), from, 4);
  }
  static void store(float* to, Vec v) { _mm512_storeu_ps(to, v); }
  static Vec set(float x) { return _mm512_set1_ps(x); }
  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
};
template <>
struct Vector<double> {
  using Vec = __m512d;
  static constexpr int64_t kLanes = 8;
  static Vec load(const double* from) { return _mm512_load_pd(from); }
  static Vec loadu(const double* from) { return _mm512_loadu_pd(from); }
  static Vec strided(const double* from, int64_t stride) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_i32gather_pd(_mm256_mullo_epi32(lane, _mm256_set1_epi32(int(stride))), from, 8);
  }
  static void store(double* to, Vec v) { _mm512_storeu_pd(to, v); }
  static Vec set(double x) { return _mm512_set1_pd(x); }
  static Vec zero() { return _mm512_setzero_pd(); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_pd(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_pd(a, b, c); }
  static Vec sqrt(Vec a) { return _mm512_sqrt_pd(a); }
};
}  // namespace avx512
#pragma GCC pop_options
#endif

}  // namespace zsbir::simd
