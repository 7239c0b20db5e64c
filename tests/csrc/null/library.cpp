// The emulated kernel as a Python module with the functions of the CPU kernel: the bindings of the
// room are compiled once more, and their `*_cpu` run the CUDA kernel.
#include <pybind11/pybind11.h>

#include "emulated.h"

namespace zsbir {

void bind_null(pybind11::module_& m);

namespace null {

template <class T>
void null_cpu(Rows<T> rows, T* out) {
  kernels::null(rows, out);
}

template void null_cpu<float>(Rows<float>, float*);
template void null_cpu<double>(Rows<double>, double*);

}  // namespace null

}  // namespace zsbir

PYBIND11_MODULE(emulated_null, m) { zsbir::bind_null(m); }
