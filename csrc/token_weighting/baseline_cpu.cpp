// The pair kernels of the CPU in plain C++: for processors without AVX2, and for float64.
#include <cmath>

#include "token_weighting/pair_cpu.h"
#include "token_weighting/pair_cpu_body.h"

namespace zsbir::token_weighting {

namespace {

// 16 bytes in an array, which every compiler turns into the registers of its baseline.
template <class Element>
struct Plain {
  using T = Element;
  static constexpr int kWidth = 16 / sizeof(T);
  struct R {
    T lane[kWidth];
  };
  static constexpr int kDotRows = 2;
  static constexpr int kRows = 4, kColumns = 2;

  template <class F>
  static ZSBIR_INLINE R each(const F& f) {
    R out;
    for (int i = 0; i < kWidth; ++i) out.lane[i] = f(i);
    return out;
  }
  static ZSBIR_INLINE R zero() { return set(0); }
  static ZSBIR_INLINE R set(T x) {
    return each([&](int) { return x; });
  }
  static ZSBIR_INLINE R load(const T* p) {
    return each([&](int i) { return p[i]; });
  }
  static ZSBIR_INLINE R load_part(const T* p, int n) {
    return each([&](int i) { return i < n ? p[i] : T(0); });
  }
  static ZSBIR_INLINE void store(T* p, R x) { store_part(p, x, kWidth); }
  static ZSBIR_INLINE void store_part(T* p, R x, int n) {
    for (int i = 0; i < n; ++i) p[i] = x.lane[i];
  }
  static ZSBIR_INLINE void stream(T* p, R x) { store(p, x); }
  static ZSBIR_INLINE void fence() {}
  static ZSBIR_INLINE void fetch_l1(const T*) {}
  static ZSBIR_INLINE void fetch_l2(const T*) {}
  static ZSBIR_INLINE R add(R a, R b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static ZSBIR_INLINE R sub(R a, R b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static ZSBIR_INLINE R mul(R a, R b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static ZSBIR_INLINE R max(R a, R b) {
    return each([&](int i) { return std::max(a.lane[i], b.lane[i]); });
  }
  static ZSBIR_INLINE R fma(R a, R b, R c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static ZSBIR_INLINE R abs(R a) {
    return each([&](int i) { return std::abs(a.lane[i]); });
  }
  static ZSBIR_INLINE R exp(R a) {
    return each([&](int i) { return std::exp(a.lane[i]); });
  }
  static ZSBIR_INLINE T sum(R a) {
    T total = 0;
    for (T x : a.lane) total += x;
    return total;
  }
  static ZSBIR_INLINE T largest(R a) { return *std::max_element(a.lane, a.lane + kWidth); }
  static ZSBIR_INLINE void store_sums(T* p, R a, R b, R c, R d) {
    p[0] = sum(a);
    p[1] = sum(b);
    p[2] = sum(c);
    p[3] = sum(d);
  }
};

}  // namespace

template <class S>
PairKernels<S> baseline_kernels() {
  return kernels<Plain<Accumulate<S>>, S>();
}
template PairKernels<float> baseline_kernels<float>();
template PairKernels<double> baseline_kernels<double>();
template PairKernels<Half> baseline_kernels<Half>();
template PairKernels<BFloat16> baseline_kernels<BFloat16>();

}  // namespace zsbir::token_weighting
