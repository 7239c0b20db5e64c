// How a product of two rows bounds their distance. The same code runs in the CPU kernel, in the
// CUDA kernel and in the emulation of CUDA.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

// The bounds of the raw distance: the sum of a chain, or 1 - sum for one_minus_dot. They are NaN
// where a product or norm overflowed; comparisons are written so that such a pair is looked at.
template <class T>
struct Interval {
  T low, high;
};

// a, b: the lengths of both rows.
template <class T>
ZSBIR_HD Interval<T> raw_interval(const Estimates<T>& e, bool dot, T a, T b, T product) {
  const T norms = a * a + b * b;
  const T middle = dot ? 1 - product : norms - 2 * product;
  const T width = e.product_error * (a * b) + e.norm_error * norms + e.tiny;
  return {middle - width, middle + width};
}

template <class T>
ZSBIR_HD T raw_of_sum(bool dot, T sum) {
  return dot ? 1 - sum : sum;
}

// The raw distances whose distance is above `low` and below `high` of the filter: those that are
// surely inside, or those that possibly are. The two differ by the rounding of the square root.
template <class T>
struct Window {
  T low_inside, low_possible, high_possible, high_inside;
};

template <class T>
ZSBIR_HD Window<T> window_of(const SelectFilter<T>& filter, int64_t anchor, Distance distance,
                             T tiny) {
  const T infinity = T(INFINITY), rounding = T(sizeof(T) == 8 ? 0x1p-50 : 0x1p-21);  // 4 epsilon
  const T low = filter.low ? filter.low[anchor] : -infinity;
  const T high = filter.high ? filter.high[anchor] : infinity;
  if (distance != Distance::euclidean) return {low, low, high, high};
  Window<T> window{-infinity, -infinity, -infinity, -infinity};  // no root is negative
  if (!(low < 0)) {
    window.low_inside = low * low * (1 + rounding) + tiny;
    window.low_possible = low * low * (1 - rounding) - tiny;
  }
  if (!(high <= 0)) {
    window.high_possible = high * high * (1 + rounding) + tiny;
    window.high_inside = high * high * (1 - rounding) - tiny;
  }
  return window;
}

template <class T>
ZSBIR_HD bool surely_inside(const Window<T>& window, const Interval<T>& raw) {
  return (raw.low > window.low_inside) & (raw.high < window.high_inside);
}
template <class T>
ZSBIR_HD bool possibly_inside(const Window<T>& window, const Interval<T>& raw) {
  return !(raw.high <= window.low_possible) & !(raw.low >= window.high_possible);
}

}  // namespace zsbir::quadruplet_mining
