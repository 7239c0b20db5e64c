// The two loops over the width of a row that hinges are made of, for this processor's SIMD level.
// They have no contraction and sixteen partial sums in a fixed order, so they give the same bits at
// every level.
#pragma once
#include <cstdint>

namespace zsbir::quadruplet_mining {

template <class T>
struct RowLoops {
  T (*squared_distance)(const T* x, const T* y, int64_t width);
  T (*dot)(const T* x, const T* y, int64_t width);
  // out += factor * (x - y), and out += factor * y.
  void (*add_difference)(T* out, T factor, const T* x, const T* y, int64_t width);
  void (*add_row)(T* out, T factor, const T* y, int64_t width);
};

template <class T>
RowLoops<T> row_loops();

}  // namespace zsbir::quadruplet_mining
