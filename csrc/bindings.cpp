// The pybind11 module _C: addresses go in, nothing comes out. Every room binds its own functions in
// <room>/bindings.cpp. The only logic there is the choice of the element type, and every function
// releases the GIL. zsbir_fast/ops checks all arguments before it takes an address
// (tests/ops/test_operator_checks.py). The CPU kernels check the row numbers inside tensors, and
// throw; the CUDA kernels cannot throw, so they read nothing beyond the tensor and make the result
// NaN.
#include <pybind11/pybind11.h>

#include "common/cpu_features.h"
#if defined(ZSBIR_WITH_CUDA)
#include "common/cuda_info.h"
#endif
#include "common/parallel.h"

namespace py = pybind11;

namespace zsbir {

void bind_batched_map(py::module_& m);
void bind_null(py::module_& m);
void bind_quadruplet_mining(py::module_& m);
void bind_row_products(py::module_& m);
void bind_token_weighting(py::module_& m);

}  // namespace zsbir

using namespace zsbir;

namespace {

void bind_build_facts(py::module_& m) {
  m.attr("version") = ZSBIR_VERSION;
  m.attr("cxx_compiler") = ZSBIR_CXX_COMPILER;
#if defined(ZSBIR_WITH_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
#if defined(ZSBIR_WITH_CUDA)
  m.attr("built_with_cuda") = true;
  m.attr("cuda_architectures") = ZSBIR_CUDA_ARCHITECTURES;
  m.attr("cuda_compiler") = ZSBIR_CUDA_COMPILER_VERSION;
  m.def("cuda_device_count", &cuda_device_count);
  m.def("cuda_driver_version", &cuda_driver_version);
  m.def("cuda_runtime_version", &cuda_runtime_version);
#else
  m.attr("built_with_cuda") = false;
  m.attr("cuda_architectures") = "";
  m.attr("cuda_compiler") = "";
#endif
  m.def("simd_level", [] { return simd_name(simd_level()); });
  m.def("has_bfloat16_matrix_units", &has_bfloat16_matrix_units);
  m.def("max_threads", &max_threads);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Kernels of zsbir_fast. Private: use zsbir_fast.ops.";
  bind_build_facts(m);
  bind_batched_map(m);
  bind_null(m);
  bind_quadruplet_mining(m);
  bind_row_products(m);
  bind_token_weighting(m);
}
