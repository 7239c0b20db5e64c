// One spelling for code that the C++ compiler, nvcc and the CPU emulation of CUDA all compile.
#pragma once

#if defined(__CUDACC__)
#define ZSBIR_HD __host__ __device__ __forceinline__
#else
#define ZSBIR_HD inline
#endif
