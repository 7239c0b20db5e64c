// The number of thresholds, of a few, that each value lies below, and the reverse, by comparing all
// with all.
#pragma once
#include <cstdint>

namespace zsbir::quadruplet_mining {

// above[c] = number of thresholds > values[c]; below[i] += sum of weights[c] over values[c] <
// thresholds[i]. The order of the thresholds does not matter.
template <class T>
using ThresholdCounts = void (*)(const T* values, const int32_t* weights, int64_t columns,
                                 const T* thresholds, int64_t count, int64_t* below,
                                 int32_t* above);

// For this processor; asked once per call of a kernel.
template <class T>
ThresholdCounts<T> threshold_counts();

}  // namespace zsbir::quadruplet_mining
