// The shape of a launch. A launcher chooses one for the device; tests choose others, and a small
// capacity to see segments.
#pragma once
#include <cstdint>

namespace kernels {

struct LaunchShape {
  int32_t threads = 64;
  int32_t columns_per_slice = 1 << 30;
  int32_t capacity = 2048;  // relevant items of a segment: 1, 7 or 2048
};

// run.operator()<capacity>(), for a capacity that is known at run time.
template <class Run>
void with_capacity(const LaunchShape& shape, const Run& run) {
  if (shape.capacity == 1) {
    run.template operator()<1>();
  } else if (shape.capacity == 7) {
    run.template operator()<7>();
  } else {
    run.template operator()<2048>();
  }
}

}  // namespace kernels
