// The frame of every launcher: it takes the tensors' device and the caller's stream, and raises
// errors that name the kernel. Nothing here waits, unless ZSBIR_DEBUG_SYNC=1 asks for it.
#pragma once
#include <cuda_runtime.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace zsbir {

inline void check_cuda(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // leave no error behind for the next caller of CUDA
  std::string message = what + ": " + cudaGetErrorString(error);
  if (error == cudaErrorNoKernelImageForDevice) {
    message += " (built for architectures " ZSBIR_CUDA_ARCHITECTURES
               "; set CUDAARCHS to this GPU's and build again)";
  }
  throw std::runtime_error(message);
}

// Makes `device` current, and restores the caller's at the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) : device_(device) {
    check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device) check_cuda(cudaSetDevice(device), "cudaSetDevice(" + name() + ")");
  }
  ~DeviceGuard() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  int attribute(cudaDeviceAttr which) const {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device_), "cudaDeviceGetAttribute");
    return value;
  }
  std::string name() const { return std::to_string(device_); }

 private:
  int device_, before_ = 0;
};

// kernel<<<grid, threads, shared_bytes, stream>>>(args...) on the guard's device.
template <class... Parameters, class... Args>
void launch(const DeviceGuard& device, const char* name, void (*kernel)(Parameters...), dim3 grid,
            unsigned threads, size_t shared_bytes, void* stream, Args... args) {
  const auto describe = [&] {
    return std::string(name) + " [grid " + std::to_string(grid.x) + " x " + std::to_string(grid.y) +
           ", " + std::to_string(threads) + " threads, " + std::to_string(shared_bytes) +
           " bytes shared, device " + device.name() + "]";
  };
  constexpr size_t kWithoutAsking = 48 * 1024;  // a block gets more shared memory only on request
  if (shared_bytes > kWithoutAsking) {
    const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    const cudaError_t granted = cudaFuncSetAttribute(kernel, attribute, int(shared_bytes));
    if (granted != cudaSuccess) check_cuda(granted, describe());
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaError_t error = cudaLaunchKernelEx(&config, kernel, args...);
  const char* sync = std::getenv("ZSBIR_DEBUG_SYNC");
  if (error == cudaSuccess && sync != nullptr && std::string(sync) == "1") {
    error = cudaStreamSynchronize(config.stream);
  }
  if (error != cudaSuccess) check_cuda(error, describe());
}

}  // namespace zsbir
