#include "quadruplet_mining/row_loops_cpu.h"

#include "common/cpu_features.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#endif

namespace zsbir::quadruplet_mining {

namespace {

// Sums term(d) over the width; the compiler puts the partial sums into vectors.
template <class T, class Term>
inline __attribute__((always_inline)) T sum_over(int64_t width, const Term& term) {
  constexpr int64_t kLanes = 16;
  T sums[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) sums[l] += term(d + l);
  }
  T total = 0;
  for (; d < width; ++d) total += term(d);
  for (const T sum : sums) total += sum;
  return total;
}

// There is one set of loops for each level: the attribute decides which instructions the compiler
// may use inside.
#define ZSBIR_ROW_LOOPS(level, target)                                                   \
  namespace level {                                                                      \
  template <class T>                                                                     \
  target T squared_distance(const T* x, const T* y, int64_t width) {                     \
    return sum_over<T>(width, [=](int64_t d) { return (x[d] - y[d]) * (x[d] - y[d]); }); \
  }                                                                                      \
  template <class T>                                                                     \
  target T dot(const T* x, const T* y, int64_t width) {                                  \
    return sum_over<T>(width, [=](int64_t d) { return x[d] * y[d]; });                   \
  }                                                                                      \
  template <class T>                                                                     \
  target void add_difference(T* out, T factor, const T* x, const T* y, int64_t width) {  \
    for (int64_t d = 0; d < width; ++d) out[d] += factor * (x[d] - y[d]);                \
  }                                                                                      \
  template <class T>                                                                     \
  target void add_row(T* out, T factor, const T* y, int64_t width) {                     \
    for (int64_t d = 0; d < width; ++d) out[d] += factor * y[d];                         \
  }                                                                                      \
  template <class T>                                                                     \
  RowLoops<T> loops() {                                                                  \
    return {squared_distance<T>, dot<T>, add_difference<T>, add_row<T>};                 \
  }                                                                                      \
  }

ZSBIR_ROW_LOOPS(baseline, )
#if defined(ZSBIR_X86)
ZSBIR_ROW_LOOPS(avx2, __attribute__((target("avx2"))))
ZSBIR_ROW_LOOPS(avx512, __attribute__((target("avx512f,avx512vl,prefer-vector-width=512"))))
#endif
#undef ZSBIR_ROW_LOOPS

}  // namespace

template <class T>
RowLoops<T> row_loops() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return avx512::loops<T>();
  if (level == Simd::avx2) return avx2::loops<T>();
#endif
  return baseline::loops<T>();
}

template RowLoops<float> row_loops<float>();
template RowLoops<double> row_loops<double>();

}  // namespace zsbir::quadruplet_mining
