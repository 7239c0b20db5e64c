// Host memory as the GPU tests hand it to a kernel.
#pragma once
#include <cstdint>

#include "common/cuda_guard.h"

namespace kernels {

// A copy of host memory on device 0, without spare room, so that compute-sanitizer sees its end. A
// row that begins in the middle of 16 bytes does so there too.
template <class V>
class OnDevice {
 public:
  OnDevice(const V* host, int64_t elements) : bytes_(elements * sizeof(V)) {
    if (host == nullptr || bytes_ == 0) return;
    const size_t shift = reinterpret_cast<uintptr_t>(host) % 16;
    zsbir::check_cuda(cudaMalloc(&memory_, bytes_ + shift), "cudaMalloc");
    data_ = reinterpret_cast<V*>(memory_ + shift);
    zsbir::check_cuda(cudaMemcpy(data_, host, bytes_, cudaMemcpyDefault), "copy to the device");
  }
  ~OnDevice() { cudaFree(memory_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  V* get() const { return data_; }
  void copy_to(V* host) const {
    if (data_ == nullptr) return;
    zsbir::check_cuda(cudaMemcpy(host, data_, bytes_, cudaMemcpyDefault), "copy to the host");
  }

 private:
  size_t bytes_;
  unsigned char* memory_ = nullptr;
  V* data_ = nullptr;
};

}  // namespace kernels
