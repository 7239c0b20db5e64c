// The emulated kernels as a Python module with the functions of the CPU kernels: the bindings of
// the room are compiled once more, and their `*_cpu` run the CUDA kernels. So the operators and
// their tests run on them unchanged: test_quadruplet_mining_emulation.py.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "emulated.h"

namespace zsbir {

void bind_quadruplet_mining(pybind11::module_& m);

namespace quadruplet_mining {

template <class T>
void pair_distances_cpu(Rows<T> a, Rows<T> b, Distance distance, T* out) {
  kernels::pair_distances(a, b, distance, out);
}

// On a GPU these are PyTorch operations (zsbir_fast/ops/quadruplet_mining/pair_distances.py).
template <class T>
void distance_weights_cpu(const T*, const T*, int64_t, int64_t, Distance, T*, T*, T*) {
  throw std::runtime_error("distance_weights has no CUDA kernel");
}

template <class T>
int64_t select_pairs_cpu(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                         const Estimates<T>& estimates, Distance distance, int32_t wanted,
                         int64_t* index, T* chosen) {
  kernels::select_pairs(anchors, references, filter, estimates, distance, wanted, index, chosen);
  return 0;  // a GPU does not count
}

template <class T>
void quadruplet_hinges_cpu(const MinedRows<T>& rows, const HingeForm& form, Distance distance,
                           T* hinges, T* slopes) {
  kernels::quadruplet_hinges(rows, form, distance, hinges, slopes);
}

template <class T>
void quadruplet_hinges_backward_cpu(const MinedRows<T>& rows, Distance distance, const T* slopes,
                                    const T* upstream, T* sketches_grad, T* photos_grad,
                                    T* references_grad) {
  kernels::quadruplet_hinges_backward(rows, distance, slopes, upstream, sketches_grad, photos_grad,
                                      references_grad);
}

template <class T>
void hinge_rows_cpu(const HingeRows<T>& problem, double* sums, double* active, T* by_threshold,
                    T* by_value) {
  kernels::hinge_rows(problem, sums, active, by_threshold, by_value);
}

template <class T>
void probe_pairs_cpu(const Probes<T>& problem, double* sums, T* by_value, int64_t* hits,
                     int64_t* class_hits) {
  kernels::probe_pairs(problem, sums, by_value, hits, class_hits);
}

template <class T>
void union_counts_cpu(const UnionRows<T>& problem, T* out) {
  kernels::union_counts(problem, out);
}

// Prepares the inputs that the operator prepares with PyTorch on a GPU.
template <class T>
int64_t probe_union_cpu(const ProbeUnion<T>& given) {
  ProbeUnion<T> problem = given;
  const int64_t sketches = problem.sketch_count;
  std::vector<T> sorted(problem.photo_count * sketches);
  for (int64_t n = 0; n < problem.photo_count; ++n) {
    for (int64_t q = 0; q < sketches; ++q) {
      const bool own = problem.sketch_class[q] == problem.photo_class[n];
      sorted[n * sketches + q] =
          own ? std::numeric_limits<T>::infinity() : problem.values[n * sketches + q];
    }
    std::sort(sorted.begin() + n * sketches, sorted.begin() + (n + 1) * sketches);
  }
  std::vector<int64_t> members(sketches), offsets(problem.classes + 1, 0);
  std::iota(members.begin(), members.end(), 0);
  std::stable_sort(members.begin(), members.end(), [&](int64_t a, int64_t b) {
    return problem.sketch_class[a] < problem.sketch_class[b];
  });
  for (int64_t q = 0; q < sketches; ++q) ++offsets[problem.sketch_class[q] + 1];
  for (int32_t c = 0; c < problem.classes; ++c) offsets[c + 1] += offsets[c];
  problem.sorted = sorted.data();
  problem.members = members.data();
  problem.member_offsets = offsets.data();
  std::vector<int64_t> totals(problem.count, 0);
  kernels::probe_union(problem, totals.data());
  return std::accumulate(totals.begin(), totals.end(), int64_t(0));
}

#define ZSBIR_INSTANTIATE(T)                                                                       \
  template void pair_distances_cpu<T>(Rows<T>, Rows<T>, Distance, T*);                             \
  template void distance_weights_cpu<T>(const T*, const T*, int64_t, int64_t, Distance, T*, T*,    \
                                        T*);                                                       \
  template int64_t select_pairs_cpu<T>(Rows<T>, Rows<T>, const SelectFilter<T>&,                   \
                                       const Estimates<T>&, Distance, int32_t, int64_t*, T*);      \
  template void quadruplet_hinges_cpu<T>(const MinedRows<T>&, const HingeForm&, Distance, T*, T*); \
  template void quadruplet_hinges_backward_cpu<T>(const MinedRows<T>&, Distance, const T*,         \
                                                  const T*, T*, T*, T*);                           \
  template void hinge_rows_cpu<T>(const HingeRows<T>&, double*, double*, T*, T*);                  \
  template void probe_pairs_cpu<T>(const Probes<T>&, double*, T*, int64_t*, int64_t*);             \
  template void union_counts_cpu<T>(const UnionRows<T>&, T*);                                      \
  template int64_t probe_union_cpu<T>(const ProbeUnion<T>&);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace quadruplet_mining

}  // namespace zsbir

PYBIND11_MODULE(emulated_quadruplet_mining, m) { zsbir::bind_quadruplet_mining(m); }
