// The loops of mining on the CPU, for the SIMD level of this processor.
#pragma once
#include <cstdint>

#include "quadruplet_mining/estimates.h"

namespace zsbir::quadruplet_mining {

// One anchor, and the facts about all references that are known before any distance is.
template <class T>
struct ScanRow {
  const T *products, *lengths;  // [references]
  const int32_t* classes;       // [references]
  int32_t references, same_limit;
  int32_t own, forbidden;  // classes of the anchor; forbidden == own: none
  T length, product_error, norm_error, tiny;
  bool dot;
  Window<T> window;
};

constexpr int32_t kChains = 8;  // that run side by side: one would wait for itself

template <class T>
struct ScanLoops {
  // The best bound that a raw distance surely keeps, by choice; infinite where none is sure to
  // count.
  void (*bounds)(const ScanRow<T>& row, T (&bound)[kChoices]);
  // The references that may be as good, in ascending order; returns how many.
  int32_t (*candidates)(const ScanRow<T>& row, const T (&bound)[kChoices], int32_t* found);
  // The sums of kChains distances, element by element as pair_distances_cpu does.
  void (*chains)(const T* a, const T* const (&rows)[kChains], int64_t width, bool dot,
                 T (&sums)[kChains]);
};
template <class T>
ScanLoops<T> scan_loops();

}  // namespace zsbir::quadruplet_mining
