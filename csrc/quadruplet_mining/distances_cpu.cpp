// Distances of all pairs of rows on the CPU, which batch-all losses are made of.
//
// A distance is summed directly, (a - b)^2 over the width, not from |a|^2 + |b|^2 - 2 a.b. Nothing
// cancels, equal pairs have equal distances, and the cost is close to that of a product: a
// subtraction and a fused multiply-add for each element, where a product needs one fused
// multiply-add.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <type_traits>
#include <vector>

#include "common/cpu_features.h"
#include "common/parallel.h"
#include "common/vectors.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

namespace {

// Rows stand side by side in panels, so that a vector holds one feature of neighbouring rows.
template <class T>
constexpr int64_t kPanel = 128 / sizeof(T);

// Storage that begins on a cache line, its elements not set.
template <class T>
class AlignedArray {
 public:
  explicit AlignedArray(int64_t count)
      : memory_(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64)),
                &std::free) {}
  T* get() const { return memory_.get(); }

 private:
  std::unique_ptr<T, decltype(&std::free)> memory_;
};

// A copy of rows as panels [ceil(count / kPanel), width, kPanel]; missing rows are 0.
template <class T>
struct PackedRows {
  explicit PackedRows(Rows<T> rows);

  int64_t panels() const { return (count + kPanel<T> - 1) / kPanel<T>; }
  const T* panel(int64_t number) const { return storage.get() + number * width * kPanel<T>; }

  int64_t count, width;
  AlignedArray<T> storage;
};

// out[r, c] for rows r of `a` and columns c from first_panel * kPanel on; out is row_stride wide.
template <class T>
using DistanceBlock = void (*)(Rows<T> a, const PackedRows<T>& b, int64_t first_panel,
                               Distance distance, T* out, int64_t row_stride);

namespace baseline {
#define ZSBIR_VECTOR simd::baseline::Vector
#define ZSBIR_TILE_ROWS 4
#include "quadruplet_mining/distance_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
}  // namespace baseline

#if defined(ZSBIR_X86)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define ZSBIR_VECTOR simd::avx2::Vector
#define ZSBIR_TILE_ROWS 4  // 8 of 16 registers are sums
#include "quadruplet_mining/distance_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq")
namespace avx512 {
#define ZSBIR_VECTOR simd::avx512::Vector
#define ZSBIR_TILE_ROWS 8  // 16 of 32 registers are sums
#include "quadruplet_mining/distance_tiles.inl"
#undef ZSBIR_VECTOR
#undef ZSBIR_TILE_ROWS
}  // namespace avx512
#pragma GCC pop_options
#endif

// Rows of a task: enough to share a panel, few enough that small batches use every core.
int64_t block_rows(int64_t rows) { return rows >= 512 ? 32 : 8; }

template <class T>
PackedRows<T>::PackedRows(Rows<T> rows)
    : count(rows.count), width(rows.width), storage(panels() * rows.width * kPanel<T>) {
  parallel_rows(panels(), [&](int64_t p, int) {
    const int64_t begin = p * kPanel<T>, columns = std::min(kPanel<T>, count - begin);
    T* out = storage.get() + p * width * kPanel<T>;
    constexpr int64_t kRun = 16;  // of the width: reads and writes stay within the first cache
    for (int64_t from = 0; from < width; from += kRun) {
      const int64_t to = std::min(from + kRun, width);
      for (int64_t c = 0; c < kPanel<T>; ++c) {
        const T* row = rows.data + (begin + c) * width;
        for (int64_t d = from; d < to; ++d) out[d * kPanel<T> + c] = c < columns ? row[d] : T(0);
      }
    }
  });
}

template <class T>
DistanceBlock<T> distance_block() {
#if defined(ZSBIR_X86)
  const Simd level = simd_level();
  if (level == Simd::avx512) return avx512::block<T>;
  if (level == Simd::avx2) return avx2::block<T>;
#endif
  return baseline::block<T>;
}

}  // namespace

template <class T>
void pair_distances_cpu(Rows<T> a, Rows<T> b, Distance distance, T* out) {
  if (a.count == 0 || b.count == 0) return;
  const PackedRows<T> packed(b);
  const DistanceBlock<T> block = distance_block<T>();
  const bool itself = a.data == b.data && a.count == b.count;
  const int64_t rows = block_rows(a.count), n = b.count;
  parallel_rows((a.count + rows - 1) / rows, [&](int64_t number, int) {
    const int64_t begin = number * rows, end = std::min(begin + rows, a.count);
    // A set with itself needs only the upper triangle: (x - y)^2 = (y - x)^2 in all bits.
    const int64_t first = itself ? begin / kPanel<T> : 0;
    block({a.data + begin * a.width, end - begin, a.width}, packed, first, distance,
          out + begin * n, n);
    if (!itself) return;
    // The rows below compute the part up to the end of this panel themselves.
    const int64_t behind = (end + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
    for (int64_t c = behind; c < n; ++c) {
      for (int64_t r = begin; r < end; ++r) out[c * n + r] = out[r * n + c];
    }
  });
}

namespace {

template <class T>
T slope_of(Distance distance, T grad, T d) {
  if (distance == Distance::squared_euclidean) return 2 * grad;
  if (distance == Distance::one_minus_dot) return grad;
  return d < T(1e-6) ? T(0) : grad / d;
}

// W + W^T in square tiles, both halves at once, so that neither matrix is walked by columns.
template <class T>
void symmetric_weights(const T* grad, const T* distances, int64_t n, Distance distance, T* weights,
                       T* row_sums) {
  constexpr int64_t kTile = 32;
  const int64_t tiles = (n + kTile - 1) / kTile;
  parallel_rows(tiles, [&](int64_t ti, int) {
    for (int64_t tj = ti; tj < tiles; ++tj) {
      for (int64_t i = ti * kTile; i < std::min(n, (ti + 1) * kTile); ++i) {
        for (int64_t j = std::max(i, tj * kTile); j < std::min(n, (tj + 1) * kTile); ++j) {
          const T both = grad[i * n + j] + grad[j * n + i];
          weights[i * n + j] = weights[j * n + i] = slope_of(distance, both, distances[i * n + j]);
        }
      }
    }
  });
  parallel_rows(tiles, [&](int64_t t, int) {
    for (int64_t i = t * kTile; i < std::min(n, (t + 1) * kTile); ++i) {
      double sum = 0;
      for (int64_t j = 0; j < n; ++j) sum += double(weights[i * n + j]);
      row_sums[i] = T(sum);
    }
  });
}

}  // namespace

template <class T>
void distance_weights_cpu(const T* grad, const T* distances, int64_t rows, int64_t columns,
                          Distance distance, T* weights, T* row_sums, T* column_sums) {
  if (column_sums == nullptr) {
    symmetric_weights(grad, distances, rows, distance, weights, row_sums);
    return;
  }
  // Columns are summed by blocks of rows, the same for any number of threads, then over the blocks.
  const int64_t block = std::max<int64_t>(16, (rows + 63) / 64),
                blocks = (rows + block - 1) / block;
  std::vector<double> partial(blocks * columns, 0.0);
  parallel_rows(blocks, [&](int64_t b, int) {
    double* own = partial.data() + b * columns;
    for (int64_t i = b * block; i < std::min(rows, (b + 1) * block); ++i) {
      double sum = 0;
      for (int64_t j = 0; j < columns; ++j) {
        const T w = slope_of(distance, grad[i * columns + j], distances[i * columns + j]);
        weights[i * columns + j] = w;
        own[j] += double(w);
        sum += double(w);
      }
      row_sums[i] = T(sum);
    }
  });
  for (int64_t j = 0; j < columns; ++j) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; ++b) sum += partial[b * columns + j];
    column_sums[j] = T(sum);
  }
}

template void distance_weights_cpu<float>(const float*, const float*, int64_t, int64_t, Distance,
                                          float*, float*, float*);
template void distance_weights_cpu<double>(const double*, const double*, int64_t, int64_t, Distance,
                                           double*, double*, double*);
template void pair_distances_cpu<float>(Rows<float>, Rows<float>, Distance, float*);
template void pair_distances_cpu<double>(Rows<double>, Rows<double>, Distance, double*);

}  // namespace zsbir::quadruplet_mining
