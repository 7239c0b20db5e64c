// Counting non-zero quadruplets on the CPU where two hinges share a negative: there the active sets
// overlap, and their sizes do not simply add up.
//
// Work         union_counts: pairs of one class times values, in vectors. probe_union: photos times
//              thresholds. Both n^3 / C for n rows in C balanced classes, integers only.
#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "quadruplet_mining/places_cpu.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

template <class T>
void union_counts_cpu(const UnionRows<T>& p, T* out) {
  std::vector<std::vector<int32_t>> others(max_threads());
  parallel_rows(p.rows, [&](int64_t r, int thread) {
    std::vector<int32_t>& other = others[thread];
    other.resize(p.values);
    for (int64_t v = 0; v < p.values; ++v) other[v] = p.value_labels[v] != p.row_labels[r];
    const T* first = p.first + r * p.values;
    for (int64_t c = 0; c < p.columns; ++c) {
      T* count = out + r * p.columns + c;
      *count = 0;
      if (p.column_labels[c] != p.row_labels[r]) continue;
      const T* second = p.second + c * p.values;
      const T d = p.pairs[r * p.columns + c];
      const T below_first = d + T(p.first_margin), below_second = d + T(p.second_margin);
      int32_t inside = 0;
      for (int64_t v = 0; v < p.values; ++v) {
        inside += (int32_t(first[v] < below_first) | int32_t(second[v] < below_second)) & other[v];
      }
      *count = T(inside);
    }
  });
}

namespace {

// How many of the sketches of a list lie below each of the ascending thresholds: a histogram of
// places, then its prefix sum.
template <class T, class Skip, class PlaceOf>
void count_below(const T* distances, int64_t sketches, const Skip& skip, const PlaceOf& place_of,
                 int64_t count, int64_t* below) {
  std::fill_n(below, count, 0);
  for (int64_t q = 0; q < sketches; ++q) {
    if (skip(q)) continue;
    const int64_t place = place_of(distances[q]);
    if (place < count) ++below[place];
  }
  for (int64_t i = 1; i < count; ++i) below[i] += below[i - 1];
}

template <class T>
int64_t nonzero_of_photo(const ProbeUnion<T>& p, int64_t n, const PlaceTable<T>& place_of,
                         const std::vector<std::vector<int64_t>>& members,
                         std::vector<int64_t>& below, std::vector<int64_t>& own) {
  const T* distances = p.values + n * p.sketch_count;
  const int32_t class_of_photo = p.photo_class[n];
  below.resize(p.count);
  own.resize(p.count);
  count_below(
      distances, p.sketch_count, [&](int64_t q) { return p.sketch_class[q] == class_of_photo; },
      place_of, p.count, below.data());
  int64_t total = 0;
  const int64_t others = p.sketch_count - int64_t(members[class_of_photo].size());
  std::vector<T> of_class;
  for (int32_t c = 0; c < p.classes; ++c) {
    const int64_t begin = p.class_offsets[c], end = p.class_offsets[c + 1];
    if (begin == end || c == class_of_photo) continue;
    of_class.clear();
    for (const int64_t q : members[c]) of_class.push_back(distances[q]);
    count_below(
        of_class.data(), int64_t(of_class.size()), [](int64_t) { return false; },
        [&](T x) { return keys_up_to(p.by_class + begin, end - begin, x); }, end - begin,
        own.data());
    const int64_t valid = others - int64_t(of_class.size());
    for (int64_t i = begin; i < end; ++i) {
      const bool h1 = p.h1_threshold && distances[p.anchor[i]] < p.h1_threshold[i];
      const bool h4 = p.photos && p.photos[n * p.photo_count + p.positive[i]] < p.h4_threshold[i];
      total += h1 || h4 ? valid : below[p.rank[i]] - own[i - begin];
    }
  }
  return total;
}

}  // namespace

template <class T>
int64_t probe_union_cpu(const ProbeUnion<T>& p) {
  std::vector<std::vector<int64_t>> members(p.classes);
  for (int64_t q = 0; q < p.sketch_count; ++q) members[p.sketch_class[q]].push_back(q);
  const PlaceTable<T> place_of(p.thresholds, p.count);
  const int threads = max_threads();
  std::vector<std::vector<int64_t>> below(threads), own(threads);
  std::vector<int64_t> totals(p.photo_count, 0);
  parallel_rows(p.photo_count, [&](int64_t n, int thread) {
    totals[n] = nonzero_of_photo(p, n, place_of, members, below[thread], own[thread]);
  });
  int64_t total = 0;
  for (const int64_t of_photo : totals) total += of_photo;
  return total;
}

#define ZSBIR_INSTANTIATE(T)                                  \
  template void union_counts_cpu<T>(const UnionRows<T>&, T*); \
  template int64_t probe_union_cpu<T>(const ProbeUnion<T>&);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::quadruplet_mining
