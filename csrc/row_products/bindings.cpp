// row_products for Python: see csrc/bindings.cpp.
#include <pybind11/pybind11.h>

#include "common/address.h"
#include "row_products/row_products.h"

namespace py = pybind11;

namespace zsbir {

namespace {

struct MatrixArgs {
  Address data;
  int64_t count, width, stride;

  template <class T>
  row_products::Rows<T> as() const {
    return {at<const T>(data), count, width, stride};
  }
};

}  // namespace

void bind_row_products(py::module_& m) {
  using namespace row_products;
  const auto nogil = py::call_guard<py::gil_scoped_release>();
  m.attr("panel_bytes") = kPanel<float> * sizeof(float);
  py::class_<MatrixArgs>(m, "Matrix")
      .def(py::init<Address, int64_t, int64_t, int64_t>(), py::kw_only(), py::arg("data"),
           py::arg("count"), py::arg("width"), py::arg("stride"));

  m.def(
      "pack_rows_cpu",
      [](bool float64, const MatrixArgs& rows, Address panels) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          pack_rows_cpu(rows.as<T>(), at<T>(panels));
        });
      },
      nogil);
  m.def(
      "row_products_cpu",
      [](bool float64, const MatrixArgs& left, Address panels, int64_t first, int64_t count,
         Address scale, Address offset, Address out, int64_t row_stride) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          row_products_cpu<T>(left.as<T>(), {at<const T>(panels), left.width, first, count},
                              {at<const T>(scale), at<const T>(offset)}, at<T>(out), row_stride);
        });
      },
      nogil);
  m.def(
      "row_squares_cpu",
      [](bool float64, const MatrixArgs& rows, Address out) {
        with_type(float64,
                  [&](auto zero) { row_squares_cpu(rows.as<decltype(zero)>(), at<double>(out)); });
      },
      nogil);
#if defined(ZSBIR_WITH_CUDA)
  m.def(
      "row_products_cuda",
      [](bool float64, const MatrixArgs& left, const MatrixArgs& right, Address scale,
         Address offset, Address out, int64_t row_stride, int device, Address stream) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          row_products_cuda<T>(left.as<T>(), right.as<T>(),
                               {at<const T>(scale), at<const T>(offset)}, at<T>(out), row_stride,
                               device, at<void>(stream));
        });
      },
      nogil);
  m.def(
      "row_squares_cuda",
      [](bool float64, const MatrixArgs& rows, Address out, int device, Address stream) {
        with_type(float64, [&](auto zero) {
          row_squares_cuda(rows.as<decltype(zero)>(), at<double>(out), device, at<void>(stream));
        });
      },
      nogil);
#endif
}

}  // namespace zsbir
