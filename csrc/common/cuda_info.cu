#include <cuda_runtime.h>

#include "common/cuda_info.h"

namespace zsbir {

namespace {

int value_or_zero(cudaError_t (*ask)(int*)) {
  int value = 0;
  if (ask(&value) == cudaSuccess) return value;
  cudaGetLastError();  // leave no error behind for the next caller of CUDA
  return 0;
}

}  // namespace

int cuda_device_count() { return value_or_zero(&cudaGetDeviceCount); }
int cuda_driver_version() { return value_or_zero(&cudaDriverGetVersion); }
int cuda_runtime_version() { return value_or_zero(&cudaRuntimeGetVersion); }

}  // namespace zsbir
