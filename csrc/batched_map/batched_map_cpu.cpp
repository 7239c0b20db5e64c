// batched_map on the CPU: one query per task, and everything about it stays in one core's cache.
//
// Algorithm    The R relevant keys are sorted (slot_table.h). Every other column is sent through
//              the table to its place among them and counted there. Prefix sums of the counts give
//              `closer`, and so the exact rank of each relevant item. metrics.h turns ranks into
//              metrics.
// Work         O(G) table look-ups, O(R + 4R) for the sort and the table, O(R) divisions.
// Memory       A query reads 4 G bytes of scores (and 4 G of classes where relevant columns are
//              scattered) and writes one row of doubles. A thread needs about 120 KiB of workspace
//              at R = 1,805.
// Determinism  Counts are integers and sums run in rank order, so the result is bit-identical for
//              any thread count, chunk or SIMD level.
#include <algorithm>
#include <vector>

#include "batched_map/batched_map.h"
#include "batched_map/candidates_cpu.h"
#include "batched_map/metrics.h"
#include "batched_map/slot_table.h"
#include "common/parallel.h"

namespace zsbir::batched_map {

namespace {

// Everything one thread needs for one query; sized once, for the largest R of the call.
template <class T>
struct Workspace {
  SlotTable<T> table;
  Candidates<T> candidates;
  int32_t unsure[kBlock + 2], hard[kBlock + 1];  // lists of candidates, see count_block
  std::vector<T> gathered;                       // relevant keys in gallery order
  std::vector<int32_t> gathered_at;              // their gallery indices
  // Counters by place among the relevant keys. Two histograms, used in turn: neighbouring columns
  // often share a place, and a counter that was just written is slow to read again.
  std::vector<int32_t> between[2];
  std::vector<int32_t> tied, before, group_end;
  std::vector<int32_t> counts;  // [kCountRows, R], for the fused entrance

  void reserve(int64_t most) {
    table.reserve(most);
    gathered.resize(most);
    gathered_at.resize(most);
    for (auto* counter : {&between[0], &between[1], &tied, &before, &group_end})
      counter->resize(most + 1);
    counts.resize(kCountRows * most);
  }

  void start_row() {
    const int64_t relevant = table.relevant();
    for (auto* counter : {&between[0], &between[1], &tied, &before}) {
      std::fill_n(counter->begin(), relevant + 1, 0);
    }
    for (int64_t j = relevant - 1; j >= 0; --j) {
      const bool joined = j + 1 < relevant && table.key()[j] == table.key()[j + 1];
      group_end[j] = joined ? group_end[j + 1] : int32_t(j + 1);
    }
  }

  // A column whose key equals the keys [place, group_end[place]) is counted at the group's first
  // slot, and before those of its items that stand behind it in the gallery.
  void count_tie(int32_t place, int32_t gallery_index) {
    ++tied[place];
    const int32_t* index = table.index();
    const int32_t* end = index + group_end[place];
    const int32_t* behind = std::upper_bound(index + place, end, gallery_index);
    if (behind != end) ++before[behind - index];
  }

  // Prefix sums turn counts by place into counts against each relevant item, which are added to
  // `out` [3, stride].
  void add_counts(int32_t* out, int64_t stride) const {
    int32_t closer = 0;
    for (int64_t first = 0; first < table.relevant();) {
      closer += between[0][first] + between[1][first];
      int32_t tied_before = 0;
      const int64_t last = group_end[first];
      for (int64_t j = first; j < last; ++j) {
        tied_before += before[j];
        out[kCloser * stride + j] += closer;
        out[kTied * stride + j] += tied[first];
        out[kTiedBefore * stride + j] += tied_before;
      }
      closer += tied[first];
      first = last;
    }
  }
};

template <class T>
struct Row {
  const T* scores;
  const int32_t* classes;  // nullptr: no column of the range is relevant
  const int32_t* gallery_index;
};

// Counts one column by search, without the table.
template <class T>
void count_by_search(const Row<T>& row, int64_t column, T key, Workspace<T>& w) {
  const int32_t place = w.table.place(key);
  if (w.table.key()[place] == key) {
    w.count_tie(place, row.gallery_index ? row.gallery_index[column] : int32_t(column));
  } else {
    ++w.between[0][place];
  }
}

// The second stage goes column by column, but without branches that depend on the data. It counts
// every candidate at the first slot of its bucket and lists those in occupied buckets; it moves
// these on by one slot where they are behind its key; it searches for the few that tie or meet a
// second key.
template <class T>
void count_block(const Row<T>& row, int64_t first_column, Workspace<T>& w) {
  // These are locals, so that a store to one list does not make the compiler load the others again.
  const Candidates<T>& c = w.candidates;
  const int32_t size = c.size;
  const int32_t* const bucket = c.bucket;
  const T* const candidate = c.key;
  const uint16_t* const entry = w.table.entry();
  const T* const key = w.table.key();
  int32_t* const even = w.between[0].data();
  int32_t* const odd = w.between[1].data();
  int32_t* const unsure = w.unsure;
  int32_t* const hard = w.hard;
  int32_t unsures = 0, i = 0;
  for (; i + 1 < size; i += 2) {
    const uint32_t a = entry[bucket[i]], b = entry[bucket[i + 1]];
    ++even[a >> 1];
    ++odd[b >> 1];
    unsure[unsures] = i;
    unsures += a & 1;
    unsure[unsures] = i + 1;
    unsures += b & 1;
  }
  if (i < size) {
    const uint32_t a = entry[bucket[i]];
    ++even[a >> 1];
    unsure[unsures] = i;
    unsures += a & 1;
  }
  int32_t hards = 0;
  for (int32_t u = 0; u < unsures; ++u) {
    const int32_t at = unsure[u];
    const T x = candidate[at];
    const int32_t slot = entry[bucket[at]] >> 1;
    const bool searched = (key[slot] == x) | (key[slot + 1] <= x);
    --even[slot];
    even[slot + (key[slot] < x)] += !searched;
    hard[hards] = at;
    hards += searched;
  }
  for (int32_t h = 0; h < hards; ++h) {
    count_by_search(row, first_column + c.column[hard[h]], candidate[hard[h]], w);
  }
}

template <class T>
void count_range(const Row<T>& row, int64_t begin, int64_t end, const Filter<T>& filter,
                 SelectCandidates<T> select, Workspace<T>& w) {
  for (int64_t at = begin; at < end; at += kBlock) {
    const int32_t columns = int32_t(std::min<int64_t>(kBlock, end - at));
    select(row.scores + at, row.classes ? row.classes + at : nullptr, columns, filter,
           w.candidates);
    count_block(row, at, w);
  }
}

// Without a table (slot_table.h, Limits) every column is searched.
template <class T>
void count_range_unmapped(const Row<T>& row, int64_t begin, int64_t end, const Filter<T>& filter,
                          Workspace<T>& w) {
  for (int64_t column = begin; column < end; ++column) {
    if (row.classes && row.classes[column] == filter.query_class) continue;
    const T key = filter.negate ? -row.scores[column] : row.scores[column];
    if (key <= filter.highest) count_by_search(row, column, key, w);
  }
}

// Counts the non-relevant columns of one row against the keys in w.table. The columns [skip_begin,
// skip_end) are known to be relevant; `classes` tells which of the others are, and is nullptr if
// none is.
template <class T>
void count_row(const Scores<T>& s, int64_t query, const int32_t* classes, int64_t skip_begin,
               int64_t skip_end, SelectCandidates<T> select, Workspace<T>& w) {
  w.start_row();
  const SlotTable<T>& t = w.table;
  const Filter<T> filter{t.lowest(),  t.highest(),        t.scale(),
                         t.buckets(), s.larger_is_closer, s.query_class[query]};
  const Row<T> row{s.data + query * s.row_stride, classes, s.gallery_index};
  const int64_t ranges[2][2] = {{0, skip_begin}, {skip_end, s.gallery}};
  for (const auto& [begin, end] : ranges) {
    if (t.mapped()) {
      count_range(row, begin, end, filter, select, w);
    } else {
      count_range_unmapped(row, begin, end, filter, w);
    }
  }
}

template <class T>
std::vector<Workspace<T>> workspaces(int64_t most_relevant) {
  std::vector<Workspace<T>> all(max_threads());
  for (auto& w : all) w.reserve(most_relevant);
  return all;
}

int64_t longest(const int64_t* offsets, int64_t rows) {
  int64_t most = 0;
  for (int64_t i = 0; i < rows; ++i) most = std::max(most, offsets[i + 1] - offsets[i]);
  return most;
}

// The columns of a class where they stand side by side: [begin, end); elsewhere begin = end = 0. A
// gallery sorted by class, as evaluate_retrieval prepares it, has them side by side, and stepping
// over them spares the look at every column's class.
struct Range {
  int64_t begin = 0, end = 0;
};

std::vector<Range> class_ranges(const int64_t* class_offsets, const int32_t* class_columns,
                                int32_t classes) {
  std::vector<Range> ranges(classes);
  for (int32_t c = 0; c < classes; ++c) {
    const int32_t* first = class_columns + class_offsets[c];
    const int32_t* last = class_columns + class_offsets[c + 1];
    if (first == last) continue;
    const auto [low, high] = std::minmax_element(first, last);
    if (*high - *low + 1 == last - first) ranges[c] = {*low, *high + 1};
  }
  return ranges;
}

// Puts the relevant keys of a query, in the order of the gallery, into the sorted table and returns
// their number. Keys that take no part (NaN) are left out, as they are among the other columns.
template <class T>
int64_t gather_relevant(const Scores<T>& s, int64_t query, const int32_t* columns, int64_t relevant,
                        Workspace<T>& w) {
  const T* row = s.data + query * s.row_stride;
  int64_t n = 0;
  for (int64_t i = 0; i < relevant; ++i) {
    const T score = row[columns[i]];
    w.gathered[n] = s.larger_is_closer ? -score : score;
    w.gathered_at[n] = s.gallery_index ? s.gallery_index[columns[i]] : columns[i];
    n += score == score;
  }
  w.table.sort(w.gathered.data(), w.gathered_at.data(), n);
  return n;
}

}  // namespace

template <class T>
void rank_counts_cpu(const Scores<T>& s, const Relevant<T>& relevant, int32_t* counts) {
  const auto select = select_candidates<T>();
  auto all = workspaces<T>(longest(relevant.offsets, s.queries));
  const int64_t nnz = relevant.offsets[s.queries];
  parallel_rows(s.queries, [&](int64_t query, int thread) {
    const int64_t offset = relevant.offsets[query], n = relevant.offsets[query + 1] - offset;
    if (n == 0) return;
    Workspace<T>& w = all[thread];
    w.table.adopt(relevant.key + offset, relevant.index + offset, n);
    count_row(s, query, s.gallery_class, 0, 0, select, w);
    w.add_counts(counts + offset, nnz);
  });
}

template <class T>
void ranking_metrics_cpu(int64_t queries, const Relevant<T>& relevant, const int32_t* counts,
                         const Definition& definition, double* out) {
  const int64_t nnz = relevant.offsets[queries];
  const int64_t columns = kFixedColumns + int64_t(kColumnsPerK) * definition.n_ks;
  parallel_rows(queries, [&](int64_t query, int) {
    const int64_t offset = relevant.offsets[query];
    const int32_t* c = counts + offset;
    const QueryCounts<T> q{relevant.key + offset, c + kCloser * nnz, c + kTied * nnz,
                           c + kTiedBefore * nnz, relevant.offsets[query + 1] - offset};
    metrics_row(q, definition, out + query * columns);
  });
}

template <class T>
void batched_map_cpu(const Scores<T>& s, const int64_t* class_offsets, const int32_t* class_columns,
                     int32_t classes, const Definition& definition, double* out) {
  const auto select = select_candidates<T>();
  const std::vector<Range> ranges = class_ranges(class_offsets, class_columns, classes);
  auto all = workspaces<T>(longest(class_offsets, classes));
  const int64_t columns = kFixedColumns + int64_t(kColumnsPerK) * definition.n_ks;
  parallel_rows(s.queries, [&](int64_t query, int thread) {
    Workspace<T>& w = all[thread];
    const int32_t c = s.query_class[query];
    const int64_t offset = c < 0 ? 0 : class_offsets[c],
                  own_columns = c < 0 ? 0 : class_offsets[c + 1] - offset;
    const int64_t n =
        own_columns == 0 ? 0 : gather_relevant(s, query, class_columns + offset, own_columns, w);
    QueryCounts<T> q{nullptr, nullptr, nullptr, nullptr, n};
    if (n > 0) {
      const Range& own = ranges[c];
      count_row(s, query, own.end > 0 ? nullptr : s.gallery_class, own.begin, own.end, select, w);
      std::fill_n(w.counts.begin(), kCountRows * n, 0);
      w.add_counts(w.counts.data(), n);
      const int32_t* counts = w.counts.data();
      q = {w.table.key(), counts + kCloser * n, counts + kTied * n, counts + kTiedBefore * n, n};
    }
    metrics_row(q, definition, out + query * columns);
  });
}

#define ZSBIR_INSTANTIATE(T)                                                                  \
  template void rank_counts_cpu<T>(const Scores<T>&, const Relevant<T>&, int32_t*);           \
  template void ranking_metrics_cpu<T>(int64_t, const Relevant<T>&, const int32_t*,           \
                                       const Definition&, double*);                           \
  template void batched_map_cpu<T>(const Scores<T>&, const int64_t*, const int32_t*, int32_t, \
                                   const Definition&, double*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::batched_map
