// null for Python: see csrc/bindings.cpp.
#include <pybind11/pybind11.h>

#include "common/address.h"
#include "null/null.h"

namespace py = pybind11;

namespace zsbir {

void bind_null(py::module_& m) {
  using namespace null;
  const auto nogil = py::call_guard<py::gil_scoped_release>();
  m.def(
      "null_cpu",
      [](bool float64, Address rows, int64_t count, int64_t width, Address out) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          null_cpu<T>({at<const T>(rows), count, width}, at<T>(out));
        });
      },
      nogil);
#if defined(ZSBIR_WITH_CUDA)
  m.def(
      "null_cuda",
      [](bool float64, Address rows, int64_t count, int64_t width, Address out, int device,
         Address stream) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          null_cuda<T>({at<const T>(rows), count, width}, at<T>(out), device, at<void>(stream));
        });
      },
      nogil);
#endif
}

}  // namespace zsbir
