// The CUDA kernels on a GPU, with host memory in and out, as emulated.h runs them on CPU threads.
#pragma once
#include <cstdint>

#include "on_device.h"
#include "row_products/row_products.h"

namespace kernels {

using namespace zsbir::row_products;

template <class T>
int64_t elements(const Rows<T>& rows) {
  return rows.count == 0 ? 0 : (rows.count - 1) * rows.stride + rows.width;
}

template <class T>
void row_products(Rows<T> host_left, Rows<T> host_right, const Scoring<T>& host, T* host_out,
                  int64_t row_stride) {
  if (host_left.count == 0) return;
  const OnDevice left(host_left.data, elements(host_left));
  const OnDevice right(host_right.data, elements(host_right));
  const OnDevice scale(host.scale, host_right.count), offset(host.offset, host_right.count);
  const OnDevice out(host_out, (host_left.count - 1) * row_stride + host_right.count);
  host_left.data = left.get();
  host_right.data = right.get();
  row_products_cuda(host_left, host_right, {scale.get(), offset.get()}, out.get(), row_stride, 0,
                    nullptr);
  out.copy_to(host_out);
}

template <class T>
void row_squares(Rows<T> host, double* host_out) {
  const OnDevice rows(host.data, elements(host));
  const OnDevice out(host_out, host.count);
  host.data = rows.get();
  row_squares_cuda(host, out.get(), 0, nullptr);
  out.copy_to(host_out);
}

}  // namespace kernels
