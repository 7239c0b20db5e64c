// batched_map for Python: see csrc/bindings.cpp.
#include <pybind11/pybind11.h>

#include "batched_map/batched_map.h"
#include "common/address.h"

namespace py = pybind11;

namespace zsbir {

namespace {

// The arguments that several functions share, as plain structs that Python fills by keyword.
struct ScoresArgs {
  Address data;
  bool float64;
  int64_t queries, gallery, row_stride;
  bool larger_is_closer;
  Address query_class, gallery_class, gallery_index;

  template <class T>
  batched_map::Scores<T> as() const {
    return {at<const T>(data),
            queries,
            gallery,
            row_stride,
            larger_is_closer,
            at<const int32_t>(query_class),
            at<const int32_t>(gallery_class),
            at<const int32_t>(gallery_index)};
  }
};

struct RelevantArgs {
  Address offsets, key, index;

  template <class T>
  batched_map::Relevant<T> as() const {
    return {at<const int64_t>(offsets), at<const T>(key), at<const int32_t>(index)};
  }
};

struct DefinitionArgs {
  int32_t ap, normaliser, precision, ties;
  Address ks;
  int32_t n_ks;

  batched_map::Definition as() const {
    using namespace batched_map;
    return {ApKind(ap), Normaliser(normaliser), PrecisionDenominator(precision),
            Ties(ties), at<const int64_t>(ks),  n_ks};
  }
};

}  // namespace

void bind_batched_map(py::module_& m) {
  using namespace batched_map;
  const auto nogil = py::call_guard<py::gil_scoped_release>();
  py::class_<ScoresArgs>(m, "Scores")
      .def(py::init<Address, bool, int64_t, int64_t, int64_t, bool, Address, Address, Address>(),
           py::kw_only(), py::arg("data"), py::arg("float64"), py::arg("queries"),
           py::arg("gallery"), py::arg("row_stride"), py::arg("larger_is_closer"),
           py::arg("query_class"), py::arg("gallery_class"), py::arg("gallery_index"));
  py::class_<RelevantArgs>(m, "Relevant")
      .def(py::init<Address, Address, Address>(), py::kw_only(), py::arg("offsets"), py::arg("key"),
           py::arg("index"));
  py::class_<DefinitionArgs>(m, "Definition")
      .def(py::init<int32_t, int32_t, int32_t, int32_t, Address, int32_t>(), py::kw_only(),
           py::arg("ap"), py::arg("normaliser"), py::arg("precision"), py::arg("ties"),
           py::arg("ks"), py::arg("n_ks"));

  m.def(
      "batched_map_cpu",
      [](const ScoresArgs& s, Address class_offsets, Address class_columns, int32_t classes,
         const DefinitionArgs& d, Address out) {
        with_type(s.float64, [&](auto zero) {
          using T = decltype(zero);
          batched_map_cpu(s.as<T>(), at<const int64_t>(class_offsets),
                          at<const int32_t>(class_columns), classes, d.as(), at<double>(out));
        });
      },
      nogil);
  m.def(
      "rank_counts_cpu",
      [](const ScoresArgs& s, const RelevantArgs& r, Address counts) {
        with_type(s.float64, [&](auto zero) {
          using T = decltype(zero);
          rank_counts_cpu(s.as<T>(), r.as<T>(), at<int32_t>(counts));
        });
      },
      nogil);
  m.def(
      "ranking_metrics_cpu",
      [](bool float64, int64_t queries, const RelevantArgs& r, Address counts,
         const DefinitionArgs& d, Address out) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          ranking_metrics_cpu(queries, r.as<T>(), at<const int32_t>(counts), d.as(),
                              at<double>(out));
        });
      },
      nogil);
#if defined(ZSBIR_WITH_CUDA)
  m.def(
      "rank_counts_cuda",
      [](const ScoresArgs& s, const RelevantArgs& r, Address counts, int device, Address stream) {
        with_type(s.float64, [&](auto zero) {
          using T = decltype(zero);
          rank_counts_cuda(s.as<T>(), r.as<T>(), at<int32_t>(counts), device, at<void>(stream));
        });
      },
      nogil);
  m.def(
      "ranking_metrics_cuda",
      [](bool float64, int64_t queries, const RelevantArgs& r, Address counts,
         const DefinitionArgs& d, Address out, int device, Address stream) {
        with_type(float64, [&](auto zero) {
          using T = decltype(zero);
          ranking_metrics_cuda(queries, r.as<T>(), at<const int32_t>(counts), d.as(),
                               at<double>(out), device, at<void>(stream));
        });
      },
      nogil);
#endif
}

}  // namespace zsbir
