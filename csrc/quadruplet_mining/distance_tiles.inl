// A block of distances with the vectors of one SIMD level. distances_cpu.cpp includes it once for
// each level and names ZSBIR_VECTOR (common/vectors.h) and ZSBIR_TILE_ROWS.
//
// Mapping: kTileRows rows by two vectors of columns are summed in registers. One element of the
// width costs two loads and, for each of the 2 kTileRows accumulators, a subtraction with a
// broadcast from memory and a fused multiply-add. A panel (64 KB at width 512) stays in the
// second-level cache for all rows of the block.

template <class T, bool dot, int kRowsOfTile>
static inline void tile(const T* a, int64_t width, const T* panel, Distance distance, T* out,
                        int64_t row_stride) {
  using V = ZSBIR_VECTOR<T>;
  typename V::Vec sum[kRowsOfTile][2];
  for (int r = 0; r < kRowsOfTile; ++r) sum[r][0] = sum[r][1] = V::zero();
  for (int64_t d = 0; d < width; ++d) {
    const typename V::Vec b0 = V::load(panel + d * kPanel<T>);
    const typename V::Vec b1 = V::load(panel + d * kPanel<T> + V::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRowsOfTile; ++r) {
      const typename V::Vec x = V::set(a[r * width + d]);
      if constexpr (dot) {
        sum[r][0] = V::fma(x, b0, sum[r][0]);
        sum[r][1] = V::fma(x, b1, sum[r][1]);
      } else {
        const typename V::Vec e0 = V::sub(x, b0), e1 = V::sub(x, b1);
        sum[r][0] = V::fma(e0, e0, sum[r][0]);
        sum[r][1] = V::fma(e1, e1, sum[r][1]);
      }
    }
  }
  for (int r = 0; r < kRowsOfTile; ++r) {
    for (int v = 0; v < 2; ++v) {
      typename V::Vec value = sum[r][v];
      if constexpr (dot) value = V::sub(V::set(T(1)), value);
      if (distance == Distance::euclidean) value = V::sqrt(value);
      V::store(out + r * row_stride + v * V::kLanes, value);
    }
  }
}

// All columns of one panel for kRowsOfTile rows; the last panel goes through a buffer.
template <class T, bool dot, int kRowsOfTile>
static inline void panel_rows(const T* a, int64_t width, const T* panel, int64_t columns,
                              Distance distance, T* out, int64_t row_stride) {
  constexpr int64_t step = 2 * ZSBIR_VECTOR<T>::kLanes;
  for (int64_t c = 0; c < columns; c += step) {
    if (columns - c >= step) {
      tile<T, dot, kRowsOfTile>(a, width, panel + c, distance, out + c, row_stride);
      continue;
    }
    T buffer[kRowsOfTile * step];
    tile<T, dot, kRowsOfTile>(a, width, panel + c, distance, buffer, step);
    for (int r = 0; r < kRowsOfTile; ++r) {
      std::copy_n(buffer + r * step, columns - c, out + r * row_stride + c);
    }
  }
}

template <class T, bool dot>
static void block_of(Rows<T> a, const PackedRows<T>& b, int64_t first_panel, Distance distance,
                     T* out, int64_t row_stride) {
  for (int64_t p = first_panel; p < b.panels(); ++p) {
    const int64_t begin = p * kPanel<T>, columns = std::min(kPanel<T>, b.count - begin);
    int64_t r = 0;
    const auto rows = [&](auto count) {
      constexpr int n = decltype(count)::value;
      for (; a.count - r >= n; r += n) {
        panel_rows<T, dot, n>(a.data + r * a.width, a.width, b.panel(p), columns, distance,
                              out + r * row_stride + begin, row_stride);
      }
    };
    rows(std::integral_constant<int, ZSBIR_TILE_ROWS>());
    rows(std::integral_constant<int, 2>());
    rows(std::integral_constant<int, 1>());
  }
}

template <class T>
static void block(Rows<T> a, const PackedRows<T>& b, int64_t first_panel, Distance distance, T* out,
                  int64_t row_stride) {
  const auto run = distance == Distance::one_minus_dot ? block_of<T, true> : block_of<T, false>;
  run(a, b, first_panel, distance, out, row_stride);
}
