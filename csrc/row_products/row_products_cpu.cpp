// Products of all rows of two matrices on the CPU.
//
// A product of matrices by the vendor's library is as fast, but the order of its sums depends on
// the sizes, the place of a row, the number of threads and global switches. Here every sum is one
// chain over the width (row_products.h), and only the right side is cut into blocks, its panels:
// the chain of a product never leaves its register.
//
// The work is one fused multiply-add for each pair of rows and feature. Panels come from memory
// once for each call, rows of the left side from the second-level cache once for each panel.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "common/cpu_features.h"
#include "common/parallel.h"
#include "common/vectors.h"
#include "row_products/row_products.h"

namespace zsbir::row_products {

namespace {

template <class T>
using PanelProducts = void (*)(Rows<T> a, const T* panel, const T* next, const Scoring<T>& scoring,
                               T* out, int64_t row_stride);

template <class T>
struct Loops {
  PanelProducts<T> products;
  void (*pack_panel)(Rows<T> rows, T* panel);
  double (*row_square)(const T* row, int64_t width);
};

// Asks for memory in even shares while rows are worked on.
class Prefetch {
 public:
  Prefetch(const void* from, int64_t bytes, int64_t rows)
      : at_(static_cast<const char*>(from)),
        end_(from ? at_ + bytes : at_),
        share_((bytes / kLine + rows - 1) / rows) {}
  void for_rows(int64_t rows) {
    for (int64_t i = 0; i < rows * share_ && at_ < end_; ++i, at_ += kLine) {
      __builtin_prefetch(at_, 0, 2);
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  const char *at_, *end_;
  int64_t share_;
};

namespace baseline {
#define ZSBIR_VECTOR simd::baseline::Vector
#define ZSBIR_TILE_ROWS 4
#define ZSBIR_TILE_VECTORS 4
#include "row_products/product_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
#undef ZSBIR_TILE_VECTORS
}  // namespace baseline

#if defined(ZSBIR_X86)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define ZSBIR_VECTOR simd::avx2::Vector
#define ZSBIR_TILE_ROWS 6  // 12 of 16 registers are sums
#define ZSBIR_TILE_VECTORS 2
#include "row_products/product_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
#undef ZSBIR_TILE_VECTORS
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq")
namespace avx512 {
#define ZSBIR_VECTOR simd::avx512::Vector
#define ZSBIR_TILE_ROWS 8  // 24 of 32 registers are sums
#define ZSBIR_TILE_VECTORS 3
#include "row_products/product_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
#undef ZSBIR_TILE_VECTORS
}  // namespace avx512
#pragma GCC pop_options
#endif

template <class T>
const Loops<T>& loops_of_this_cpu() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return avx512::kLoops<T>;
  if (level == Simd::avx2) return avx2::kLoops<T>;
#endif
  return baseline::kLoops<T>;
}

// One panel of which only rows [begin, end) take part: through a buffer, in the same arithmetic.
template <class T>
void part_of_panel(PanelProducts<T> products, Rows<T> a, const T* panel, const Scoring<T>& scoring,
                   int64_t begin, int64_t end, T* out, int64_t row_stride) {
  constexpr int64_t kRows = 8;
  T buffer[kRows * kPanel<T>], scale[kPanel<T>] = {}, offset[kPanel<T>] = {};
  if (scoring.scale) std::copy_n(scoring.scale, end - begin, scale + begin);
  if (scoring.offset) std::copy_n(scoring.offset, end - begin, offset + begin);
  const Scoring<T> own{scoring.scale ? scale : nullptr, scoring.offset ? offset : nullptr};
  for (int64_t r = 0; r < a.count; r += kRows) {
    const int64_t n = std::min(kRows, a.count - r);
    products({a.data + r * a.stride, n, a.width, a.stride}, panel, nullptr, own, buffer, kPanel<T>);
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(buffer + i * kPanel<T> + begin, end - begin, out + (r + i) * row_stride);
    }
  }
}

}  // namespace

template <class T>
void pack_rows_cpu(Rows<T> rows, T* panels) {
  const Loops<T>& loops = loops_of_this_cpu<T>();
  const bool in_reach = rows.stride < INT32_MAX / kPanel<T>;  // of the offsets of a vector
  parallel_rows((rows.count + kPanel<T> - 1) / kPanel<T>, [&](int64_t p, int) {
    const int64_t begin = p * kPanel<T>, columns = std::min(kPanel<T>, rows.count - begin);
    const T* from = rows.data + begin * rows.stride;
    T* out = panels + begin * rows.width;
    if (columns == kPanel<T> && in_reach) {
      loops.pack_panel({from, columns, rows.width, rows.stride}, out);
      return;
    }
    for (int64_t d = 0; d < rows.width; ++d) {
      for (int64_t c = 0; c < kPanel<T>; ++c) {
        out[d * kPanel<T> + c] = c < columns ? from[c * rows.stride + d] : T(0);
      }
    }
  });
}

template <class T>
void row_products_cpu(Rows<T> left, const Panels<T>& right, const Scoring<T>& scoring, T* out,
                      int64_t row_stride) {
  if (left.count == 0 || right.count == 0) return;
  const PanelProducts<T> products = loops_of_this_cpu<T>().products;
  const int64_t last = right.first + right.count, first_panel = right.first / kPanel<T>;
  const int64_t end_panel = (last + kPanel<T> - 1) / kPanel<T>, panels = end_panel - first_panel;
  // A task is a few adjacent panels with all rows of the left side; where there are few panels, it
  // is one panel with some of the rows.
  const int64_t run = std::clamp<int64_t>(panels / 64, 1, 8);
  const int64_t rows = panels >= 32 ? left.count : std::min<int64_t>(left.count, 48);
  const int64_t runs = (panels + run - 1) / run, row_blocks = (left.count + rows - 1) / rows;
  parallel_rows(runs * row_blocks, [&](int64_t task, int) {
    const int64_t r = task % row_blocks * rows, from = first_panel + task / row_blocks * run;
    const Rows<T> a{left.data + r * left.stride, std::min(rows, left.count - r), left.width,
                    left.stride};
    const int64_t to = std::min(from + run, end_panel);
    for (int64_t p = from; p < to; ++p) {
      const int64_t begin = std::max(right.first - p * kPanel<T>, int64_t(0));
      const int64_t end = std::min(last - p * kPanel<T>, kPanel<T>);
      const int64_t column = p * kPanel<T> + begin - right.first;
      const T* panel = right.data + p * kPanel<T> * right.width;
      const Scoring<T> own{scoring.scale ? scoring.scale + column : nullptr,
                           scoring.offset ? scoring.offset + column : nullptr};
      T* scores = out + r * row_stride + column;
      if (end - begin == kPanel<T>) {
        const T* next = p + 1 < to ? panel + kPanel<T> * right.width : nullptr;
        products(a, panel, next, own, scores, row_stride);
      } else {
        part_of_panel(products, a, panel, own, begin, end, scores, row_stride);
      }
    }
  });
}

template <class T>
void row_squares_cpu(Rows<T> rows, double* out) {
  const auto row_square = loops_of_this_cpu<T>().row_square;
  constexpr int64_t kTask = 64;  // rows
  parallel_rows((rows.count + kTask - 1) / kTask, [&](int64_t task, int) {
    for (int64_t r = task * kTask; r < std::min(rows.count, (task + 1) * kTask); ++r) {
      out[r] = row_square(rows.data + r * rows.stride, rows.width);
    }
  });
}

#define ZSBIR_INSTANTIATE(T)                                                                    \
  template void pack_rows_cpu<T>(Rows<T>, T*);                                                  \
  template void row_products_cpu<T>(Rows<T>, const Panels<T>&, const Scoring<T>&, T*, int64_t); \
  template void row_squares_cpu<T>(Rows<T>, double*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::row_products
