#include "common/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace zsbir {

namespace {

Simd supported() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx2 && avx512) return Simd::avx512;
  if (avx2) return Simd::avx2;
#endif
  return Simd::baseline;
}

Simd wanted() {
  const char* name = std::getenv("ZSBIR_SIMD");
  for (Simd level : {Simd::baseline, Simd::avx2}) {
    if (name != nullptr && std::strcmp(name, simd_name(level)) == 0) return level;
  }
  return Simd::avx512;
}

}  // namespace

Simd simd_level() { return std::min(supported(), wanted()); }

const char* simd_name(Simd level) {
  return level == Simd::avx512 ? "avx512" : level == Simd::avx2 ? "avx2" : "baseline";
}

bool has_bfloat16_matrix_units() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return false;  // OSXSAVE: xgetbv is there
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool amx_bf16 = d >> 22 & 1, amx_tile = d >> 24 & 1;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;  // tile configuration and tile data are saved
  return amx_bf16 && amx_tile && (low & kTileState) == kTileState;
#else
  return false;
#endif
}

}  // namespace zsbir
