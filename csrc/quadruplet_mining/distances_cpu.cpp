#include "quadruplet_mining/distances_cpu.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/cpu_features.h"
#include "common/parallel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#include <immintrin.h>
#endif

namespace zsbir::quadruplet_mining {

namespace {

namespace baseline {
// Single elements, which the compiler joins as it can. Without a fused multiply-add: calling a
// library for it would cost a hundred times as much.
template <class T>
struct Vector {
  using Vec = T;
  static constexpr int64_t kLanes = 1;
  static Vec load(const T* from) { return *from; }
  static void store(T* to, Vec v) { *to = v; }
  static Vec set(T x) { return x; }
  static Vec zero() { return 0; }
  static Vec sub(Vec a, Vec b) { return a - b; }
  static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  static Vec sqrt(Vec a) { return std::sqrt(a); }
};
#define ZSBIR_VECTOR Vector
#define ZSBIR_TILE_ROWS 4
#include "quadruplet_mining/distance_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
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
  static void store(double* to, Vec v) { _mm256_storeu_pd(to, v); }
  static Vec set(double x) { return _mm256_set1_pd(x); }
  static Vec zero() { return _mm256_setzero_pd(); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_pd(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_pd(a, b, c); }
  static Vec sqrt(Vec a) { return _mm256_sqrt_pd(a); }
};
#define ZSBIR_VECTOR Vector
#define ZSBIR_TILE_ROWS 4  // 8 of 16 registers are sums
#include "quadruplet_mining/distance_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
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
  static void store(double* to, Vec v) { _mm512_storeu_pd(to, v); }
  static Vec set(double x) { return _mm512_set1_pd(x); }
  static Vec zero() { return _mm512_setzero_pd(); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_pd(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_pd(a, b, c); }
  static Vec sqrt(Vec a) { return _mm512_sqrt_pd(a); }
};
#define ZSBIR_VECTOR Vector
#define ZSBIR_TILE_ROWS 8  // 16 of 32 registers are sums
#include "quadruplet_mining/distance_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
}  // namespace avx512
#pragma GCC pop_options
#endif

// Rows of a task: enough to share a panel, few enough that small batches use every core.
int64_t block_rows(int64_t rows) { return rows >= 512 ? 32 : 8; }

}  // namespace

template <class T>
PackedRows<T>::PackedRows(Rows<T> rows)
    : count(rows.count), width(rows.width), storage(panels() * rows.width * kPanel<T>) {
  parallel_rows(panels(), [&](int64_t p, int) {
    const int64_t begin = p * kPanel<T>, columns = std::min(kPanel<T>, count - begin);
    T* out = storage.get() + p * width * kPanel<T>;
    constexpr int64_t kRun = 16;  // of the width: reads and writes stay within the first cache
    for (int64_t from = 0; from < width; from += kRun) {
      const int64_t to = std::min(from + kRun, width);
      for (int64_t c = 0; c < kPanel<T>; ++c) {
        const T* row = rows.data + (begin + c) * width;
        for (int64_t d = from; d < to; ++d) out[d * kPanel<T> + c] = c < columns ? row[d] : T(0);
      }
    }
  });
}

template <class T>
DistanceBlock<T> distance_block() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return avx512::block<T>;
  if (level == Simd::avx2) return avx2::block<T>;
#endif
  return baseline::block<T>;
}

template <class T>
void pair_distances_cpu(Rows<T> a, Rows<T> b, Distance distance, T* out) {
  if (a.count == 0 || b.count == 0) return;
  const PackedRows<T> packed(b);
  const DistanceBlock<T> block = distance_block<T>();
  const bool itself = a.data == b.data && a.count == b.count;
  const int64_t rows = block_rows(a.count), n = b.count;
  parallel_rows((a.count + rows - 1) / rows, [&](int64_t number, int) {
    const int64_t begin = number * rows, end = std::min(begin + rows, a.count);
    // Of a set with itself only the upper triangle is computed: (x - y)^2 = (y - x)^2 in all bits.
    const int64_t first = itself ? begin / kPanel<T> : 0;
    block({a.data + begin * a.width, end - begin, a.width}, packed, first, distance,
          out + begin * n, n);
    if (!itself) return;
    // Up to the end of this panel, the rows below compute their part themselves.
    const int64_t behind = (end + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
    for (int64_t c = behind; c < n; ++c) {
      for (int64_t r = begin; r < end; ++r) out[c * n + r] = out[r * n + c];
    }
  });
}

template struct PackedRows<float>;
template struct PackedRows<double>;
template DistanceBlock<float> distance_block<float>();
template DistanceBlock<double> distance_block<double>();
template void pair_distances_cpu<float>(Rows<float>, Rows<float>, Distance, float*);
template void pair_distances_cpu<double>(Rows<double>, Rows<double>, Distance, double*);

}  // namespace zsbir::quadruplet_mining
