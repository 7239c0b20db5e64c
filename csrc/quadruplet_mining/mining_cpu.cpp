// Mining on the CPU: a block of anchors per task, its distances in a buffer, one scan of each row.
//
// Work         A R D fused multiply-adds and subtractions (distances_cpu.h), A R comparisons
// Memory       the references once more as panels, and up to 1 MiB of distances a thread (8 rows
//              of them where those are more)
#include <algorithm>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "quadruplet_mining/distances_cpu.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

namespace {

constexpr int64_t kBufferBytes = 1 << 20;

template <class T>
struct Best {
  T distance;
  int64_t index = -1;
};

// The branches that take a better distance are rare, so they are predicted: the scan costs about a
// cycle for each reference. In ascending order of the index, `<` and `>` keep the lowest of equals.
template <class T>
void scan_row(const T* distances, int64_t references, const SelectFilter<T>& f, int64_t anchor,
              Best<T> (&best)[kChoices]) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  best[kNearestSame] = best[kNearestOther] = {infinity};
  best[kFarthestSame] = best[kFarthestOther] = {-infinity};
  const int64_t label = f.anchor_labels[anchor];
  const bool forbids = f.forbidden != nullptr;
  const int64_t forbidden = forbids ? f.forbidden[anchor] : 0;
  const T low = f.low ? f.low[anchor] : -infinity, high = f.high ? f.high[anchor] : infinity;
  const bool window = f.low != nullptr || f.high != nullptr;
  for (int64_t r = 0; r < references; ++r) {
    const T d = distances[r];
    const int64_t of = f.reference_labels[r];
    const bool same = of == label;
    const int nearest = same ? kNearestSame : kNearestOther;
    const int farthest = same ? kFarthestSame : kFarthestOther;
    if (!(d < best[nearest].distance || d > best[farthest].distance)) continue;
    if (same ? r >= f.same_limit : forbids && of == forbidden) continue;
    if (window && !(d > low && d < high)) continue;
    if (d < best[nearest].distance) best[nearest] = {d, r};
    if (d > best[farthest].distance) best[farthest] = {d, r};
  }
}

}  // namespace

template <class T>
void select_pairs_cpu(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                      Distance distance, int64_t* index, T* chosen) {
  if (anchors.count == 0) return;
  const PackedRows<T> packed(references);
  const DistanceBlock<T> block = distance_block<T>();
  const int64_t n = references.count;
  const int64_t fit = kBufferBytes / std::max<int64_t>(1, n * sizeof(T)) / 8 * 8;
  const int64_t rows = std::clamp<int64_t>(fit, 8, anchors.count >= 512 ? 32 : 8);
  std::vector<std::vector<T>> buffers(max_threads());
  parallel_rows((anchors.count + rows - 1) / rows, [&](int64_t number, int thread) {
    std::vector<T>& distances = buffers[thread];
    if (distances.empty()) distances.resize(std::max<int64_t>(1, rows * n));
    const int64_t begin = number * rows, end = std::min(begin + rows, anchors.count);
    block({anchors.data + begin * anchors.width, end - begin, anchors.width}, packed, 0, distance,
          distances.data(), n);
    for (int64_t a = begin; a < end; ++a) {
      Best<T> best[kChoices];
      scan_row(distances.data() + (a - begin) * n, n, filter, a, best);
      for (int32_t c = 0; c < kChoices; ++c) {
        index[c * anchors.count + a] = best[c].index;
        chosen[c * anchors.count + a] = best[c].index < 0 ? T(0) : best[c].distance;
      }
    }
  });
}

template void select_pairs_cpu<float>(Rows<float>, Rows<float>, const SelectFilter<float>&,
                                      Distance, int64_t*, float*);
template void select_pairs_cpu<double>(Rows<double>, Rows<double>, const SelectFilter<double>&,
                                       Distance, int64_t*, double*);

}  // namespace zsbir::quadruplet_mining
