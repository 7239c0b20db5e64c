// Mining on the CPU: the products of an anchor's row tell which references may be chosen, and only
// the distances of those are computed.
//
// Algorithm    Each anchor takes two passes over its products. The first finds, by choice, the best
//              bound that some distance surely keeps; the second finds the references that may be
//              as good, and their distances are summed, a few side by side.
// Work         4 comparisons and 4 operations a product in vectors, twice; D fused multiply-adds
//              and subtractions for each candidate, about one candidate a choice unless distances
//              are equal.
// Memory       One index a reference and thread.
#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/parallel.h"
#include "quadruplet_mining/hinges.h"
#include "quadruplet_mining/mining_scan_cpu.h"

namespace zsbir::quadruplet_mining {

namespace {

constexpr int64_t kAnchorsOfTask = 8;

// Labels as 32-bit numbers, equal where the labels are equal, so that a vector holds twice as many.
class Classes {
 public:
  Classes(const int64_t* labels, int64_t count) : references(count) {
    bool all = true;
    for (int64_t r = 0; r < count; ++r) all &= fits(labels[r]);
    if (!all) {
      numbered_.assign(labels, labels + count);
      std::sort(numbered_.begin(), numbered_.end());
      numbered_.erase(std::unique(numbered_.begin(), numbered_.end()), numbered_.end());
    }
    for (int64_t r = 0; r < count; ++r) references[r] = of(labels[r]);
  }

  int32_t of(int64_t label) const {
    if (numbered_.empty()) return fits(label) ? int32_t(label) : kNobody;
    const auto at = std::lower_bound(numbered_.begin(), numbered_.end(), label);
    return at != numbered_.end() && *at == label ? int32_t(at - numbered_.begin()) : kNobody;
  }

  std::vector<int32_t> references;

 private:
  static constexpr int32_t kNobody = std::numeric_limits<int32_t>::min();  // no reference's class
  static bool fits(int64_t label) { return label == int32_t(label) && label != kNobody; }
  std::vector<int64_t> numbered_;  // sorted; empty where every label is its own number
};

// The choices of one anchor so far; references come in ascending order, so `<` and `>` keep the
// lowest of equals.
template <class T>
struct Chosen {
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();
  T distance[kChoices], raw[kChoices];
  int64_t index[kChoices] = {-1, -1, -1, -1};  // -1: none yet, and the distances are not set

  // Whether a reference of this interval may still be chosen: it is not beyond the bound of its
  // choice, and the best so far is not surely as good. Sums of squares are not negative.
  bool can_improve(bool same, bool dot, const Interval<T>& interval,
                   const T (&bound)[kChoices]) const {
    const int32_t nearest = same ? kNearestSame : kNearestOther, farthest = nearest + 1;
    const T low = dot ? interval.low : std::max(T(0), interval.low);
    const bool first = index[nearest] < 0;
    return (!(interval.low > bound[nearest]) && (first || !(low >= raw[nearest]))) ||
           (!(interval.high < bound[farthest]) && (first || !(interval.high <= raw[farthest])));
  }
  void take(bool same, int64_t reference, T of_raw, T d) {
    const int32_t nearest = same ? kNearestSame : kNearestOther, farthest = nearest + 1;
    const bool first = index[nearest] < 0;
    if (first || d < distance[nearest]) set(nearest, reference, of_raw, d);
    if (first || d > distance[farthest]) set(farthest, reference, of_raw, d);
  }

 private:
  void set(int32_t choice, int64_t reference, T of_raw, T d) {
    index[choice] = reference;
    raw[choice] = of_raw;
    distance[choice] = d;
  }
};
static_assert(kFarthestSame == kNearestSame + 1 && kFarthestOther == kNearestOther + 1);

template <class T>
class Miner {
 public:
  Miner(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
        const Estimates<T>& estimates, Distance distance, int32_t wanted)
      : anchors_(anchors),
        references_(references),
        filter_(filter),
        estimates_(estimates),
        distance_(distance),
        wanted_(wanted),
        classes_(filter.reference_labels, references.count) {}

  // found: scratch, one entry a reference; summed: distances, added to.
  Chosen<T> choose(int64_t anchor, int32_t* found, int64_t& summed) const {
    const ScanRow<T> row = row_of(anchor);
    T bound[kChoices];
    loops_.bounds(row, bound);
    for (int32_t c = 0; c < kChoices; ++c) {
      if (wanted_ >> c & 1) continue;
      bound[c] = c % 2 == 0 ? -Chosen<T>::kInfinity : Chosen<T>::kInfinity;  // nothing is as good
    }
    const int32_t count = loops_.candidates(row, bound, found);
    Chosen<T> best;
    int32_t group[kChains], size = 0;
    for (int32_t i = 0; i < count; ++i) {
      const int32_t r = found[i];
      const Interval<T> raw =
          raw_interval(estimates_, row.dot, row.length, row.lengths[r], row.products[r]);
      if (best.can_improve(row.classes[r] == row.own, row.dot, raw, bound)) group[size++] = r;
      if (size < kChains) continue;
      take(row, anchor, group, std::exchange(size, 0), best);
      summed += kChains;
    }
    take(row, anchor, group, size, best);
    summed += size;
    return best;
  }

 private:
  ScanRow<T> row_of(int64_t anchor) const {
    const int64_t n = references_.count;
    const int32_t own = classes_.of(filter_.anchor_labels[anchor]);
    return {estimates_.products + (anchor - estimates_.first) * n,
            estimates_.reference_lengths,
            classes_.references.data(),
            int32_t(n),
            int32_t(std::min(filter_.same_limit, n)),
            own,
            filter_.forbidden ? classes_.of(filter_.forbidden[anchor]) : own,
            estimates_.anchor_lengths[anchor],
            estimates_.product_error,
            estimates_.norm_error,
            estimates_.tiny,
            distance_ == Distance::one_minus_dot,
            window_of(filter_, anchor, distance_, estimates_.tiny)};
  }

  void take(const ScanRow<T>& row, int64_t anchor, const int32_t* group, int32_t size,
            Chosen<T>& best) const {
    if (size == 0) return;
    const T* rows[kChains];
    for (int32_t k = 0; k < kChains; ++k) {
      rows[k] = references_.data + group[k < size ? k : 0] * references_.width;
    }
    T sums[kChains];
    loops_.chains(anchors_.data + anchor * anchors_.width, rows, anchors_.width, row.dot, sums);
    for (int32_t k = 0; k < size; ++k) {
      const T d = distance_of_sum(distance_, sums[k]);
      if (filter_.low && !(d > filter_.low[anchor])) continue;
      if (filter_.high && !(d < filter_.high[anchor])) continue;
      best.take(row.classes[group[k]] == row.own, group[k], raw_of_sum(row.dot, sums[k]), d);
    }
  }

  Rows<T> anchors_, references_;
  SelectFilter<T> filter_;
  Estimates<T> estimates_;
  Distance distance_;
  int32_t wanted_;
  Classes classes_;
  ScanLoops<T> loops_ = scan_loops<T>();
};

}  // namespace

template <class T>
int64_t select_pairs_cpu(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                         const Estimates<T>& estimates, Distance distance, int32_t wanted,
                         int64_t* index, T* chosen) {
  if (estimates.rows == 0) return 0;
  const Miner<T> miner(anchors, references, filter, estimates, distance, wanted);
  std::vector<std::vector<int32_t>> scratch(max_threads());
  std::vector<int64_t> summed((estimates.rows + kAnchorsOfTask - 1) / kAnchorsOfTask, 0);
  parallel_rows(int64_t(summed.size()), [&](int64_t task, int thread) {
    std::vector<int32_t>& found = scratch[thread];
    found.resize(references.count);
    const int64_t begin = estimates.first + task * kAnchorsOfTask;
    const int64_t end = std::min(begin + kAnchorsOfTask, estimates.first + estimates.rows);
    for (int64_t a = begin; a < end; ++a) {
      const Chosen<T> best = miner.choose(a, found.data(), summed[task]);
      for (int32_t c = 0; c < kChoices; ++c) {
        const bool there = (wanted >> c & 1) && best.index[c] >= 0;
        index[c * anchors.count + a] = there ? best.index[c] : -1;
        chosen[c * anchors.count + a] = there ? best.distance[c] : T(0);
      }
    }
  });
  return std::accumulate(summed.begin(), summed.end(), int64_t(0));
}

#define ZSBIR_INSTANTIATE(T)                                                     \
  template int64_t select_pairs_cpu<T>(Rows<T>, Rows<T>, const SelectFilter<T>&, \
                                       const Estimates<T>&, Distance, int32_t, int64_t*, T*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::quadruplet_mining
