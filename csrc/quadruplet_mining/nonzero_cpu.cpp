// Counting non-zero quadruplets on the CPU where two hinges share a negative: the active sets
// overlap there, and their sizes do not simply add up.
//
// Work         union_counts takes pairs of one class times values, in vectors; probe_union takes
//              photos times thresholds. Both are n^3 / C for n rows in C balanced classes, in
//              integers only.
#include <algorithm>
#include <vector>

#include "common/cpu_features.h"
#include "common/parallel.h"
#include "quadruplet_mining/places_cpu.h"
#include "quadruplet_mining/quadruplet_mining.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ZSBIR_X86 1
#endif

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

// The number of sketches of a list that lie below each of the ascending thresholds: a histogram of
// places, then its prefix sum.
template <class T, class Skip, class PlaceOf>
void count_below(const T* distances, int64_t sketches, const Skip& skip, const PlaceOf& place_of,
                 int64_t count, int32_t* below) {
  std::fill_n(below, count, 0);
  for (int64_t q = 0; q < sketches; ++q) {
    if (skip(q)) continue;
    const int64_t place = place_of(distances[q]);
    if (place < count) ++below[place];
  }
  for (int64_t i = 1; i < count; ++i) below[i] += below[i - 1];
}

// The entries of one class and how they meet one photo.
template <class T>
struct Entries {
  const int32_t *anchor, *positive, *rank;  // [count]
  const T *h1_threshold, *h4_threshold;     // [count]; nullptr: takes no part
  int64_t count;
  const T *sketches, *photos;  // distances of the photo to all sketches, to all photos
  const int32_t *below, *own;  // by rank; by entry
  int32_t valid;               // pairs of an entry for which one hinge is enough
};

// Each entry is nearly a coin toss, so this has no branches, and uses gathers where there are some.
template <bool h1, bool h4, class T>
inline __attribute__((always_inline)) int64_t sum_of(const Entries<T>& e) {
  constexpr int64_t kBlock = 1024;  // whose sum fits 32 bits
  int64_t total = 0;
  for (int64_t begin = 0; begin < e.count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, e.count);
    int32_t sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      int32_t active = 0;
      if (h1) active |= e.sketches[e.anchor[i]] < e.h1_threshold[i] ? 1 : 0;
      if (h4) active |= e.photos[e.positive[i]] < e.h4_threshold[i] ? 1 : 0;
      const int32_t some = e.below[e.rank[i]] - e.own[i];
      sum += active ? e.valid : some;
    }
    total += sum;
  }
  return total;
}

template <class T>
inline __attribute__((always_inline)) int64_t sum_of(const Entries<T>& e) {
  if (e.h1_threshold) return e.h4_threshold ? sum_of<true, true>(e) : sum_of<true, false>(e);
  return e.h4_threshold ? sum_of<false, true>(e) : sum_of<false, false>(e);
}

template <class T>
int64_t sum_baseline(const Entries<T>& e) {
  return sum_of(e);
}
#if defined(ZSBIR_X86)
template <class T>
__attribute__((target("avx2"))) int64_t sum_avx2(const Entries<T>& e) {
  return sum_of(e);
}
template <class T>
__attribute__((target("avx512f,avx512vl,avx512dq,prefer-vector-width=512"))) int64_t
sum_avx512(const Entries<T>& e) {
  return sum_of(e);
}
#endif

template <class T>
auto sum_for_this_processor() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return sum_avx512<T>;
  if (level == Simd::avx2) return sum_avx2<T>;
#endif
  return sum_baseline<T>;
}

struct Scratch {
  std::vector<int32_t> below, own;
};

template <class T>
int64_t nonzero_of_photo(const ProbeUnion<T>& p, int64_t n, const PlaceTable<T>& place_of,
                         const std::vector<std::vector<int64_t>>& members, Scratch& scratch) {
  const T* distances = p.values + n * p.sketch_count;
  const int32_t class_of_photo = p.photo_class[n];
  std::vector<int32_t>&below = scratch.below, &own = scratch.own;
  below.resize(p.count);
  own.resize(p.count);
  count_below(
      distances, p.sketch_count, [&](int64_t q) { return p.sketch_class[q] == class_of_photo; },
      place_of, p.count, below.data());
  const auto sum = sum_for_this_processor<T>();
  const T* of_photos = p.photos ? p.photos + n * p.photo_count : nullptr;
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
    total += sum({p.anchor + begin, p.positive + begin, p.rank + begin,
                  p.h1_threshold ? p.h1_threshold + begin : nullptr,
                  p.photos ? p.h4_threshold + begin : nullptr, end - begin, distances, of_photos,
                  below.data(), own.data(), int32_t(others - int64_t(of_class.size()))});
  }
  return total;
}

}  // namespace

template <class T>
int64_t probe_union_cpu(const ProbeUnion<T>& p) {
  std::vector<std::vector<int64_t>> members(p.classes);
  for (int64_t q = 0; q < p.sketch_count; ++q) members[p.sketch_class[q]].push_back(q);
  const PlaceTable<T> place_of(p.thresholds, p.count);
  std::vector<Scratch> scratch(max_threads());
  std::vector<int64_t> totals(p.photo_count, 0);
  parallel_rows(p.photo_count, [&](int64_t n, int thread) {
    totals[n] = nonzero_of_photo(p, n, place_of, members, scratch[thread]);
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
