// How addresses come from Python: as integers.
#pragma once
#include <cstdint>

namespace zsbir {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Calls f with a zero of the element type.
template <class F>
void with_type(bool float64, const F& f) {
  float64 ? f(double{}) : f(float{});
}

}  // namespace zsbir
