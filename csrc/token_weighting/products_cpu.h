// The two small matrix products of the CPU kernels, over a vector type V of one SIMD level.
//
// The file of each level alone includes this one, within its target options: everything is local to
// that file, so that the linker cannot take one level's code for another's.
//
// dots         out[i, j] = <a_i, b_j>: rows of both lie along the vectors. A tile of V::kDotRows x
//              4 sums stays in registers, and is summed over the lanes at the end.
// combine      out[i, :] (+)= sum_k weight(i, k) b_k: a weight is broadcast. A tile of V::kRows x
//              V::kColumns vectors stays in registers.
//
// In both a vector that is loaded is used kRows times, so that the arithmetic, not the loads, sets
// the pace.
#pragma once
#include <algorithm>
#include <cstdint>

#define ZSBIR_INLINE inline __attribute__((always_inline))

namespace zsbir::token_weighting {
namespace {

// step(d, width) over a row in whole vectors and a part.
template <class V, class Step>
ZSBIR_INLINE void over_row(int64_t size, const Step& step) {
  int64_t d = 0;
  for (; d + V::kWidth <= size; d += V::kWidth) step(d, V::kWidth);
  if (d < size) step(d, int(size - d));
}

template <class V>
ZSBIR_INLINE typename V::R load_up_to(const typename V::T* p, int width) {
  return width == V::kWidth ? V::load(p) : V::load_part(p, width);
}
template <class V>
ZSBIR_INLINE void store_up_to(typename V::T* p, typename V::R value, int width) {
  width == V::kWidth ? V::store(p, value) : V::store_part(p, value, width);
}

// Rows are cut into tiles of nearly the same height: a low last tile would waste the registers.
struct Tiles {
  int64_t rows, tiles;
  Tiles(int64_t rows, int64_t highest) : rows(rows), tiles((rows + highest - 1) / highest) {}
  int64_t begin(int64_t tile) const { return rows * tile / tiles; }
};

// run.operator()<R>() for 1 <= R <= highest, known at run time.
template <int highest, class Run>
ZSBIR_INLINE void with_height(int64_t rows, const Run& run) {
  if constexpr (highest > 1) {
    if (rows < highest) return with_height<highest - 1>(rows, run);
  }
  run(std::integral_constant<int, highest>());
}

constexpr int kDotColumns = 4;
constexpr int kAhead = 8;  // rows of b that are fetched before their turn

// `fetch`: this tile is the first that sees its columns; it fetches later ones, and those of
// `next`.
template <class V, int R, bool fetch>
ZSBIR_INLINE void dots_tile(const typename V::T* a, int64_t lda, const typename V::T* b,
                            int64_t ldb, int64_t columns, int64_t depth, typename V::T* out,
                            int64_t ldo, const typename V::T* next) {
  using T = typename V::T;
  const T* column[kDotColumns];  // past the end: the last one again, whose sums are not read
  for (int j = 0; j < kDotColumns; ++j) column[j] = b + std::min<int64_t>(j, columns - 1) * ldb;
  typename V::R sum[R][kDotColumns];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kDotColumns; ++j) sum[i][j] = V::zero();
  }
  over_row<V>(depth, [&](int64_t d, int width) __attribute__((always_inline)) {
    typename V::R right[kDotColumns];
#pragma GCC unroll 4
    for (int j = 0; j < kDotColumns; ++j) {
      right[j] = load_up_to<V>(column[j] + d, width);
      if (fetch) {  // past the end of an array it does no harm
        V::fetch_l1(b + (j + kAhead) * ldb + d);
        V::fetch_l2(next + j * ldb + d);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const typename V::R left = load_up_to<V>(a + i * lda + d, width);
#pragma GCC unroll 4
      for (int j = 0; j < kDotColumns; ++j) sum[i][j] = V::fma(left, right[j], sum[i][j]);
    }
  });
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    V::store_sums(out + i * ldo, sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
  }
}

// out [rows, ldo] = a [rows, lda] b^T [columns, ldb]; ldo >= columns rounded up to 4, and the
// padding is overwritten. `next`, an array like b that is read soon after, is fetched meanwhile.
template <class V>
void dots(const typename V::T* a, int64_t rows, int64_t lda, const typename V::T* b,
          int64_t columns, int64_t ldb, int64_t depth, typename V::T* out, int64_t ldo,
          const typename V::T* next) {
  // As many rows of `a` as stay in L1 beside four of b go past b at a time.
  constexpr int64_t kL1 = 32 * 1024;
  const int64_t fit = kL1 / (depth * int64_t(sizeof(typename V::T)) + 1);
  const Tiles groups(rows, std::max<int64_t>(fit / V::kDotRows, 1) * V::kDotRows);
  for (int64_t g = 0; g < groups.tiles; ++g) {
    const int64_t first = groups.begin(g);
    const Tiles tiles(groups.begin(g + 1) - first, V::kDotRows);
    for (int64_t j = 0; j < columns; j += kDotColumns) {
      for (int64_t t = 0; t < tiles.tiles; ++t) {
        const int64_t i = first + tiles.begin(t);
        with_height<V::kDotRows>(tiles.begin(t + 1) - tiles.begin(t), [&](auto height) {
          const auto tile =
              t == 0 && g == 0 ? dots_tile<V, height(), true> : dots_tile<V, height(), false>;
          tile(a + i * lda, lda, b + j * ldb, ldb, columns - j, depth, out + i * ldo + j, ldo,
               next + j * ldb);
        });
      }
    }
  }
}

// Where weight(i, k) lies: by rows, weights[i * ld + k], or by columns, weights[k * ld + i].
enum class Order { by_rows, by_columns };
// stream: overwrite around the cache.
enum class Result { overwrite, add, stream };

template <class V, int R, int C, Order order, Result result>
ZSBIR_INLINE void combine_tile(const typename V::T* weights, int64_t ldw, const typename V::T* b,
                               int64_t ldb, int64_t depth, typename V::T* out, int64_t ldo,
                               int width) {
  using T = typename V::T;
  if (C > 1) width = V::kWidth;
  typename V::R sum[R][C];
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      sum[i][c] =
          result == Result::add ? load_up_to<V>(out + i * ldo + c * V::kWidth, width) : V::zero();
    }
  }
  for (int64_t k = 0; k < depth; ++k, b += ldb) {
    typename V::R right[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) right[c] = load_up_to<V>(b + c * V::kWidth, width);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const T weight = order == Order::by_rows ? weights[i * ldw + k] : weights[k * ldw + i];
      const typename V::R left = V::set(weight);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[i][c] = V::fma(left, right[c], sum[i][c]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      typename V::T* to = out + i * ldo + c * V::kWidth;
      if (result == Result::stream && C > 1) {
        V::stream(to, sum[i][c]);
      } else {
        store_up_to<V>(to, sum[i][c], width);
      }
    }
  }
}

// out [rows, columns] (+)= weights [rows, depth] b [depth, columns].
template <class V, Order order, Result result>
void combine(const typename V::T* weights, int64_t ldw, int64_t rows, const typename V::T* b,
             int64_t depth, int64_t ldb, int64_t columns, typename V::T* out, int64_t ldo) {
  const Tiles tiles(rows, V::kRows);
  const auto column_block = [&](auto vectors, int64_t j, int width) {
    for (int64_t t = 0; t < tiles.tiles; ++t) {
      const int64_t i = tiles.begin(t);
      const auto* first = weights + (order == Order::by_rows ? i * ldw : i);
      with_height<V::kRows>(tiles.begin(t + 1) - i, [&](auto height) {
        combine_tile<V, height(), vectors(), order, result>(first, ldw, b + j, ldb, depth,
                                                            out + i * ldo + j, ldo, width);
      });
    }
  };
  int64_t j = 0;
  for (; j + V::kColumns * V::kWidth <= columns; j += V::kColumns * V::kWidth) {
    column_block(std::integral_constant<int, V::kColumns>(), j, V::kWidth);
  }
  for (; j < columns; j += V::kWidth) {
    column_block(std::integral_constant<int, 1>(), j,
                 int(std::min<int64_t>(V::kWidth, columns - j)));
  }
}

// --- rows ----------------------------------------------------------------------------------------

template <class V>
typename V::T row_dot(const typename V::T* a, const typename V::T* b, int64_t size) {
  typename V::R sum = V::zero();
  over_row<V>(size, [&](int64_t d, int width) __attribute__((always_inline)) {
    sum = V::fma(load_up_to<V>(a + d, width), load_up_to<V>(b + d, width), sum);
  });
  return V::sum(sum);
}

// to = factor * from
template <class V>
void row_scale(const typename V::T* from, typename V::T factor, typename V::T* to, int64_t size) {
  over_row<V>(size, [&](int64_t d, int width) __attribute__((always_inline)) {
    store_up_to<V>(to + d, V::mul(V::set(factor), load_up_to<V>(from + d, width)), width);
  });
}

// 1 / |row|, 0 of a zero row. Dividing by the largest entry first keeps the squares from
// overflowing or vanishing.
template <class V>
typename V::T row_inverse_norm(const typename V::T* row, int64_t size, typename V::T zero_row) {
  using T = typename V::T;
  typename V::R most = V::zero();
  over_row<V>(size, [&](int64_t d, int width) __attribute__((always_inline)) {
    most = V::max(most, V::abs(load_up_to<V>(row + d, width)));
  });
  const T largest = V::largest(most);
  if (largest < zero_row) {
    T nothing = 0;
    for (int64_t d = 0; d < size; ++d) nothing += T(0) * row[d];  // 0, or NaN
    return nothing;
  }
  const T shrink = T(1) / largest;
  typename V::R sum = V::zero();
  over_row<V>(size, [&](int64_t d, int width) __attribute__((always_inline)) {
    const typename V::R x = V::mul(V::set(shrink), load_up_to<V>(row + d, width));
    sum = V::fma(x, x, sum);
  });
  return shrink / std::sqrt(V::sum(sum));
}

// row = exp(row - shift); returns the sum.
template <class V>
typename V::T row_exp(typename V::T* row, typename V::T shift, int64_t size) {
  typename V::R sum = V::zero();
  over_row<V>(size, [&](int64_t d, int width) __attribute__((always_inline)) {
    const typename V::R x = V::sub(load_up_to<V>(row + d, width), V::set(shift));
    store_up_to<V>(row + d, V::exp(x), width);
    sum = V::add(sum, load_up_to<V>(row + d, width));  // of a part, the rest counts nothing
  });
  return V::sum(sum);
}

template <class V>
typename V::T row_max(const typename V::T* row, int64_t size) {
  typename V::T most = row[0];
  if (size >= V::kWidth) {
    typename V::R vector = V::load(row);
    int64_t d = V::kWidth;
    for (; d + V::kWidth <= size; d += V::kWidth) vector = V::max(vector, V::load(row + d));
    vector = V::max(vector, V::load(row + size - V::kWidth));
    most = V::largest(vector);
  } else {
    for (int64_t d = 1; d < size; ++d) most = std::max(most, row[d]);
  }
  return most;
}

}  // namespace
}  // namespace zsbir::token_weighting
