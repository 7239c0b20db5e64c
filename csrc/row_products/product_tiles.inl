// The loops of the room with the vectors of one SIMD level. row_products_cpu.cpp includes it once
// for each level and names ZSBIR_VECTOR (common/vectors.h), ZSBIR_TILE_ROWS and ZSBIR_TILE_VECTORS.
//
// Mapping of products: ZSBIR_TILE_ROWS rows by ZSBIR_TILE_VECTORS vectors of columns are summed in
// registers. One element of the width costs a load for each vector and, for each row, a broadcast
// and a fused multiply-add for each vector. With 8 x 3 on AVX-512 these are 11 loads for 24
// multiply-adds, so that the arithmetic is the limit. A panel (96 KB at width 512) stays in the
// second-level cache for all rows, the rows of a tile in the first.

template <class T, int kRowsOfTile>
static inline void tile(const T* a, int64_t stride, int64_t width, const T* panel,
                        const Scoring<T>& scoring, T* out, int64_t row_stride) {
  using V = ZSBIR_VECTOR<T>;
  typename V::Vec sum[kRowsOfTile][ZSBIR_TILE_VECTORS];
  for (auto& row : sum) {
    for (auto& v : row) v = V::zero();
  }
  for (int64_t d = 0; d < width; ++d) {
    typename V::Vec b[ZSBIR_TILE_VECTORS];
    for (int v = 0; v < ZSBIR_TILE_VECTORS; ++v) {
      b[v] = V::load(panel + d * kPanel<T> + v * V::kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRowsOfTile; ++r) {
      const typename V::Vec x = V::set(a[r * stride + d]);
      for (int v = 0; v < ZSBIR_TILE_VECTORS; ++v) sum[r][v] = V::fma(x, b[v], sum[r][v]);
    }
  }
  for (int v = 0; v < ZSBIR_TILE_VECTORS; ++v) {
    const int64_t c = v * V::kLanes;
    const auto scale = scoring.scale ? V::loadu(scoring.scale + c) : V::set(T(1));
    const auto offset = scoring.offset ? V::loadu(scoring.offset + c) : V::zero();
    for (int r = 0; r < kRowsOfTile; ++r) {
      V::store(out + r * row_stride + c, V::fma(sum[r][v], scale, offset));
    }
  }
}

// All rows of `a` with the kPanel rows of one panel; scoring and out begin at its first row. The
// next panel is asked for tile by tile, or the first tile would wait for memory.
template <class T>
static void panel_products(Rows<T> a, const T* panel, const T* next, const Scoring<T>& scoring,
                           T* out, int64_t row_stride) {
  constexpr int64_t step = ZSBIR_TILE_VECTORS * ZSBIR_VECTOR<T>::kLanes;
  static_assert(kPanel<T> % step == 0);
  Prefetch ahead(next, a.width * kPanel<T> * sizeof(T), a.count);
  int64_t r = 0;
  const auto rows = [&](auto count) {
    constexpr int n = decltype(count)::value;
    for (; a.count - r >= n; r += n) {
      ahead.for_rows(n);
      for (int64_t c = 0; c < kPanel<T>; c += step) {
        const Scoring<T> own{scoring.scale ? scoring.scale + c : nullptr,
                             scoring.offset ? scoring.offset + c : nullptr};
        tile<T, n>(a.data + r * a.stride, a.stride, a.width, panel + c, own,
                   out + r * row_stride + c, row_stride);
      }
    }
  };
  rows(std::integral_constant<int, ZSBIR_TILE_ROWS>());
  rows(std::integral_constant<int, 2>());
  rows(std::integral_constant<int, 1>());
}

// kPanel whole rows as a panel: vectors of elements that are a row apart.
template <class T>
static void pack_panel(Rows<T> rows, T* out) {
  using V = ZSBIR_VECTOR<T>;
  for (int64_t d = 0; d < rows.width; ++d) {
    for (int64_t c = 0; c < kPanel<T>; c += V::kLanes) {
      V::store(out + d * kPanel<T> + c, V::strided(rows.data + c * rows.stride + d, rows.stride));
    }
  }
}

template <class T>
static double row_square(const T* row, int64_t width) {
  double lanes[kSquareLanes] = {};
  int64_t d = 0;
  for (; d + kSquareLanes <= width; d += kSquareLanes) {
    for (int32_t i = 0; i < kSquareLanes; ++i) lanes[i] += double(row[d + i]) * double(row[d + i]);
  }
  for (int32_t i = 0; d + i < width; ++i) lanes[i] += double(row[d + i]) * double(row[d + i]);
  for (int32_t step = kSquareLanes / 2; step > 0; step /= 2) {
    for (int32_t i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
}

template <class T>
constexpr Loops<T> kLoops{panel_products<T>, pack_panel<T>, row_square<T>};
