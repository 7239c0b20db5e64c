// The emulated kernels as a Python module with the functions of the CPU kernels: the bindings of
// the room are compiled once more, and their `*_cpu` run the CUDA kernels. A GPU knows no panels,
// so they are turned back into rows: test_row_products_emulation.py.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "emulated.h"

namespace zsbir {

void bind_row_products(pybind11::module_& m);

namespace row_products {

template <class T>
void pack_rows_cpu(Rows<T> rows, T* panels) {
  const int64_t count = (rows.count + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
  for (int64_t r = 0; r < count; ++r) {
    T* to = panels + r / kPanel<T> * kPanel<T> * rows.width + r % kPanel<T>;
    for (int64_t d = 0; d < rows.width; ++d) {
      to[d * kPanel<T>] = r < rows.count ? rows.data[r * rows.stride + d] : T(0);
    }
  }
}

template <class T>
void row_products_cpu(Rows<T> left, const Panels<T>& right, const Scoring<T>& scoring, T* out,
                      int64_t row_stride) {
  std::vector<T> rows;
  for (int64_t r = right.first; r < right.first + right.count; ++r) {
    const T* from = right.data + r / kPanel<T> * kPanel<T> * right.width + r % kPanel<T>;
    for (int64_t d = 0; d < right.width; ++d) rows.push_back(from[d * kPanel<T>]);
  }
  kernels::row_products<T>(left, {rows.data(), right.count, right.width, right.width}, scoring, out,
                           row_stride);
}

template <class T>
void row_squares_cpu(Rows<T> rows, double* out) {
  kernels::row_squares(rows, out);
}

#define ZSBIR_INSTANTIATE(T)                                                                    \
  template void pack_rows_cpu<T>(Rows<T>, T*);                                                  \
  template void row_products_cpu<T>(Rows<T>, const Panels<T>&, const Scoring<T>&, T*, int64_t); \
  template void row_squares_cpu<T>(Rows<T>, double*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace row_products

}  // namespace zsbir

PYBIND11_MODULE(emulated_row_products, m) { zsbir::bind_row_products(m); }
