// The contract of the room: out[b, d] = rows[b, d], in all bits, on any device.
#pragma once
#include <cstdint>

namespace zsbir::null {

// A matrix of rows that lie side by side; it may have no rows or no columns.
template <class T>
struct Rows {
  const T* data;
  int64_t count, width;
};

// out [rows.count, rows.width] must not overlap the rows. T is float or double.
template <class T>
void null_cpu(Rows<T> rows, T* out);
template <class T>
void null_cuda(Rows<T> rows, T* out, int device, void* stream);

}  // namespace zsbir::null
