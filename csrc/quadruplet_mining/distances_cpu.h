// Blocks of distances on the CPU, what mining and batch-all losses are made of.
//
// A distance is summed directly, (a - b)^2 over the width, not from |a|^2 + |b|^2 - 2 a.b: no
// cancellation, equal pairs have equal distances, and the cost is that of a product (a subtraction
// and a fused multiply-add for each element where a product needs one fused multiply-add).
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

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

// A copy of rows as panels [ceil(count / kPanel), width, kPanel]; what is missing is 0.
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

// For this processor; asked once per call of a kernel.
template <class T>
DistanceBlock<T> distance_block();

}  // namespace zsbir::quadruplet_mining
