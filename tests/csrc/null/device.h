// The CUDA kernel on a GPU, with host memory in and out: what emulated.h does on CPU threads.
#pragma once
#include <cstdint>

#include "null/null.h"
#include "on_device.h"

namespace kernels {

using namespace zsbir::null;

template <class T>
void null(Rows<T> host, T* host_out) {
  const OnDevice rows(host.data, host.count * host.width);
  const OnDevice out(host_out, host.count * host.width);
  host.data = rows.get();
  null_cuda(host, out.get(), 0, nullptr);
  out.copy_to(host_out);
}

}  // namespace kernels
