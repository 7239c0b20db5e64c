#include "quadruplet_mining/mining_scan_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "common/cpu_features.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#endif

namespace zsbir::quadruplet_mining {

namespace {

namespace baseline {
#define ZSBIR_FUSED false
#include "quadruplet_mining/mining_scan.inl"
#undef ZSBIR_FUSED
}  // namespace baseline

#if defined(ZSBIR_X86)
#define ZSBIR_FUSED true
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#include "quadruplet_mining/mining_scan.inl"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,fma")
namespace avx512 {
#include "quadruplet_mining/mining_scan.inl"
}  // namespace avx512
#pragma GCC pop_options
#undef ZSBIR_FUSED
#endif

}  // namespace

template <class T>
ScanLoops<T> scan_loops() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return avx512::loops<T>();
  if (level == Simd::avx2) return avx2::loops<T>();
#endif
  return baseline::loops<T>();
}

template ScanLoops<float> scan_loops<float>();
template ScanLoops<double> scan_loops<double>();

}  // namespace zsbir::quadruplet_mining
