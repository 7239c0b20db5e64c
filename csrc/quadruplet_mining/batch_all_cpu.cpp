// Batch-all sums on the CPU. A row has few thresholds and many values, so the thresholds are sorted
// and every value finds the number of thresholds that it lies below. All sums follow from such
// counts:
//
//   sum of max(0, t - x) over t > x  =  (sum of those t) - k x,   k = number of t > x
//   derivative by x = -k,  by t = number of x < t
//
// Work         rows x values x min(P / lanes, log P) for P thresholds of a row, once more to sort.
// Memory       The two matrices are read once, the derivatives written once; O(columns) a thread.
// Numerics     Comparisons are in the element type, counts exact, sums in double in a fixed order.
#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "quadruplet_mining/places_cpu.h"
#include "quadruplet_mining/quadruplet_mining.h"
#include "quadruplet_mining/threshold_counts_cpu.h"

namespace zsbir::quadruplet_mining {

namespace {

// Up to here every value is compared with every threshold, in vectors; sorting pays above.
constexpr int64_t kFewThresholds = 192;

template <class T>
struct RowWorkspace {
  std::vector<T> thresholds;
  std::vector<int64_t> columns, counts;  // of the thresholds
  std::vector<int32_t> weights, above;   // of the values
  std::vector<double> suffix;
};

template <class T>
void gather_thresholds(const HingeRows<T>& p, int64_t r, RowWorkspace<T>& w) {
  w.thresholds.clear();
  w.columns.clear();
  const T* row = p.thresholds + r * p.threshold_columns;
  for (int64_t c = 0; c < p.threshold_columns; ++c) {
    if (p.threshold_labels[c] != p.row_labels[r] || (p.exclude_self && c == r)) continue;
    w.thresholds.push_back(row[c] + T(p.margin));
    w.columns.push_back(c);
  }
  w.counts.assign(w.thresholds.size(), 0);
}

// A weight of 0 takes the columns of the row's own class out.
template <class T>
void weigh_values(const HingeRows<T>& p, int64_t r, RowWorkspace<T>& w) {
  w.weights.resize(p.value_columns);
  w.above.resize(p.value_columns);
  const int64_t label = p.row_labels[r];
  const int32_t whole = p.row_weights ? p.row_weights[r] : 1;
  for (int64_t c = 0; c < p.value_columns; ++c) {
    const int32_t weight = p.value_weights ? whole - p.value_weights[c] : whole;
    w.weights[c] = p.value_labels[c] == label ? 0 : weight;
  }
}

template <class T>
void sort_thresholds(RowWorkspace<T>& w) {
  std::vector<int64_t> order(w.thresholds.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = int64_t(i);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const T x = w.thresholds[a], y = w.thresholds[b];
    if (x < y || y < x) return x < y;
    const bool no_x = x != x, no_y = y != y;  // NaN comes last: sorting needs a strict order
    return no_x != no_y ? no_y : a < b;
  });
  std::vector<T> thresholds(order.size());
  std::vector<int64_t> columns(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    thresholds[i] = w.thresholds[order[i]];
    columns[i] = w.columns[order[i]];
  }
  w.thresholds.swap(thresholds);
  w.columns.swap(columns);
}

// Values below each threshold by binary search: a histogram of places, then its prefix sum.
template <class T>
void count_sorted(const T* values, int64_t n, RowWorkspace<T>& w) {
  sort_thresholds(w);
  const int64_t count = int64_t(w.thresholds.size());
  const T* begin = w.thresholds.data();
  for (int64_t c = 0; c < n; ++c) {
    if (w.weights[c] == 0) {
      w.above[c] = 0;
      continue;
    }
    const int64_t place = keys_up_to(begin, count, values[c]);
    w.above[c] = int32_t(count - place);
    if (place < count) w.counts[place] += w.weights[c];
  }
  for (int64_t i = 1; i < count; ++i) w.counts[i] += w.counts[i - 1];
}

template <class T>
void hinge_row(const HingeRows<T>& p, int64_t r, RowWorkspace<T>& w, ThresholdCounts<T> count_few,
               double* sums, double* active, T* by_threshold, T* by_value) {
  const T* values = p.values + r * p.value_columns;
  T* out_t = by_threshold + r * p.threshold_columns;
  T* out_v = by_value ? by_value + r * p.value_columns : out_t;
  gather_thresholds(p, r, w);
  weigh_values(p, r, w);
  const int64_t count = int64_t(w.thresholds.size());
  if (count <= kFewThresholds) {
    count_few(values, w.weights.data(), p.value_columns, w.thresholds.data(), count,
              w.counts.data(), w.above.data());
  } else {
    count_sorted(values, p.value_columns, w);
  }
  // Without values of its own the matrix is filled below, unless it has no column of another class.
  if (by_value || p.value_columns == 0) std::fill_n(out_t, p.threshold_columns, T(0));
  double sum = 0, counted = 0;
  for (int64_t c = 0; c < p.value_columns; ++c) {
    const double weighted = double(w.weights[c]) * double(w.above[c]);
    sum -= weighted * double(values[c]);
    out_v[c] = T(-weighted);
  }
  for (int64_t i = 0; i < count; ++i) {
    sum += double(w.counts[i]) * double(w.thresholds[i]);
    counted += double(w.counts[i]);
    out_t[w.columns[i]] = T(w.counts[i]);
  }
  sums[r] = sum;
  active[r] = counted;
}

}  // namespace

template <class T>
void hinge_rows_cpu(const HingeRows<T>& problem, double* sums, double* active, T* by_threshold,
                    T* by_value) {
  std::vector<RowWorkspace<T>> workspaces(max_threads());
  const ThresholdCounts<T> count_few = threshold_counts<T>();
  parallel_rows(problem.rows, [&](int64_t r, int thread) {
    hinge_row(problem, r, workspaces[thread], count_few, sums, active, by_threshold, by_value);
  });
}

template <class T>
void probe_pairs_cpu(const Probes<T>& p, double* sums, T* by_value, int64_t* hits,
                     int64_t* class_hits) {
  const int64_t count = *p.count;
  const PlaceTable<T> place_of(p.thresholds, count);
  std::vector<std::vector<int64_t>> counters(max_threads());
  parallel_rows(p.rows, [&](int64_t q, int thread) {
    std::vector<int64_t>& own = counters[thread];  // hits, then class_hits
    if (own.empty()) own.assign(2 * count + 1, 0);
    double sum = 0;
    for (int64_t n = 0; n < p.columns; ++n) {
      const T x = p.values[q * p.columns + n];
      const int32_t classes[2] = {p.row_class[q], p.column_class[n]};
      const int64_t place = place_of(x);
      int64_t above = count - place;
      by_value[q * p.columns + n] = 0;
      if (above == 0 || classes[0] == classes[1]) continue;
      ++own[place];
      double threshold_sum = p.threshold_sums[place];
      for (const int32_t c : classes) {
        const T* begin = p.by_class + p.class_offsets[c];
        const T* end = p.by_class + p.class_offsets[c + 1];
        if (begin == end || x >= end[-1]) continue;
        const T* at = begin + keys_up_to(begin, end - begin, x);
        above -= end - at;
        threshold_sum -= p.by_class_sums[at - p.by_class];
        ++own[count + 1 + (at - p.by_class)];
      }
      // With no threshold at all the difference of sums would be a rounding error, not 0.
      if (above > 0) sum += threshold_sum - double(above) * double(x);
      by_value[q * p.columns + n] = T(-above);
    }
    sums[q] = sum;
  });
  for (const auto& own : counters) {
    if (own.empty()) continue;
    for (int64_t i = 0; i <= count; ++i) hits[i] += own[i];
    for (int64_t i = 0; i < count; ++i) class_hits[i] += own[count + 1 + i];
  }
}

#define ZSBIR_INSTANTIATE(T)                                                      \
  template void hinge_rows_cpu<T>(const HingeRows<T>&, double*, double*, T*, T*); \
  template void probe_pairs_cpu<T>(const Probes<T>&, double*, T*, int64_t*, int64_t*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::quadruplet_mining
