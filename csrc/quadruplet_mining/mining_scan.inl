// The loops of mining for one SIMD level. mining_scan_cpu.cpp includes it once for each, inside the
// compiler's target for that level: vectors in functions of another target would be taken apart.
// The level names ZSBIR_FUSED: whether it has fused multiply-adds.

// Vectors of 64 bytes in the compiler's own notation: one register with AVX-512, two or four below.
// (Left to the compiler, these loops stay scalar: too many conditions.) Masks are -1 and 0.
template <class T>
struct Lanes {
  static constexpr int32_t kCount = 64 / sizeof(T);
  using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef T Vec __attribute__((vector_size(64)));
  typedef Int Mask __attribute__((vector_size(64)));
  typedef int32_t Class __attribute__((vector_size(kCount * 4)));
};

// The bounds of the raw distances of one vector of references from `first` on, and which of them
// count.
template <class T>
struct Chunk {
  using L = Lanes<T>;
  typename L::Vec low, high;
  typename L::Mask same, other;

  inline Chunk(const ScanRow<T>& row, int32_t first) {
    const int32_t left = row.references - first;
    if (left >= L::kCount) {
      set(row, first, row.lengths + first, row.products + first, row.classes + first);
      return;
    }
    T lengths[L::kCount] = {}, products[L::kCount] = {};  // reads nothing beyond the end
    int32_t classes[L::kCount] = {};
    for (int32_t l = 0; l < left; ++l) {
      lengths[l] = row.lengths[first + l];
      products[l] = row.products[first + l];
      classes[l] = row.classes[first + l];
    }
    set(row, first, lengths, products, classes);
  }

 private:
  inline void set(const ScanRow<T>& row, int32_t first, const T* lengths_at, const T* products_at,
                  const int32_t* classes_at) {
    typename L::Vec lengths, products;
    typename L::Class numbers;
    std::memcpy(&lengths, lengths_at, sizeof(lengths));
    std::memcpy(&products, products_at, sizeof(products));
    std::memcpy(&numbers, classes_at, sizeof(numbers));
    // This is what raw_interval computes.
    const typename L::Vec norms = row.length * row.length + lengths * lengths;
    const typename L::Vec middle = row.dot ? T(1) - products : norms - T(2) * products;
    const typename L::Vec width =
        row.product_error * (row.length * lengths) + row.norm_error * norms + row.tiny;
    low = middle - width;
    high = middle + width;
    const auto classes = __builtin_convertvector(numbers, typename L::Mask);
    typename L::Mask place;
    for (int32_t l = 0; l < L::kCount; ++l) place[l] = l;
    using Int = typename L::Int;
    same = (classes == Int(row.own)) & (place < Int(row.same_limit - first));
    other = (classes != Int(row.own)) & (classes != Int(row.forbidden)) &
            (place < Int(row.references - first));
  }
};

template <class T>
static void bounds(const ScanRow<T>& given, T (&bound)[kChoices]) {
  using L = Lanes<T>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const ScanRow<T> row = given;  // a copy, which no store can change
  typename L::Vec near_same, far_same, near_other, far_other;
  for (int32_t l = 0; l < L::kCount; ++l) {
    near_same[l] = near_other[l] = infinity;
    far_same[l] = far_other[l] = -infinity;
  }
  for (int32_t r = 0; r < row.references; r += L::kCount) {
    const Chunk<T> x(row, r);
    const typename L::Mask inside =
        (x.low > row.window.low_inside) & (x.high < row.window.high_inside);
    const typename L::Mask same = x.same & inside, other = x.other & inside;
    near_same = (same & (x.high < near_same)) ? x.high : near_same;
    far_same = (same & (x.low > far_same)) ? x.low : far_same;
    near_other = (other & (x.high < near_other)) ? x.high : near_other;
    far_other = (other & (x.low > far_other)) ? x.low : far_other;
  }
  bound[kNearestSame] = bound[kNearestOther] = infinity;
  bound[kFarthestSame] = bound[kFarthestOther] = -infinity;
  for (int32_t l = 0; l < L::kCount; ++l) {
    bound[kNearestSame] = std::min(bound[kNearestSame], T(near_same[l]));
    bound[kFarthestSame] = std::max(bound[kFarthestSame], T(far_same[l]));
    bound[kNearestOther] = std::min(bound[kNearestOther], T(near_other[l]));
    bound[kFarthestOther] = std::max(bound[kFarthestOther], T(far_other[l]));
  }
}

template <class T>
static int32_t candidates(const ScanRow<T>& given, const T (&bound)[kChoices], int32_t* found) {
  using L = Lanes<T>;
  constexpr int32_t kChunks = 4;  // looked at by one branch, which is nearly never taken
  const ScanRow<T> row = given;
  int32_t number = 0;
  for (int32_t first = 0; first < row.references; first += kChunks * L::kCount) {
    typename L::Mask look[kChunks], any = {};
    for (int32_t k = 0; k < kChunks; ++k) {
      const int32_t r = first + k * L::kCount;
      look[k] = typename L::Mask{};
      if (r >= row.references) continue;
      const Chunk<T> x(row, r);
      const typename L::Mask possible =
          ~(x.high <= row.window.low_possible) & ~(x.low >= row.window.high_possible);
      const typename L::Mask as_same =
          ~(x.low > bound[kNearestSame]) | ~(x.high < bound[kFarthestSame]);
      const typename L::Mask as_other =
          ~(x.low > bound[kNearestOther]) | ~(x.high < bound[kFarthestOther]);
      look[k] = possible & ((x.same & as_same) | (x.other & as_other));
      any |= look[k];
    }
    typename L::Int somebody = 0;
    for (int32_t l = 0; l < L::kCount; ++l) somebody |= any[l];
    if (somebody == 0) continue;
    for (int32_t k = 0; k < kChunks; ++k) {
      for (int32_t l = 0; l < L::kCount; ++l) {
        if (look[k][l]) found[number++] = first + k * L::kCount + l;
      }
    }
  }
  return number;
}

template <bool dot, class T>
static inline void add_up(const T* a, const T* const (&rows)[kChains], int64_t width,
                          T (&sums)[kChains]) {
  T sum[kChains] = {};
  for (int64_t d = 0; d < width; ++d) {
    for (int32_t k = 0; k < kChains; ++k) {
      const T x = dot ? a[d] : a[d] - rows[k][d], y = dot ? rows[k][d] : x;
      // Without the instruction a library would be called, at a hundred times the cost.
      sum[k] = ZSBIR_FUSED ? std::fma(x, y, sum[k]) : x * y + sum[k];
    }
  }
  std::copy_n(sum, kChains, sums);
}

template <class T>
static void chains(const T* a, const T* const (&rows)[kChains], int64_t width, bool dot,
                   T (&sums)[kChains]) {
  (dot ? add_up<true, T> : add_up<false, T>)(a, rows, width, sums);
}

template <class T>
static ScanLoops<T> loops() {
  return {bounds<T>, candidates<T>, chains<T>};
}
