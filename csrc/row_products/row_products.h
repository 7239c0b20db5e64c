// The contract of the room: products of all rows of two matrices as scores, and squared lengths.
//
//   product(q, g) = sum over d of left[q, d] * right[g, d]
//   out[q, g]     = product(q, g) * scale[g] + offset[g]
//
// A product is one chain of fused multiply-adds over ascending d, beginning at 0, and the score one
// more of them. So its bits depend on the two rows alone, never on the sizes of the matrices, the
// place of a row in them, the number of threads or the processor (with fused multiply-adds; a
// baseline build rounds products, too): equal rows have equal scores wherever they stand.
#pragma once
#include <cstdint>

namespace zsbir::row_products {

// A matrix of rows, elements side by side, rows `stride` elements apart.
template <class T>
struct Rows {
  const T* data;
  int64_t count, width, stride;
};

// On the CPU the right side of a product comes in panels of kPanel rows that stand side by side,
// [ceil(count / kPanel), width, kPanel], so that a vector holds one feature of neighbouring rows.
// Rows that are missing in the last panel are 0.
template <class T>
constexpr int64_t kPanel = 192 / sizeof(T);  // 3 vectors of AVX-512, 6 of AVX2

template <class T>
struct Panels {
  const T* data;
  int64_t width;
  int64_t first, count;  // rows that take part
};

// The factors that make a score of a product: arrays of one element for each row of the right side,
// or nullptr for 1 and 0.
template <class T>
struct Scoring {
  const T* scale;
  const T* offset;
};

// Copies rows into panels, which must hold ceil(rows.count / kPanel) of them; 64-byte aligned.
template <class T>
void pack_rows_cpu(Rows<T> rows, T* panels);

// out [left.count, right.count], rows row_stride apart. Panels are 64-byte aligned.
template <class T>
void row_products_cpu(Rows<T> left, const Panels<T>& right, const Scoring<T>& scoring, T* out,
                      int64_t row_stride);
template <class T>
void row_products_cuda(Rows<T> left, Rows<T> right, const Scoring<T>& scoring, T* out,
                       int64_t row_stride, int device, void* stream);

// Sums of squares in double, [rows.count]: kSquareLanes chains, one for every remainder of d, added
// in a tree. They depend on the row alone, as products do.
constexpr int32_t kSquareLanes = 16;
template <class T>
void row_squares_cpu(Rows<T> rows, double* out);
template <class T>
void row_squares_cuda(Rows<T> rows, double* out, int device, void* stream);

}  // namespace zsbir::row_products
