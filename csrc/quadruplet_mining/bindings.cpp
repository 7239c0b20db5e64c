// quadruplet_mining for Python: see csrc/bindings.cpp.
#include <pybind11/pybind11.h>

#include "quadruplet_mining/arguments.h"

namespace py = pybind11;

namespace zsbir {

namespace {

using namespace quadruplet_mining;

void bind_arguments(py::module_& m) {
  using A = Address;
  const py::module_local local;  // tests load a second module with the same types
  py::class_<RowsArgs>(m, "Rows", local)
      .def(py::init<A, int64_t, int64_t>(), py::kw_only(), py::arg("data"), py::arg("count"),
           py::arg("width"));
  py::class_<FilterArgs>(m, "SelectFilter", local)
      .def(py::init<A, A, int64_t, A, A, A>(), py::kw_only(), py::arg("anchor_labels"),
           py::arg("reference_labels"), py::arg("same_limit"), py::arg("forbidden"), py::arg("low"),
           py::arg("high"));
  py::class_<EstimatesArgs>(m, "Estimates", local)
      .def(py::init<A, int64_t, int64_t, A, A, double, double, double>(), py::kw_only(),
           py::arg("products"), py::arg("first"), py::arg("rows"), py::arg("anchor_lengths"),
           py::arg("reference_lengths"), py::arg("product_error"), py::arg("norm_error"),
           py::arg("tiny"));
  py::class_<MinedArgs>(m, "MinedRows", local)
      .def(py::init<RowsArgs, RowsArgs, RowsArgs, A, A, A, A>(), py::kw_only(), py::arg("sketches"),
           py::arg("photos"), py::arg("references"), py::arg("positive"), py::arg("photo_negative"),
           py::arg("sketch_negative"), py::arg("valid"));
  py::class_<FormArgs>(m, "HingeForm", local)
      .def(py::init([](const py::sequence& c, const py::sequence& margins, double share) {
             FormArgs form{{}, {}, share};
             for (int32_t k = 0; k < kHinges; ++k) {
               form.coefficient[k] = c[k].cast<double>();
               form.margin[k] = margins[k].cast<double>();
             }
             return form;
           }),
           py::kw_only(), py::arg("coefficients"), py::arg("margins"),
           py::arg("cross_modal_share"));
  py::class_<HingeRowsArgs>(m, "HingeRows", local)
      .def(py::init<A, A, int64_t, int64_t, int64_t, A, A, A, A, A, double, bool>(), py::kw_only(),
           py::arg("thresholds"), py::arg("values"), py::arg("rows"), py::arg("threshold_columns"),
           py::arg("value_columns"), py::arg("row_labels"), py::arg("threshold_labels"),
           py::arg("value_labels"), py::arg("row_weights"), py::arg("value_weights"),
           py::arg("margin"), py::arg("exclude_self"));
  py::class_<ProbesArgs>(m, "Probes", local)
      .def(py::init<A, int64_t, int64_t, A, A, A, A, A, A, A, A, int64_t>(), py::kw_only(),
           py::arg("values"), py::arg("rows"), py::arg("columns"), py::arg("row_class"),
           py::arg("column_class"), py::arg("thresholds"), py::arg("threshold_sums"),
           py::arg("by_class"), py::arg("by_class_sums"), py::arg("class_offsets"),
           py::arg("count"), py::arg("capacity"));
  py::class_<UnionArgs>(m, "UnionRows", local)
      .def(py::init<A, A, A, int64_t, int64_t, int64_t, A, A, A, double, double>(), py::kw_only(),
           py::arg("pairs"), py::arg("first"), py::arg("second"), py::arg("rows"),
           py::arg("columns"), py::arg("values"), py::arg("row_labels"), py::arg("column_labels"),
           py::arg("value_labels"), py::arg("first_margin"), py::arg("second_margin"));
  py::class_<ProbeUnionArgs>(m, "ProbeUnion", local)
      .def(py::init<A, A, int64_t, int64_t, A, A, A, A, A, A, A, A, A, A, int32_t, int64_t, A, A,
                    A>(),
           py::kw_only(), py::arg("values"), py::arg("photos"), py::arg("sketch_count"),
           py::arg("photo_count"), py::arg("sketch_class"), py::arg("photo_class"),
           py::arg("thresholds"), py::arg("by_class"), py::arg("anchor"), py::arg("positive"),
           py::arg("rank"), py::arg("h1_threshold"), py::arg("h4_threshold"),
           py::arg("class_offsets"), py::arg("classes"), py::arg("count"), py::arg("sorted") = 0,
           py::arg("members") = 0, py::arg("member_offsets") = 0);
}

// Calls f(zero of the element type) without the lock, as every binding below does.
template <class... Args, class F>
auto typed(F f) {
  return
      [f](bool float64, Args... args) { with_type(float64, [&](auto zero) { f(zero, args...); }); };
}

void bind_cpu(py::module_& m) {
  using A = Address;
  const auto nogil = py::call_guard<py::gil_scoped_release>();
  m.def("pair_distances_cpu",
        typed<const RowsArgs&, const RowsArgs&, int32_t, A>(
            [](auto zero, const RowsArgs& a, const RowsArgs& b, int32_t distance, A out) {
              using T = decltype(zero);
              pair_distances_cpu(a.as<T>(), b.as<T>(), Distance(distance), at<T>(out));
            }),
        nogil);
  m.def("distance_weights_cpu",
        typed<A, A, int64_t, int64_t, int32_t, A, A, A>(
            [](auto zero, A grad, A distances, int64_t rows, int64_t columns, int32_t distance,
               A weights, A row_sums, A column_sums) {
              using T = decltype(zero);
              distance_weights_cpu(at<const T>(grad), at<const T>(distances), rows, columns,
                                   Distance(distance), at<T>(weights), at<T>(row_sums),
                                   at<T>(column_sums));
            }),
        nogil);
  m.def("select_pairs_cpu",
        typed<const RowsArgs&, const RowsArgs&, const FilterArgs&, const EstimatesArgs&, int32_t,
              int32_t, A, A, A>([](auto zero, const RowsArgs& anchors, const RowsArgs& references,
                                   const FilterArgs& filter, const EstimatesArgs& estimates,
                                   int32_t distance, int32_t wanted, A index, A chosen, A summed) {
          using T = decltype(zero);
          *at<int64_t>(summed) = select_pairs_cpu(
              anchors.as<T>(), references.as<T>(), filter.as<T>(), estimates.as<T>(),
              Distance(distance), wanted, at<int64_t>(index), at<T>(chosen));
        }),
        nogil);
  m.def("quadruplet_hinges_cpu",
        typed<const MinedArgs&, const FormArgs&, int32_t, A, A>(
            [](auto zero, const MinedArgs& rows, const FormArgs& form, int32_t distance, A hinges,
               A slopes) {
              using T = decltype(zero);
              quadruplet_hinges_cpu(rows.as<T>(), form.as(), Distance(distance), at<T>(hinges),
                                    at<T>(slopes));
            }),
        nogil);
  m.def("quadruplet_hinges_backward_cpu",
        typed<const MinedArgs&, int32_t, A, A, A, A, A>([](auto zero, const MinedArgs& rows,
                                                           int32_t distance, A slopes, A upstream,
                                                           A sketches, A photos, A references) {
          using T = decltype(zero);
          quadruplet_hinges_backward_cpu(rows.as<T>(), Distance(distance), at<const T>(slopes),
                                         at<const T>(upstream), at<T>(sketches), at<T>(photos),
                                         at<T>(references));
        }),
        nogil);
  m.def("hinge_rows_cpu",
        typed<const HingeRowsArgs&, A, A, A, A>([](auto zero, const HingeRowsArgs& problem, A sums,
                                                   A active, A by_threshold, A by_value) {
          using T = decltype(zero);
          hinge_rows_cpu(problem.as<T>(), at<double>(sums), at<double>(active), at<T>(by_threshold),
                         at<T>(by_value));
        }),
        nogil);
  m.def("probe_pairs_cpu",
        typed<const ProbesArgs&, A, A, A, A>(
            [](auto zero, const ProbesArgs& problem, A sums, A by_value, A hits, A class_hits) {
              using T = decltype(zero);
              probe_pairs_cpu(problem.as<T>(), at<double>(sums), at<T>(by_value), at<int64_t>(hits),
                              at<int64_t>(class_hits));
            }),
        nogil);
  m.def("union_counts_cpu",
        typed<const UnionArgs&, A>([](auto zero, const UnionArgs& problem, A out) {
          using T = decltype(zero);
          union_counts_cpu(problem.as<T>(), at<T>(out));
        }),
        nogil);
  m.def("probe_union_cpu",
        typed<const ProbeUnionArgs&, A>([](auto zero, const ProbeUnionArgs& problem, A out) {
          using T = decltype(zero);
          *at<int64_t>(out) = probe_union_cpu(problem.as<T>());
        }),
        nogil);
}

#if defined(ZSBIR_WITH_CUDA)
void bind_cuda(py::module_& m) {
  using A = Address;
  const auto nogil = py::call_guard<py::gil_scoped_release>();
  m.def("pair_distances_cuda",
        typed<const RowsArgs&, const RowsArgs&, int32_t, A, int, A>(
            [](auto zero, const RowsArgs& a, const RowsArgs& b, int32_t distance, A out, int device,
               A stream) {
              using T = decltype(zero);
              pair_distances_cuda(a.as<T>(), b.as<T>(), Distance(distance), at<T>(out), device,
                                  at<void>(stream));
            }),
        nogil);
  m.def("select_pairs_cuda",
        typed<const RowsArgs&, const RowsArgs&, const FilterArgs&, const EstimatesArgs&, int32_t,
              int32_t, A, A, int, A>([](auto zero, const RowsArgs& anchors,
                                        const RowsArgs& references, const FilterArgs& filter,
                                        const EstimatesArgs& estimates, int32_t distance,
                                        int32_t wanted, A index, A chosen, int device, A stream) {
          using T = decltype(zero);
          select_pairs_cuda(anchors.as<T>(), references.as<T>(), filter.as<T>(), estimates.as<T>(),
                            Distance(distance), wanted, at<int64_t>(index), at<T>(chosen), device,
                            at<void>(stream));
        }),
        nogil);
  m.def("quadruplet_hinges_cuda",
        typed<const MinedArgs&, const FormArgs&, int32_t, A, A, int, A>(
            [](auto zero, const MinedArgs& rows, const FormArgs& form, int32_t distance, A hinges,
               A slopes, int device, A stream) {
              using T = decltype(zero);
              quadruplet_hinges_cuda(rows.as<T>(), form.as(), Distance(distance), at<T>(hinges),
                                     at<T>(slopes), device, at<void>(stream));
            }),
        nogil);
  m.def("quadruplet_hinges_backward_cuda",
        typed<const MinedArgs&, int32_t, A, A, A, A, A, int, A>(
            [](auto zero, const MinedArgs& rows, int32_t distance, A slopes, A upstream, A sketches,
               A photos, A references, int device, A stream) {
              using T = decltype(zero);
              quadruplet_hinges_backward_cuda(rows.as<T>(), Distance(distance), at<const T>(slopes),
                                              at<const T>(upstream), at<T>(sketches), at<T>(photos),
                                              at<T>(references), device, at<void>(stream));
            }),
        nogil);
  m.def("hinge_rows_cuda",
        typed<const HingeRowsArgs&, A, A, A, A, int, A>([](auto zero, const HingeRowsArgs& problem,
                                                           A sums, A active, A by_threshold,
                                                           A by_value, int device, A stream) {
          using T = decltype(zero);
          hinge_rows_cuda(problem.as<T>(), at<double>(sums), at<double>(active),
                          at<T>(by_threshold), at<T>(by_value), device, at<void>(stream));
        }),
        nogil);
  m.def("probe_pairs_cuda",
        typed<const ProbesArgs&, A, A, A, A, int, A>([](auto zero, const ProbesArgs& problem,
                                                        A sums, A by_value, A hits, A class_hits,
                                                        int device, A stream) {
          using T = decltype(zero);
          probe_pairs_cuda(problem.as<T>(), at<double>(sums), at<T>(by_value), at<int64_t>(hits),
                           at<int64_t>(class_hits), device, at<void>(stream));
        }),
        nogil);
  m.def("union_counts_cuda",
        typed<const UnionArgs&, A, int, A>(
            [](auto zero, const UnionArgs& problem, A out, int device, A stream) {
              using T = decltype(zero);
              union_counts_cuda(problem.as<T>(), at<T>(out), device, at<void>(stream));
            }),
        nogil);
  m.def("probe_union_cuda",
        typed<const ProbeUnionArgs&, A, int, A>(
            [](auto zero, const ProbeUnionArgs& problem, A totals, int device, A stream) {
              using T = decltype(zero);
              probe_union_cuda(problem.as<T>(), at<int64_t>(totals), device, at<void>(stream));
            }),
        nogil);
}
#endif

}  // namespace

void bind_quadruplet_mining(py::module_& m) {
  bind_arguments(m);
  bind_cpu(m);
#if defined(ZSBIR_WITH_CUDA)
  bind_cuda(m);
#endif
}

}  // namespace zsbir
