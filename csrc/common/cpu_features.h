// Which SIMD instructions this CPU has. It is asked once at run time: binaries are built for the
// baseline.
#pragma once

namespace zsbir {

// avx2 comes with fma, avx512 with f, vl, dq and bw.
enum class Simd { baseline, avx2, avx512 };

// ZSBIR_SIMD=baseline|avx2|avx512 lowers the choice (tests compare them); it never raises it.
Simd simd_level();
const char* simd_name(Simd level);

// Whether products of bfloat16 have units of their own (AMX) that the operating system lets us use.
// If so, a product in bfloat16 takes a fraction of the time of one in float32; else it takes
// longer.
bool has_bfloat16_matrix_units();

}  // namespace zsbir
