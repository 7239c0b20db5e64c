// Turns the counts of one query into one row of metrics. The same code runs in the CPU kernel, in
// the CUDA kernel and in the emulation of CUDA, so that they agree to the last bit. docs/metrics.md
// has the formulas.
//
// The work is O(R) divisions in double, and under `expected` the items of tied groups. No memory is
// needed but the row itself. Sums run sequentially in rank order, so the result does not depend on
// threads or chunks.
#pragma once
#include <cmath>
#include <cstdint>

#include "batched_map/batched_map.h"
#include "common/host_device.h"

namespace zsbir::batched_map {

// The relevant items of one query in rank order, with the counts of batched_map.h.
template <class T>
struct QueryCounts {
  const T* key;
  const int32_t* closer;
  const int32_t* tied;
  const int32_t* tied_before;
  int64_t relevant;  // R
};

// Relevant items [first, last) share one key; `before` items of any kind rank strictly ahead of
// them and `size` items of any kind, last - first of them relevant, share the key.
struct TieGroup {
  int64_t first, last, before, size;
};

template <class T>
ZSBIR_HD TieGroup tie_group_at(const QueryCounts<T>& q, int64_t first) {
  int64_t last = first + 1;
  while (last < q.relevant && q.key[last] == q.key[first]) ++last;
  return {first, last, first + q.closer[first], last - first + q.tied[first]};
}

// 1-based rank of relevant item j when tied items are put in a definite order.
template <class T>
ZSBIR_HD int64_t rank_of(const QueryCounts<T>& q, int64_t j, Ties ties) {
  const int64_t others = ties == Ties::index         ? q.tied_before[j]
                         : ties == Ties::pessimistic ? q.tied[j]
                                                     : 0;
  return j + 1 + q.closer[j] + others;
}

// Number of relevant items ranked within the first k (ranks ascend with j).
template <class T>
ZSBIR_HD int64_t hits_within(const QueryCounts<T>& q, int64_t k, Ties ties) {
  int64_t lo = 0, hi = q.relevant;
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    if (rank_of(q, mid, ties) <= k) {
      lo = mid + 1;
    } else {
      hi = mid;
    }
  }
  return lo;
}

// Sum of precisions at the first `hits` relevant items, in a definite order. VOC replaces each
// precision by the largest one at or after it, a running maximum from the right.
template <class T>
ZSBIR_HD double precision_sum(const QueryCounts<T>& q, int64_t hits, ApKind ap, Ties ties) {
  double sum = 0.0;
  if (ap == ApKind::standard) {
    for (int64_t j = 0; j < hits; ++j) sum += double(j + 1) / double(rank_of(q, j, ties));
  } else {
    double envelope = 0.0;
    for (int64_t j = hits - 1; j >= 0; --j) {
      envelope = fmax(envelope, double(j + 1) / double(rank_of(q, j, ties)));
      sum += envelope;
    }
  }
  return sum;
}

// The counts of the first k items of a ranking; k < 0 stands for the whole gallery.
struct Prefix {
  double precision_sum;  // numerator of AP@k
  double hits;           // relevant items among them (an expectation under grouped and expected)
  double hit;            // at least one of them relevant (a probability under expected)
};

template <class T>
ZSBIR_HD Prefix ordered_prefix(const QueryCounts<T>& q, int64_t k, ApKind ap, Ties ties) {
  const int64_t hits = k < 0 ? q.relevant : hits_within(q, k, ties);
  return {precision_sum(q, hits, ap, ties), double(hits), hits > 0 ? 1.0 : 0.0};
}

// `grouped` has one threshold per tie group and takes the precision at its end. A group that k cuts
// ends there and holds its expected share of relevant items.
template <class T>
ZSBIR_HD Prefix grouped_prefix(const QueryCounts<T>& q, int64_t k, ApKind ap) {
  double sum = 0.0, hits = 0.0;
  int64_t end_of_last = 0;  // first relevant item behind the prefix
  for (int64_t first = 0; first < q.relevant;) {
    const TieGroup g = tie_group_at(q, first);
    if (k >= 0 && g.before >= k) break;
    const bool cut = k >= 0 && g.before + g.size > k;
    const double share = cut ? double(k - g.before) / double(g.size) : 1.0;
    const double inside = double(g.last - g.first) * share;
    const double end = cut ? double(k) : double(g.before + g.size);
    sum += inside * ((double(g.first) + inside) / end);
    hits = double(g.first) + inside;
    end_of_last = g.last;
    first = g.last;
  }
  if (ap == ApKind::voc && end_of_last > 0) {
    // Once more from the right, group by group, with the running maximum of precision.
    sum = 0.0;
    double envelope = 0.0;
    for (int64_t last = end_of_last; last > 0;) {
      int64_t first = last - 1;
      while (first > 0 && q.key[first - 1] == q.key[last - 1]) --first;
      const int64_t before = first + q.closer[first], size = last - first + q.tied[first];
      const bool cut = k >= 0 && before + size > k;
      const double inside = double(last - first) * (cut ? double(k - before) / double(size) : 1.0);
      const double end = cut ? double(k) : double(before + size);
      envelope = fmax(envelope, (double(first) + inside) / end);
      sum += inside * envelope;
      last = first;
    }
  }
  return {sum, hits, fmin(1.0, hits)};
}

// `expected`: the mean over all orders of tied items, in closed form (McSherry and Najork, 2008):
// the j-th place of a group of n items with r relevant ones holds a relevant item with probability
// r/n, and then (j-1)(r-1)/(n-1) relevant ones of the group are expected ahead of it.
template <class T>
ZSBIR_HD Prefix expected_prefix(const QueryCounts<T>& q, int64_t k) {
  double sum = 0.0, hits = 0.0, miss = 1.0;
  for (int64_t first = 0; first < q.relevant;) {
    const TieGroup g = tie_group_at(q, first);
    if (k >= 0 && g.before >= k) break;
    const int64_t r = g.last - g.first;
    const int64_t places = k >= 0 && g.before + g.size > k ? k - g.before : g.size;
    if (r == g.size) {  // nothing but relevant items: every order is the same
      for (int64_t j = 1; j <= places; ++j) sum += double(g.first + j) / double(g.before + j);
    } else {
      const double chance = double(r) / double(g.size);
      const double step = double(r - 1) / double(g.size - 1);  // size >= 2 here
      for (int64_t j = 1; j <= places; ++j) {
        sum += chance * ((double(g.first + 1) + double(j - 1) * step) / double(g.before + j));
      }
    }
    hits += double(r) * (double(places) / double(g.size));
    if (first == 0) {  // the first relevant item is in this group
      for (int64_t j = 0; j < places && miss > 0.0; ++j) {
        miss *=
            double(g.size - r - j) / double(g.size - j);  // reaches 0 before it could turn negative
      }
    }
    first = g.last;
  }
  return {sum, hits, 1.0 - miss};
}

template <class T>
ZSBIR_HD Prefix prefix_of(const QueryCounts<T>& q, int64_t k, ApKind ap, Ties ties) {
  if (ties == Ties::expected) return expected_prefix(q, k);
  if (ties == Ties::grouped) return grouped_prefix(q, k, ap);
  return ordered_prefix(q, k, ap, ties);
}

template <class T>
ZSBIR_HD double reciprocal_rank(const QueryCounts<T>& q, Ties ties) {
  const TieGroup g = tie_group_at(q, 0);
  if (ties == Ties::grouped) return 1.0 / double(g.before + g.size);
  if (ties != Ties::expected) return 1.0 / double(rank_of(q, 0, ties));
  const int64_t r = g.last - g.first;
  double sum = 0.0,
         miss = 1.0;  // miss: chance of no relevant item in the first j places of the group
  for (int64_t j = 0; j < g.size && miss > 0.0; ++j) {
    sum += miss * (double(r) / double(g.size - j)) / double(g.before + j + 1);
    miss *= double(g.size - r - j) / double(g.size - j);  // reaches 0 before it could turn negative
  }
  return sum;
}

ZSBIR_HD double ap_normaliser(Normaliser normaliser, int64_t k, int64_t relevant, double hits) {
  switch (normaliser) {
    case Normaliser::min_relevant_k:
      return double(relevant < k ? relevant : k);
    case Normaliser::prefix_positive:
      return hits;
    case Normaliser::all_relevant:
      return double(relevant);
    default:
      return double(k);
  }
}

// AP@all under `ties`, the lowest and highest AP@all that an order of the tied items can give, AP@R
// and R-precision.
struct ApRange {
  double ap, worst, best, ap_at_r, r_precision;
};

// Standard AP of an ordered mode in one pass: without a tie the three precisions are one division.
// AP@R is what the sum has reached at the last of the hits within R.
template <class T>
ZSBIR_HD ApRange standard_ap(const QueryCounts<T>& q, Ties ties) {
  const int64_t hits_at_r = hits_within(q, q.relevant, ties);
  double ap = 0.0, worst = 0.0, best = 0.0, ap_at_r = 0.0;
  for (int64_t j = 0; j < q.relevant; ++j) {
    if (j == hits_at_r) ap_at_r = ap;
    const double hits = double(j + 1);
    const double precision = hits / double(j + 1 + q.closer[j]);
    best += precision;
    if (q.tied[j] == 0) {
      ap += precision;
      worst += precision;
    } else {
      ap += hits / double(rank_of(q, j, ties));
      worst += hits / double(rank_of(q, j, Ties::pessimistic));
    }
  }
  if (hits_at_r == q.relevant) ap_at_r = ap;
  const double relevant = double(q.relevant);
  return {ap / relevant, worst / relevant, best / relevant, ap_at_r / relevant,
          double(hits_at_r) / relevant};
}

template <class T>
ZSBIR_HD ApRange average_precision(const QueryCounts<T>& q, ApKind ap, Ties ties) {
  const bool by_group = ties == Ties::expected || ties == Ties::grouped;
  const double relevant = double(q.relevant);
  if (ap == ApKind::standard) {
    ApRange range = standard_ap(q, by_group ? Ties::optimistic : ties);
    // Without ties (worst == best, exactly) every order is the same, but `grouped` still joins
    // relevant items that tie among themselves.
    if (by_group && (range.worst != range.best || ties == Ties::grouped)) {
      range.ap = prefix_of(q, -1, ap, ties).precision_sum / relevant;
      const Prefix at_r = prefix_of(q, q.relevant, ap, ties);
      range.ap_at_r = at_r.precision_sum / relevant;
      range.r_precision = at_r.hits / relevant;
    }
    return range;
  }
  const Prefix at_r = prefix_of(q, q.relevant, ApKind::standard, ties);
  return {prefix_of(q, -1, ap, ties).precision_sum / relevant,
          precision_sum(q, q.relevant, ap, Ties::pessimistic) / relevant,
          precision_sum(q, q.relevant, ap, Ties::optimistic) / relevant,
          at_r.precision_sum / relevant, at_r.hits / relevant};
}

// Fills one output row: kFixedColumns + kColumnsPerK * n_ks doubles.
template <class T>
ZSBIR_HD void metrics_row(const QueryCounts<T>& q, const Definition& d, double* row) {
  row[kRelevant] = double(q.relevant);
  if (q.relevant == 0) {
    for (int32_t c = 1; c < kFixedColumns + kColumnsPerK * d.n_ks; ++c) row[c] = NAN;
    return;
  }
  const double relevant = double(q.relevant);
  const Ties ties = d.ties;
  const ApRange range = average_precision(q, d.ap, ties);
  row[kAp] = range.ap;
  row[kApWorst] = range.worst;
  row[kApBest] = range.best;
  row[kReciprocalRank] = reciprocal_rank(q, ties);
  row[kApAtR] = range.ap_at_r;
  row[kRPrecision] = range.r_precision;
  for (int32_t i = 0; i < d.n_ks; ++i) {
    double* at = row + kFixedColumns + kColumnsPerK * i;
    const int64_t k = d.ks[i];
    const Prefix prefix = prefix_of(q, k, d.ap, ties);
    const double z = ap_normaliser(d.normaliser, k, q.relevant, prefix.hits);
    at[kApAtK] = z > 0.0 ? prefix.precision_sum / z : 0.0;
    const bool short_cut = d.precision == PrecisionDenominator::min_relevant_k && q.relevant < k;
    const double hits = short_cut ? prefix_of(q, q.relevant, d.ap, ties).hits : prefix.hits;
    at[kPrecisionAtK] = hits / (short_cut ? relevant : double(k));
    at[kRecallAtK] = prefix.hits / relevant;
    at[kHitAtK] = prefix.hit;
  }
}

}  // namespace zsbir::batched_map
