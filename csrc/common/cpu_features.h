// Which SIMD instructions this CPU has, asked once at run time; binaries are built for the
// baseline.
#pragma once

namespace zsbir {

enum class Simd { baseline, avx2, avx512 };

// ZSBIR_SIMD=baseline|avx2|avx512 lowers the choice (tests compare them); it never raises it.
Simd simd_level();
const char* simd_name(Simd level);

}  // namespace zsbir
