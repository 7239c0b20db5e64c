// The hinges of one quadruplet from its six distances. The same code runs in the CPU kernel, in the
// CUDA kernel and in the emulation of CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

// The ends of the edges of a quadruplet.
enum Role : int32_t { kSketch = 0, kPositive = 1, kPhotoNegative = 2, kSketchNegative = 3 };

ZSBIR_HD int32_t edge_from(int32_t edge) {
  return edge == 3 || edge == 4 ? kPositive : edge == 5 ? kSketchNegative : kSketch;
}
ZSBIR_HD int32_t edge_to(int32_t edge) {
  return edge == 0 ? kPositive : edge == 2 || edge == 3 ? kSketchNegative : kPhotoNegative;
}

// Whether a distance takes part at all; the others are not computed.
ZSBIR_HD bool uses_edge(const HingeForm& form, int32_t edge) {
  if (edge == 0) return true;
  if (form.cross_modal_share >= 0) return edge == 1 || edge == 2;
  return form.coefficient[edge - 1] > 0;
}

// Whether a quadruplet names a row that exists; an operator may be given any number.
template <class T>
ZSBIR_HD bool corner_exists(const MinedRows<T>& m, int64_t anchor, int32_t role) {
  if (role == kSketch) return true;
  const int64_t row = role == kPositive        ? m.positive[anchor]
                      : role == kPhotoNegative ? m.photo_negative[anchor]
                                               : m.sketch_negative[anchor];
  const int64_t count = role == kSketchNegative ? m.references.count : m.photos.count;
  return row >= 0 && row < count;
}
template <class T>
ZSBIR_HD bool edge_exists(const MinedRows<T>& m, int64_t anchor, int32_t edge) {
  return corner_exists(m, anchor, edge_from(edge)) && corner_exists(m, anchor, edge_to(edge));
}

// Returns the sum of the hinges; slope[e] is its derivative by distance e. A hinge of NaN stays
// NaN: a value that is not finite must not look like a hinge of 0.
template <class T>
ZSBIR_HD T hinges_of(const T* d, const HingeForm& form, T* slope) {
  for (int32_t e = 0; e < kEdges; ++e) slope[e] = 0;
  if (form.cross_modal_share >= 0) {
    const T share = T(form.cross_modal_share);
    const T hinge = d[0] - ((1 - share) * d[2] + share * d[1]) + T(form.margin[0]);
    if (hinge <= 0) return 0;
    slope[0] = 1;
    slope[1] = -share;
    slope[2] = share - 1;
    return hinge;
  }
  T total = 0;
  for (int32_t k = 0; k < kHinges; ++k) {
    const T c = T(form.coefficient[k]);
    if (!(c > 0)) continue;
    const T hinge = d[0] - d[k + 1] + T(form.margin[k]);
    if (hinge <= 0) continue;
    total += c * hinge;
    slope[0] += c;
    slope[k + 1] -= c;
  }
  return total;
}

// The derivative of a distance by its row x is `factor * (x - y)`, and for one_minus_dot it is
// `factor * y`. A Euclidean distance below 1e-6 passes none, because smaller squares have no
// accurate root in float.
template <class T>
ZSBIR_HD T gradient_factor(Distance distance, T slope, T d) {
  if (distance == Distance::one_minus_dot) return -slope;
  if (distance == Distance::squared_euclidean) return 2 * slope;
  return d * d < T(1e-12) ? T(0) : slope / d;
}

// One more element of the width in a sum of distances; a fused chain, as in distances_cpu.cpp.
template <class T>
ZSBIR_HD T add_element(bool dot, T sum, T x, T y) {
  const T e = x - y;
  return dot ? std::fma(x, y, sum) : std::fma(e, e, sum);
}
template <class T>
ZSBIR_HD T distance_of_sum(Distance distance, T sum) {
  return distance == Distance::one_minus_dot ? 1 - sum
         : distance == Distance::euclidean   ? std::sqrt(sum)
                                             : sum;
}

}  // namespace zsbir::quadruplet_mining
